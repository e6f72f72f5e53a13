"""What the exercises go by: facts of an engine, found by running it on the simulated GPU, and of a trace."""

import torch

from ..kv_cache import KVCache
from ..measure.profile import profile
from ..model import Model
from ..run.checkpoint import Checkpoint
from ..run.workload import workload
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.operations import Observer, Operation
from ..slot import SlotSize
from ..trace.spans import Trace
from .times import middle
from .tokens import PAIRS, SCHEDULES, answers, counted, right, simulated


def wrong_under(engine: type) -> str:
    """A hint that names the first schedule under which the engine counts wrong; "" if there is none."""
    checkpoint = Checkpoint("counter")
    for schedules in SCHEDULES.values():
        for policy, seed in schedules:
            said = answers(engine, simulated(policy, seed), checkpoint)
            if isinstance(said, str):
                return f"under the schedule {policy!r} it raises {said}"
            if right(said) < len(PAIRS):
                return f"under the schedule {policy!r} it gets {right(said)} of {len(PAIRS)} answers right"
    return ""


class StreamWaits(Observer):
    """Counts how many times a stream is made to wait for another."""

    def __init__(self):
        self.count = 0

    def queued(self, operation: Operation) -> None:
        self.count += operation.what == "wait"


def host_waits(engine: str | type) -> float:
    """How many times the host waits, for a batch, on a GPU that is never done before it has to be."""
    session = counted(engine, simulated("lazy"))
    return sum(span.name == "wait" for span in session.trace.lane("CPU")) / len(session.done)


def stream_waits(engine: str | type) -> float:
    """How many times a stream is made to wait for another, for a batch."""
    waits = StreamWaits()
    session = counted(engine, SimulatedDevice(Costs.of("counter"), observer=waits))
    return waits.count / len(session.done)


def simulated_bubble(engine: str | type) -> float:
    """Seconds without a batch on a simulated GPU, for a decode step of the workload `wide`."""
    return profile(engine, workload("wide").override(new_tokens=64), "sim").breakdown.bubbles


def seconds_in(trace: Trace, lane: str, name: str) -> float:
    """Mean seconds for a batch that a lane spends in spans of this name, in the middle of the run."""
    windows = trace.batches()
    chosen = middle(sorted(windows), 16)
    begin, end = windows[chosen[0]][1], windows[chosen[-1]][1]
    spans = (span for span in trace.lane(lane) if span.name == name and begin < span.end <= end)
    return sum(span.seconds for span in spans) / (len(chosen) - 1)


def bare_model(device: SimulatedDevice, rows: int) -> Model:
    """A model without a network, for batches of up to `rows` decodes: for what does not depend on tokens."""
    return Model(None, [], KVCache([], 1, 64, torch.float32, "cpu"), SlotSize(rows, rows, 1), device)
