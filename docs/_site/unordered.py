"""Chapter 2 with its host waits moved to the end of the step: what it would do is shown by the simulated GPU."""

from acb_minimal import variants
from acb_minimal.costs import Costs
from acb_minimal.device import SimulatedDevice
from acb_minimal.load import Checkpoint
from acb_minimal.results import environment
from acb_minimal.run import Session
from acb_minimal.trace import Trace
from acb_minimal.workload import workload


def unordered() -> tuple[Trace, dict[str, str]]:
    """Its trace, and where that is from."""
    engine = variants.changed(
        "ch2",
        ("self.h2d.synchronize()", "pass"),
        ("self.compute.synchronize()", "pass"),
        ("self.d2h.synchronize()", "self.cuda.synchronize()"),
    )
    load = workload("wide").override(new_tokens=64)
    device = SimulatedDevice(Costs.of(load.model), arithmetic=False, trace=True)
    list(Session.of(load, engine, Checkpoint(load.model), device).run())
    return device.trace, environment(device) | {"command": "mkdocs build"}
