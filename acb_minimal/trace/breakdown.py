"""Where the time of a step goes: kernels, kernel gaps, launch gaps and bubbles."""

from dataclasses import dataclass

# Seconds that the GPU takes from one kernel to the next though that is queued, on an H200, without a profiler: the time
# of a batch in which none of its kernels runs, over their number (docs/results/h200.json; a test holds them to it). Of
# kernels launched one by one: chapter 5 on `wide`, whose host is a batch ahead. Of a graph's: chapter 6 on `small`.
EAGER_GAP = 1.43e-6
GRAPH_GAP = 0.3e-6
PARTS = ("kernels", "kernel_gaps", "launch_gaps", "bubbles")  # of a Breakdown


@dataclass(frozen=True)
class Breakdown:
    """A step, from the end of a batch on the GPU to the end of the next, in seconds.

    Attributes:
        kernels: a kernel is running.
        kernel_gaps: none is, though the next one is queued: the GPU's own time from one kernel to the next.
        launch_gaps: none is, because the host has not launched the next one yet.
        bubbles: no batch is on the GPU, because the host is between two batches.
        kernel_count: kernels in a batch; None where they are not known one by one.
    """

    kernels: float
    kernel_gaps: float
    launch_gaps: float
    bubbles: float
    kernel_count: float | None = None

    @property
    def step(self) -> float:
        """All of it."""
        return self.on_gpu + self.launch_gaps + self.bubbles

    @property
    def on_gpu(self) -> float:
        """K: what the batch takes a GPU that never waits for the host."""
        return self.kernels + self.kernel_gaps

    def distance(self, measured: "Breakdown") -> float:
        """How far off the step is, or the part that differs most from the measured one's, as a share of that step."""
        parts = (*PARTS, "step")
        return max(abs(getattr(self, part) - getattr(measured, part)) for part in parts) / measured.step


def inside(
    length: float, kernels: float, gaps: float | None, count: float | None, graph: bool, gap: float = EAGER_GAP
) -> tuple[float, float]:
    """What a batch, or a part of it, is made of on the GPU: for how long kernels run in it, and for how long it is in
    kernel gaps; the rest are launch gaps.

    Args:
        length: of all of it, seconds.
        kernels: of kernels, seconds; as they were timed in another run, they may be longer.
        gaps: of kernel gaps, seconds; None if not known.
        count: of kernels; None if not known.
        graph: whether they were launched as a graph, which leaves nothing to wait for.
        gap: seconds from one kernel to the next if both are queued, and not of a graph.
    """
    kernels = min(kernels, length)
    rest = length - kernels
    if gaps is None:
        gaps = rest if graph else (count or 0) * gap
    return kernels, min(gaps, rest)
