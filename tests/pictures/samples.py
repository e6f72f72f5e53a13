"""What the tests draw: a trace and breakdowns, made up."""

from acb_minimal.trace.law import Breakdown
from acb_minimal.trace.spans import Trace


def made() -> Trace:
    """Three batches of 10 ms in two slots; bubbles of 2 ms and 50 us before the later ones. Copies take 5 us."""
    trace = Trace("simulated something")
    for number, start in enumerate((1.0010, 1.0130, 1.02305)):
        slot = "AB"[number % 2]
        trace.add("CPU", "schedule", start - 0.0010, start - 0.000605, number)
        trace.add("CPU", "upload", start - 0.000605, start - 0.0006, number, slot)
        trace.add("CPU", "forward", start - 0.0006, start + 0.0060, number, slot)
        trace.add("CPU", "wait", start + 0.0060, start + 0.0085)
        trace.add("CPU", "update", start + 0.0085, start + 0.0087, number)
        trace.add("H2D", "upload", start - 0.000015, start - 0.000010, number, slot)
        trace.add("compute", "forward", start, start + 0.0100, number, slot, start, 0.0040)
        trace.add("D2H", "download", start + 0.0100, start + 0.010005, number, slot)
    return trace


ROWS = {
    "ch1_sync": Breakdown(8.12e-3, 2.05e-3, 13.38e-3, 0.15e-3),
    "ch5_carry_over": Breakdown(8.12e-3, 2.05e-3, 13.47e-3, 0.01e-3),
    "ch6_cuda_graphs": Breakdown(8.13e-3, 0.002e-3, 0.0, 0.0),
    "measured": Breakdown(8.16e-3, 0.0, -0.02e-3, 0.01e-3),
}
