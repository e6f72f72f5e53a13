"""The law of overlap (trace/law.py), held to engines: steps with more and more work for the host.

The host's work is turned up while an engine serves, a synchronous one and an asynchronous one, both with their decodes
launched kernel by kernel and as graphs. K, L and H are measured where nothing was added.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import InputError
from ..run.checkpoint import Checkpoint
from ..run.devices import open_device
from ..run.options import Options
from ..run.session import Session
from ..run.timed import Machine
from ..run.workload import WORKLOADS
from ..sim.costs import Costs
from ..trace.law import Law
from .metrics import Breakdown, environment, widest_decodes
from .result_table import ResultTable

SWEPT = ("small", "long", "wide")
HOST_WORK = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3)  # seconds added to a step
STEPS, SETTLING = 30, 18  # decode steps with each of them, of which the first are not counted: a host that is a little
# faster than the GPU is ahead of it by a whole batch only after many steps, and is then held up
SYNCHRONOUS, ASYNCHRONOUS = "ch1", "ch5"


def law_of(parts: Breakdown) -> Law:
    """By what was seen of a synchronous engine: its bubble is H, a batch's time on the GPU the longer of K and L.

    Raises:
        InputError: the breakdown was kept without the time of launching.
    """
    if parts.launching is None:
        raise InputError("this breakdown has no time of launching: it was measured by an earlier version")
    window = parts.kernels + parts.launch_gaps
    launch_bound = parts.launching > 0.97 * window  # the last kernels run on when all is launched
    return Law(parts.kernels if launch_bound else window, parts.launching, parts.bubbles)


class Point(NamedTuple):
    """A synchronous and an asynchronous engine on one workload, with so much host work added.

    Attributes:
        workload: its name.
        graphs: whether decodes were launched as graphs.
        host_work: seconds added to a step.
        waiting: K, L and H of the synchronous engine, with that work.
        ahead: those of the asynchronous one.
        synchronous: seconds of a decode step, median.
        asynchronous: likewise.
    """

    workload: str
    graphs: bool
    host_work: float
    waiting: Law
    ahead: Law
    synchronous: float
    asynchronous: float

    @property
    def gain(self) -> float:
        """How many times as fast the asynchronous engine was."""
        return self.synchronous / self.asynchronous

    @property
    def predicted(self) -> tuple[float, float]:
        """Seconds of the two steps by the law."""
        return self.waiting.synchronous, self.ahead.asynchronous

    @property
    def error(self) -> float:
        """By what share of itself the worse of the two predictions is off."""
        steps = (self.synchronous, self.asynchronous)
        return max(abs(step / law - 1) for step, law in zip(steps, self.predicted, strict=True))


def sweep(name: str, device: str = "auto") -> Iterator[Point]:
    """One workload with every amount of host work, kernel by kernel and as graphs."""
    workload = WORKLOADS[name]
    prefills = -(-workload.requests * workload.prompt_tokens // workload.max_batch_tokens)
    # Once the last prompt is in, every amount of host work has its turn; the first requests decode all the while.
    workload = workload.override(new_tokens=prefills + STEPS * (len(HOST_WORK) + 1) + SETTLING)
    checkpoint = Checkpoint(workload.model)
    costs = Costs.of(checkpoint.name, checkpoint.weight_bytes)
    kernels: dict[float, float] = {}
    for graphs in (True, False):
        both = []
        for chapter in (SYNCHRONOUS, ASYNCHRONOUS):
            job = workload.job(checkpoint.vocab_size)
            both.append(Session(job, chapter, checkpoint, device, Options(graphs=graphs), trace=True))
            both[-1].scheduler.host_work = _host_work_of
            both[-1].serve()
        waiting, ahead = both
        settled = {seconds: _settled(both, seconds) for seconds in HOST_WORK}
        bubbles = waiting.trace.bubbles()
        host = statistics.median(bubbles[number] for number in settled[0.0])
        for seconds in HOST_WORK:
            if graphs:  # all of a graph is queued at once: its time on the GPU is K, which grows with the context
                windows = waiting.trace.batches()
                spans = (windows[number] for number in settled[seconds])
                kernels[seconds] = statistics.median(end - start for start, end in spans)
            more, ramp = (0.0, 0.0) if graphs else (costs.eager_gaps - costs.graph_gaps, costs.ramp)
            # Launching is never twice the same: each engine's own, in these very steps.
            launches = (_launching(session, settled[seconds]) for session in both)
            laws = (Law(kernels[seconds] + more, launching, host + seconds, ramp) for launching in launches)
            steps = (_step(session, settled[seconds]) for session in both)
            yield Point(name, graphs, seconds, *laws, *steps)


def _host_work_of(number: int) -> float:
    """The host work added to the step of a batch: each amount for STEPS batches, in turns."""
    return HOST_WORK[number // STEPS % len(HOST_WORK)]


def _settled(sessions: list[Session], seconds: float) -> list[int]:
    """The numbers of the batches that are of decodes alone in all runs, and had so much host work, as had those just
    before; each amount had one turn, since the kernels take longer from turn to turn."""
    numbers = set.intersection(*(set(widest_decodes(session.done)) for session in sessions))
    first = -(-min(numbers) // STEPS) * STEPS
    turns = range(first, first + STEPS * len(HOST_WORK))
    return [n for n in numbers if n in turns and n % STEPS >= SETTLING and _host_work_of(n) == seconds]


def _step(session: Session, numbers: list[int]) -> float:
    """Median seconds of the steps of these batches."""
    steps = session.done
    return statistics.median(steps[number].time - steps[number - 1].time for number in numbers)


def _launching(session: Session, numbers: list[int]) -> float:
    """Median seconds that the host takes to launch one of these batches."""
    return statistics.median(session.trace.launching(number) for number in numbers)


def law(device: str = "auto", progress: Callable[[str], None] = lambda text: None) -> ResultTable:
    """Holds the law to every workload of SWEPT.

    Args:
        device: as Session takes it.
        progress: is told what comes next.
    """
    points = []
    for name in SWEPT:
        progress(f"{name}: synchronous and asynchronous, as graphs and one by one")
        points += sweep(name, device)
    return table(points, open_device(device, Checkpoint(WORKLOADS[SWEPT[0]].model)))


def table(points: list[Point], device: Machine) -> ResultTable:
    """The points beside what the law says of them."""
    columns = {"workload": "", "decodes": "", "host work": "g"}
    parts = ("K", "L", "H", "synchronous", "by the law", "asynchronous", "L ", "by law", "gain")
    columns |= dict.fromkeys(parts, ".2f")
    rows = [
        [
            point.workload,
            "as graphs" if point.graphs else "one by one",
            1e3 * point.host_work,
            *(1e3 * part for part in (point.waiting.kernels, point.waiting.launching, point.waiting.host)),
            1e3 * point.synchronous,
            1e3 * point.predicted[0],
            1e3 * point.asynchronous,
            1e3 * point.ahead.launching,
            1e3 * point.predicted[1],
            point.gain,
        ]
        for point in points
    ]
    worst = {graphs: max((p.error for p in points if p.graphs == graphs), default=0.0) for graphs in (True, False)}
    note = (
        f"ms per decode step, medians; synchronous is {SYNCHRONOUS}, asynchronous {ASYNCHRONOUS}, each with its own L. "
        f"Of decodes launched as graphs, the step that is furthest from the law is {worst[True]:.1%} off; one by one, "
        f"{worst[False]:.1%}."
    )
    return ResultTable("The law of overlap", columns, rows, note, environment(device))
