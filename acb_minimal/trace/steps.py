"""The steps of an engine, which of them are typical, where the time of those goes, and K, L and H.

A step is from the end of a batch on the GPU to the end of the next. The host's part of it is from its first launch of a
batch to its first launch of the next; in the steady state both are as long.

An asynchronous engine launches a batch before it has waited for the one before. A graph makes next to nothing of L.

All steps of a GPU are a table (np.recarray) with a row for each batch, made in batches.py; times are nanoseconds:

    number         of the batch, from 0
    start, end     of its first kernel and of its last
    length         since the end of the batch before; in that time:
    kernels        a kernel is running
    kernel_gaps    none is, though the next one was queued
    launch_gaps    the GPU waits for launches
    bubble         it waits for the host to be done with a batch
    copies         what was launched waits for a copy
    stalled        it waits for something that is not in the trace
    known          whether the trace can tell the first three of these
    called         when the host began to launch it
    launched       when the host had launched all of it
    launching      L: how long it launched the batch before, without what it waited meanwhile
    host           H: what else it did from then on until it began to launch this one
    waiting        how long it waited meanwhile, for the GPU or in a call that blocked
    ready          when its tokens were on the host: the end of their copy, or `end` if there is none
    first          how long the GPU, with nothing to do, waited for the first launch since the host had begun with it
    count          its kernels; -1 where that is not known
    graph          whether it was launched as a graph
    rows           of the batch; 0 where that is not known
    one_time       what the host did since the launch of the batch before that is done but once; else ""
    profiler       since then, in which the profiler was busy with itself
    communication  of `kernels`, with one running that talks to other GPUs
    alone          of `communication`, with no other kernel beside it
    kind           decode, prompt (even if there are decodes as well) or set-up
    decodes        whether it is the first of these
    ahead          whether it was launched before the host had waited for the tokens of the batch before
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .law import EAGER_GAP, GRAPH_GAP, Breakdown, Law

ODD = 2.0  # times as long as others of its kind: not yet warm, or there was nothing to do
FITS = 0.1  # by which a step may differ from what the law says of it


def typical_decodes(done: Sequence) -> list[int]:
    """Which batches stand for the steady state: the places of those that are of decodes alone, come after such a batch
    and before one, or at the very end, and have the most rows of all that do.

    The one after matters because an asynchronous engine launches it before this one's tokens are taken in; the rows
    because a batch shrinks as requests finish, at the end of a run.

    Args:
        done: of each batch its `rows`, and whether it was of `decodes` alone.
    """
    decodes = [*(batch.decodes for batch in done), True]
    places = [place for place in range(1, len(done)) if all(decodes[place - 1 : place + 2])]
    most = max((done[place].rows for place in places), default=0)
    return [place for place in places if done[place].rows == most]


@dataclass(frozen=True)
class Typical:
    """What the typical decodes have in common: medians over them, in seconds.

    Attributes:
        count: how many they are.
        parts: where the time of a step goes; None if the trace cannot tell.
        law: K, L and H, and the ramp. Without `parts`, K is all the time that a batch is on the GPU.
        step: its length.
        bubbles, copies, stalled, waiting, communication, alone: as in a step.
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
    copies: float
    stalled: float
    waiting: float
    communication: float
    alone: float
    exposed: float
    ahead: float
    graph: bool

    @classmethod
    def of(cls, steps: np.recarray) -> "Typical":
        """Of at least one step. How long kernels run may be known of some of them only; what it is then is theirs."""

        def middle(times: np.ndarray) -> float:
            return float(np.median(times)) / 1e9

        windows = steps.length - steps.bubble - steps.copies - steps.stalled  # runs, or waits for own launches
        names = ("bubble", "copies", "stalled", "waiting", "communication", "alone")
        medians = [middle(steps[name]) for name in names]
        ramp, on_gpu, parts, busy = middle(steps.first), middle(windows), None, windows
        step = on_gpu + sum(medians[:3])
        if steps.known.any():
            known = steps[steps.known]
            kernels, gaps = middle(known.kernels), middle(known.kernel_gaps)
            count = None if (known.count < 0).any() else float(np.median(known.count))
            parts = Breakdown(kernels, gaps, on_gpu - kernels - gaps, medians[0], count)
            ramp, on_gpu = ramp + max(parts.launch_gaps, 0.0), parts.on_gpu
            busy = np.where(steps.known, steps.kernels + steps.kernel_gaps, np.minimum(1e9 * on_gpu, windows))
        usual = steps.length <= ODD * np.median(steps.length)
        busy = busy + steps.copies + steps.stalled  # the host is not waited for
        return cls(
            len(steps),
            parts,
            Law(on_gpu, middle(steps.launching), middle(steps.host), ramp),
            step,
            *medians,
            exposed=float(1 - busy[usual].sum() / (steps.length[usual].sum() or 1)),
            ahead=float(steps.ahead.mean()),
            graph=bool(2 * steps.graph.sum() > len(steps)),
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
    def without_profiler(self) -> Law:
        """The law with K as it is without a profiler: under it, a graph has longer gaps between its kernels."""
        if not self.graph or self.parts is None or not self.parts.kernel_count:
            return self.law
        gaps = min(self.parts.kernel_gaps, GRAPH_GAP * self.parts.kernel_count)
        return replace(self.law, on_gpu=self.parts.kernels + gaps)

    @property
    def holds(self) -> bool:
        """Whether a step is as long as the law says: of synchronous steps, asynchronous ones, or some of either."""
        shortest, longest = sorted((self.law.asynchronous, self.law.synchronous))
        return (1 - FITS) * shortest <= self.step <= (1 + FITS) * longest
