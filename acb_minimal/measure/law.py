"""The law of overlap: what a step takes, synchronous and asynchronous, and so what asynchrony can win.

With K the time that a batch takes the GPU once all of it is queued, L the time that the host takes to launch it, and H
the rest of the host's work for a step:

    synchronous    step = max(K, L) + H
    asynchronous   step = max(K, L + H)

A synchronous engine's GPU waits for H: its bubble is H. So asynchrony wins at most H, all of it if L + H <= K, and
nothing if the launches alone take longer than the kernels (L >= K): then the GPU waits for launches either way. The
gain is largest where H = K, a factor of two.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..run.checkpoint import Checkpoint
from ..run.dials import Dials
from ..run.session import Session
from ..run.workload import WORKLOADS
from ..sim.costs import Costs
from .figures import environment, widest_decodes
from .record import Measured

LAUNCHES, CARRIES = ("forward", "replay"), ("carry_over",)  # the host's spans that are launching
SWEPT = ("small", "long", "wide")
HOST_WORK = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3)  # seconds added to a step
STEPS, SETTLING = 40, 24  # decode steps with each of them, of which the first are not counted: a host that is a little
# faster than the GPU is ahead of it by a whole batch only after many steps, and is then held up
SYNCHRONOUS, ASYNCHRONOUS = "ch1", "ch5"


@dataclass(frozen=True)
class Law:
    """What the law of overlap says of an engine.

    Attributes:
        kernels: K, seconds.
        launching: L, seconds.
        host: H, seconds.
    """

    kernels: float
    launching: float
    host: float

    @property
    def synchronous(self) -> float:
        """Seconds of a step of a synchronous engine."""
        return max(self.kernels, self.launching) + self.host

    @property
    def asynchronous(self) -> float:
        """Seconds of a step of an asynchronous one."""
        return max(self.kernels, self.launching + self.host)

    @property
    def gain(self) -> float:
        """How many times as fast the asynchronous one is: from 1 to 2."""
        return self.synchronous / self.asynchronous

    def __str__(self) -> str:
        k, ell, h = (f"{1e3 * seconds:.2f}" for seconds in (self.kernels, self.launching, self.host))
        return (
            f"K = {k}, L = {ell}, H = {h} ms: synchronous max(K, L) + H = {1e3 * self.synchronous:.2f} ms, "
            f"asynchronous max(K, L + H) = {1e3 * self.asynchronous:.2f} ms, {self.gain:.2f} times as fast"
        )


class Point(NamedTuple):
    """A synchronous and an asynchronous engine on one workload, with so much host work added.

    Attributes:
        workload: its name.
        graphs: whether decodes were launched as graphs.
        host_work: seconds added to a step.
        law: with that work.
        synchronous: seconds of a decode step, median.
        asynchronous: likewise.
    """

    workload: str
    graphs: bool
    host_work: float
    law: Law
    synchronous: float
    asynchronous: float

    @property
    def gain(self) -> float:
        """How many times as fast the asynchronous engine was."""
        return self.synchronous / self.asynchronous


def sweep(name: str, device: str = "auto") -> Iterator[Point]:
    """One workload with every amount of host work, kernel by kernel and as graphs."""
    workload = WORKLOADS[name]
    prefills = -(-workload.requests * workload.prompt_tokens // workload.max_batch_tokens)
    # Once the last prompt is in, every amount of host work has its turn; the first requests decode all the while.
    workload = workload.override(new_tokens=prefills + STEPS * (len(HOST_WORK) + 1) + SETTLING)
    checkpoint = Checkpoint(workload.model)
    gaps = Costs.of(checkpoint.name, checkpoint.weight_bytes)
    kernels: dict[float, float] = {}
    for graphs in (True, False):
        both = []
        for chapter in (SYNCHRONOUS, ASYNCHRONOUS):
            job = workload.job(checkpoint.vocab_size)
            both.append(Session(job, chapter, checkpoint, device, Dials(graphs=graphs), trace=True))
            both[-1].scheduler.host_work = _host_work_of
            both[-1].serve()
        waiting, ahead = both
        settled = {seconds: _settled(both, seconds) for seconds in HOST_WORK}
        # What the host launches for a batch, and the asynchronous engine's carry-over as well.
        launching = _host_seconds(waiting, LAUNCHES, settled[0.0]) + _host_seconds(ahead, CARRIES, settled[0.0])
        bubbles = waiting.trace.bubbles()
        host = statistics.median(bubbles[number] for number in settled[0.0])
        for seconds in HOST_WORK:
            if graphs:  # all of a graph is queued at once: its time on the GPU is K, which grows with the context
                windows = waiting.trace.batches()
                spans = (windows[number] for number in settled[seconds])
                kernels[seconds] = statistics.median(end - start for start, end in spans)
            more = 0.0 if graphs else gaps.eager_gaps - gaps.graph_gaps
            law = Law(kernels[seconds] + more, launching, host + seconds)
            steps = (_step(session, settled[seconds]) for session in both)
            yield Point(name, graphs, seconds, law, *steps)


def _host_work_of(number: int) -> float:
    """The host work added to the step of a batch: each amount for STEPS batches, in turns."""
    return HOST_WORK[number // STEPS % len(HOST_WORK)]


def _settled(sessions: list[Session], seconds: float) -> list[int]:
    """The numbers of the batches that are of decodes alone in all runs, and had so much host work, as had those just
    before; each amount had one turn, since the kernels take longer from turn to turn."""
    numbers = set.intersection(*(set(widest_decodes(session.scheduler.steps)) for session in sessions))
    first = -(-min(numbers) // STEPS) * STEPS
    turns = range(first, first + STEPS * len(HOST_WORK))
    return [n for n in numbers if n in turns and n % STEPS >= SETTLING and _host_work_of(n) == seconds]


def _step(session: Session, numbers: list[int]) -> float:
    """Median seconds of the steps of these batches."""
    steps = session.scheduler.steps
    return statistics.median(steps[number].time - steps[number - 1].time for number in numbers)


def _host_seconds(session: Session, names: tuple[str, ...], numbers: list[int]) -> float:
    """Median seconds that the host spends in spans of these names for these batches."""
    spans = {step["batch"]: step for step in session.trace.steps()}
    return statistics.median(sum(spans[number].get(name, 0.0) for name in names) for number in numbers)


def table(points: list[Point], device) -> Measured:
    """The points beside what the law says of them."""
    columns = {"workload": "", "decodes launched": "", "host work, ms": "g"}
    columns |= dict.fromkeys(("K", "L", "H", "synchronous", "by the law", "asynchronous", "by law"), ".2f")
    columns |= {"gain": ".2f", "of the law's": ".1%"}
    rows = [
        [
            point.workload,
            "as graphs" if point.graphs else "one by one",
            1e3 * point.host_work,
            *(1e3 * part for part in (point.law.kernels, point.law.launching, point.law.host)),
            1e3 * point.synchronous,
            1e3 * point.law.synchronous,
            1e3 * point.asynchronous,
            1e3 * point.law.asynchronous,
            point.gain,
            point.gain / point.law.gain,
        ]
        for point in points
    ]
    worst = max(
        max(abs(point.synchronous / point.law.synchronous - 1), abs(point.asynchronous / point.law.asynchronous - 1))
        for point in points
    )
    note = (
        f"ms per decode step, medians. K, L and H are those of {SYNCHRONOUS} with no work added; H grows by what is "
        f"added. The step that is furthest from the law is {worst:.1%} off."
    )
    return Measured("The law of overlap", columns, rows, note, environment(device))
