"""Chapter 2 with its host waits moved to the end of the step: what it would do is shown by the simulated GPU."""

from acb_minimal.measure.metrics import environment
from acb_minimal.run import engines
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.trace.spans import Trace


def unordered() -> tuple[Trace, dict[str, str]]:
    """Its trace, and where that is from."""
    engine = engines.changed(
        "ch2",
        ("self.h2d.synchronize()", "pass"),
        ("self.compute.synchronize()", "pass"),
        ("self.d2h.synchronize()", "self.cuda.synchronize()"),
    )
    load = workload("wide").override(new_tokens=64)
    device = SimulatedDevice(Costs.of(load.model), arithmetic=False, trace=True)
    checkpoint = Checkpoint(load.model)
    Session(load.job(checkpoint.vocab_size), engine, checkpoint, device).serve()
    return device.trace, environment(device) | {"command": "mkdocs build"}


def early(trace: Trace, number: int) -> float:
    """Seconds by which a batch's download begins before the batch has ended on the GPU."""
    download = next(span for span in trace.lane("D2H") if span.batch_number == number)
    return trace.batches()[number][1] - download.start
