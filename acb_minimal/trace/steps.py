"""The steps of an engine: which of them are typical, where the time of those goes, and K, L and H.

A step is from the end of a batch on the GPU to the end of the next. The host's part of it is from its first launch of a
batch to its first launch of the next; in the steady state both are as long.

An asynchronous engine launches a batch before it has waited for the one before. A graph makes next to nothing of L.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal, Protocol

import numpy as np

from .batches import Batch, Batches
from .breakdown import EAGER_GAP, GRAPH_GAP, Breakdown
from .law import Law
from .stretches import Stretches

Sort = Literal["decode", "prompt", "set-up"]
SORTS: tuple[Sort, ...] = ("decode", "prompt", "set-up")
MORE = 1.5  # times the kernels of the usual batch: there are prompts in it
ODD = 2.0  # times as long as others of its kind: not yet warm, or there was nothing to do
CLOCKS = 1_000  # ns by which the clocks of host and GPU may disagree
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
        first: how long the GPU, with nothing to do, waited for the first launch since the host had begun with it.
        decodes: whether the batch is of decodes alone.
        rows: of the batch; None where that is not known.
    """

    batch: Batch
    sort: Sort
    length: int
    launching: int
    host: int
    waiting: int
    ahead: bool
    first: int = 0

    @property
    def decodes(self) -> bool:
        return self.sort == "decode"

    @property
    def rows(self) -> int | None:
        return self.batch.rows


def steps_of(found: Batches) -> list[Step]:
    """A step for each batch but the first."""
    sorts, waits = sort(found.batches), found.waits
    steps = []
    for before, batch in pairwise(found.batches):
        waiting = int(waits.between(before.called, batch.called))
        ahead = not _waited(found, before, batch) if len(waits.start) else batch.called < before.end
        host = max(batch.called - before.called - before.launching - waiting, 0)
        first = max(batch.start - max(batch.called, before.end), 0)
        length, of_sort = batch.end - before.end, sorts[batch.number]
        steps.append(Step(batch, of_sort, length, before.launching, host, waiting, bool(ahead), first))
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
    if all(batch.told for batch in batches):
        return {batch.number: "prompt" if batch.prompt else "decode" for batch in batches}
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
    usual = median(map(_busy, rest)) if rest else 0
    graphs = 2 * sum(batch.graph for batch in rest) > len(rest)
    for batch in rest:
        prompt = _busy(batch) > MORE * usual or batch.graph < graphs
        sorts[batch.number] = "prompt" if prompt else "decode"
    return sorts


def _busy(batch: Batch) -> int:
    return batch.end - batch.start if batch.on_gpu is None else batch.on_gpu


class Done(Protocol):
    """A batch that is over.

    Attributes:
        decodes: whether it was of decodes alone.
        rows: of the batch; None where that is not known.
    """

    decodes: bool
    rows: int | None


def typical_decodes(done: Sequence[Done]) -> list[int]:
    """Which batches stand for the steady state: the places of those that are of decodes alone, come after such a batch
    and before one, or at the very end, and have the most rows of all that do.

    The one after matters because an asynchronous engine launches it before this one's tokens are taken in; the rows
    because a batch shrinks as requests finish, at the end of a run.
    """
    decodes = [*(batch.decodes for batch in done), True]
    places = [place for place in range(1, len(done)) if all(decodes[place - 1 : place + 2])]
    most = max((done[place].rows or 0 for place in places), default=0)
    return [place for place in places if (done[place].rows or 0) == most]


def typical_steps(steps: list[Step]) -> list[Step]:
    """Those of the typical decodes. What is before the first step is not known, for a recording may begin anywhere."""
    return [steps[place] for place in typical_decodes(steps)]


@dataclass(frozen=True)
class Typical:
    """What the typical decodes have in common: medians over them, in seconds.

    Attributes:
        count: how many they are.
        parts: where the time of a step goes; None if the trace cannot tell.
        law: K, L and H, and the ramp. Without `parts`, K is all the time that a batch is on the GPU.
        step: its length.
        bubbles: in which no batch is on the GPU.
        waiting: of the host.
        communication: of the kernels, with one running that talks to other GPUs.
        alone: of that, with no other kernel beside it.
        exposed: share of all the steps' time, 0 to 1, in which the GPU waits for the host. Not a median: where one step
            in four waits, the median of waits is 0. Steps that are twice as long as the usual one are left out.
        ahead: share of the steps, 0 to 1, whose batch was launched ahead.
        graph: whether they are launched as graphs.
    """

    count: int
    parts: Breakdown | None
    law: Law
    step: float
    bubbles: float
    waiting: float
    communication: float
    alone: float
    exposed: float
    ahead: float
    graph: bool

    @classmethod
    def of(cls, steps: list[Step]) -> "Typical":
        """Of at least one step. How long kernels run may be known of some of them only; what it is then is theirs."""

        def middle(times) -> float:
            return median(times) / 1e9

        batches = [step.batch for step in steps]
        known = [batch for batch in batches if batch.on_gpu is not None]
        bubbles = middle(batch.bubble for batch in batches)
        window = middle(step.length - step.batch.bubble for step in steps)
        ramp, on_gpu, parts = middle(step.first for step in steps), window, None
        if known:
            counts = [batch.count for batch in known]
            kernels, gaps = middle(batch.kernels for batch in known), middle(batch.kernel_gaps for batch in known)
            count = None if None in counts else median(counts)
            parts = Breakdown(kernels, gaps, window - kernels - gaps, bubbles, count)
            ramp, on_gpu = ramp + max(parts.launch_gaps, 0.0), parts.on_gpu
        law = Law(on_gpu, middle(step.launching for step in steps), middle(step.host for step in steps), ramp)
        longest = ODD * median(step.length for step in steps)
        usual = [step for step in steps if step.length <= longest]
        busy = sum(_busy_of(step, round(1e9 * on_gpu) if known else None) for step in usual)
        return cls(
            count=len(steps),
            parts=parts,
            law=law,
            step=window + bubbles,
            bubbles=bubbles,
            waiting=middle(step.waiting for step in steps),
            communication=middle(batch.communication for batch in batches),
            alone=middle(batch.alone for batch in batches),
            exposed=1 - busy / (sum(step.length for step in usual) or 1),
            ahead=float(np.mean([step.ahead for step in steps])),
            graph=2 * sum(batch.graph for batch in batches) > len(batches),
        )

    @property
    def idle(self) -> float:
        """The GPU waits for the host: the part of the host's time that is exposed."""
        return self.exposed * self.step

    @property
    def hidden(self) -> float:
        """The part of the host's time that the GPU computes beside."""
        return max(self.law.launching + self.law.host - self.idle, 0.0)

    @property
    def as_graphs(self) -> float:
        """Seconds that a step would take, asynchronous and launched as graphs: these take next to no time to launch,
        and leave GRAPH_GAP from each kernel to the next."""
        if self.graph or self.parts is None:
            return max(self.law.on_gpu, self.law.host)
        count = self.parts.kernel_count or self.parts.kernel_gaps / EAGER_GAP
        return max(self.parts.kernels + GRAPH_GAP * count, self.law.host)

    @property
    def holds(self) -> bool:
        """Whether a step is as long as the law says: of synchronous steps, asynchronous ones, or some of either."""
        shortest, longest = sorted((self.law.asynchronous, self.law.synchronous))
        return (1 - FITS) * shortest <= self.step <= (1 + FITS) * longest


def _busy_of(step: Step, typical: int | None) -> int:
    """Nanoseconds of a step in which the GPU does not wait for the host.

    Args:
        typical: K, for batches of which it is not known; None if it is known of none.
    """
    if step.batch.on_gpu is not None:
        return step.batch.on_gpu
    window = step.length - step.batch.bubble
    return window if typical is None else min(typical, window)
