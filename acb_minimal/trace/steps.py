"""The steps of an engine, sorted, and the law of overlap that holds for the steady ones.

A step is from the end of a batch on the GPU to the end of the next. The host's part of it is from its first launch of a
batch to its first launch of the next; in the steady state both are as long. Three times make a step (law.py):

    K  the GPU runs kernels, or takes its time between two that are queued
    L  the host launches a batch
    H  the host does all the rest: takes in tokens, schedules, writes inputs

An asynchronous engine launches a batch before it has waited for the one before. A graph makes next to nothing of L.
"""

from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

import numpy as np

from .batches import Batch, Batches
from .law import Law
from .stretches import Stretches

Sort = Literal["decode", "prompt", "set-up"]
SORTS: tuple[Sort, ...] = ("decode", "prompt", "set-up")
MORE = 1.5  # times the kernels of the usual batch: there are prompts in it
ODD = 2.0  # times as long as others of its kind: not yet warm, or there was nothing to do
CLOCKS = 1_000  # ns by which the clocks of host and GPU may disagree
# Seconds from one kernel of a graph to the next, without a profiler: on an H200, chapter 6's launch gaps divided by its
# kernels are 0.30e-6 on `small` and 0.37e-6 on `long` (docs/results/h200.json; on `wide` they are too small a share).
BETWEEN_KERNELS = 0.3e-6
FITS = 0.1  # by which a step may differ from what the law says of it


@dataclass(frozen=True)
class Step:
    """One step; times in nanoseconds.

    Attributes:
        batch: that ran in it.
        sort: a batch with prompts in it is a prompt, even if there are decodes as well.
        length: from the end of the batch before to the end of this one.
        launching: L.
        host: H.
        waiting: of the host, for the GPU or in a call that blocked.
        ahead: whether the batch was launched before the host had waited for the tokens of the one before.
        ramp: how long the GPU, with nothing to do, waited for launches: for the first since the host had begun, and for
            others inside the batch.
    """

    batch: Batch
    sort: Sort
    length: int
    launching: int
    host: int
    waiting: int
    ahead: bool
    ramp: int = 0

    @property
    def idle(self) -> int:
        """The GPU waited for the host: so long was work of the host exposed."""
        return self.batch.bubble + self.batch.launch_gaps


def steps_of(found: Batches) -> list[Step]:
    """A step for each batch but the first."""
    sorts, waits = sort(found.batches), found.waits
    steps = []
    for before, batch in pairwise(found.batches):
        waiting = int(waits.between(before.called, batch.called))
        if before.taken is not None:
            ahead = batch.called < before.taken
        elif len(waits.start):
            ahead = not _waited(found, before, batch)
        else:
            ahead = batch.called < before.end
        host = max(batch.called - before.called - before.launching - waiting, 0)
        ramp = max(batch.start - max(batch.called, before.end), 0) + batch.launch_gaps
        length, of_sort = batch.end - before.end, sorts[batch.number]
        steps.append(Step(batch, of_sort, length, before.launching, host, waiting, bool(ahead), ramp))
    return steps


def _waited(found: Batches, before: Batch, batch: Batch) -> bool:
    """Whether the host waited for the end of a batch after it had launched it, and before it launched the next."""
    tokens = _between(found.for_tokens, before.launched, batch.called)
    through = _between(found.waits, before.launched, batch.called)
    covers = (through.start <= before.end + CLOCKS) & (through.end >= before.end - CLOCKS)
    return bool((tokens.end >= before.ready - CLOCKS).any() or covers.any())


def _between(stretches: Stretches, start: int, end: int) -> Stretches:
    """Those that overlap the time from `start` to `end`, whole."""
    some = (stretches.end > start) & (stretches.start < end)
    return Stretches(stretches.start[some], stretches.end[some])


def sort(batches: list[Batch]) -> dict[int, Sort]:
    """What each batch is, by its number.

    Where a trace does not say so, most batches are taken for decodes, and alike: what runs much longer than the usual
    one, or is no graph where most are, has prompts in it.
    """
    sorts: dict[int, Sort] = {batch.number: "prompt" for batch in batches if batch.prompt}
    sorts |= {batch.number: "set-up" for batch in batches if batch.one_time or batch.profiler}
    lengths = {batch.number: batch.end - before.end for before, batch in pairwise(batches)}
    warm = set()
    rest = [batch for batch in batches if batch.number not in sorts]
    for batch in rest:
        after = lengths.get(batch.number + 1)
        if batch.count not in warm and after and lengths.get(batch.number, 0) > ODD * after:
            sorts[batch.number] = "set-up"
        warm.add(batch.count)
    rest = [batch for batch in rest if batch.number not in sorts]
    usual = median(batch.kernels for batch in rest) if rest else 0
    graphs = 2 * sum(batch.graph for batch in rest) > len(rest)
    for batch in rest:
        prompt = batch.kernels > MORE * usual or batch.graph < graphs
        sorts[batch.number] = "prompt" if prompt else "decode"
    return sorts


def steady(steps: list[Step]) -> list[Step]:
    """The decodes that follow a decode."""
    return [step for before, step in pairwise(steps) if before.sort == step.sort == "decode"]


@dataclass(frozen=True)
class Typical:
    """What steps have in common: medians over them, in seconds.

    Attributes:
        count: steps.
        step: length of a step.
        kernels: K.
        launching: L.
        host: H.
        ramp: the GPU, with nothing to do, waits for launches: for the first, and inside the batch.
        waiting: of the host.
        bubble: the GPU waits between batches.
        launch_gaps: the GPU waits inside a batch.
        communication: of K, with a kernel running that talks to other GPUs.
        alone: of that, with no other kernel beside it.
        exposed: share of all the steps' time, 0 to 1, in which the GPU waits for the host. Not a median: where one step
            in four waits, the median of waits is 0. Steps that are twice as long as the typical one are left out.
        ahead: share of the steps, 0 to 1, whose batch was launched ahead.
        graph: whether they are launched as graphs.
        kernels_known: whether K is known; else it is all the time from a batch's first kernel to its last.
        running: of K, with a kernel running; None where that is not known.
        kernel_count: of a batch; None where that is not known.
    """

    count: int
    step: float
    kernels: float
    launching: float
    host: float
    ramp: float
    waiting: float
    bubble: float
    launch_gaps: float
    communication: float
    alone: float
    exposed: float
    ahead: float
    graph: bool
    kernels_known: bool = True
    running: float | None = None
    kernel_count: float | None = None

    @classmethod
    def of(cls, steps: list[Step], kernels_known: bool = True) -> "Typical":
        """Of at least one step."""

        def middle(times) -> float:
            return median(times) / 1e9

        batches = [step.batch for step in steps]
        longest = ODD * median(step.length for step in steps)
        usual = [step for step in steps if step.length <= longest]
        return cls(
            count=len(steps),
            step=middle(step.length for step in steps),
            kernels=middle(batch.kernels for batch in batches),
            launching=middle(step.launching for step in steps),
            host=middle(step.host for step in steps),
            ramp=middle(step.ramp for step in steps),
            waiting=middle(step.waiting for step in steps),
            bubble=middle(batch.bubble for batch in batches),
            launch_gaps=middle(batch.launch_gaps for batch in batches),
            communication=middle(batch.communication for batch in batches),
            alone=middle(batch.alone for batch in batches),
            exposed=sum(step.idle for step in usual) / (sum(step.length for step in usual) or 1),
            ahead=float(np.mean([step.ahead for step in steps])),
            graph=2 * sum(batch.graph for batch in batches) > len(batches),
            kernels_known=kernels_known,
            running=None if any(batch.running is None for batch in batches) else middle(b.running for b in batches),
            kernel_count=None if any(batch.count is None for batch in batches) else median(b.count for b in batches),
        )

    @property
    def idle(self) -> float:
        """The GPU waits for the host: the part of the host's time that is exposed."""
        return self.exposed * self.step

    @property
    def hidden(self) -> float:
        """The part of the host's time that the GPU computes beside."""
        return max(self.launching + self.host - self.idle, 0.0)

    @property
    def law(self) -> Law:
        """What the law of overlap says of them."""
        return Law(self.kernels, self.launching, self.host, self.ramp)

    @property
    def as_graphs(self) -> float:
        """Seconds that a step would take, asynchronous and launched as graphs: these take next to no time to launch,
        and leave BETWEEN_KERNELS from each kernel to the next, where it is known how many there are."""
        if self.graph or self.running is None:
            return max(self.kernels, self.host)
        return max(self.running + BETWEEN_KERNELS * (self.kernel_count or 0), self.host)

    @property
    def holds(self) -> bool:
        """Whether a step is as long as the law says: of synchronous steps, asynchronous ones, or some of either."""
        shortest, longest = sorted((self.law.asynchronous, self.law.synchronous))
        return (1 - FITS) * shortest <= self.step <= (1 + FITS) * longest
