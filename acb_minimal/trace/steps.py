"""The steps of an engine, which of them are typical, where the time of those goes, and K, L and H.

A step is from the end of a batch on the GPU to the end of the next. The host's part of it is from its first launch of a
batch to its first launch of the next; in the steady state both are as long.

An asynchronous engine launches a batch before it has waited for the one before. A graph makes next to nothing of L.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

import numpy as np

from .breakdown import EAGER_GAP, GRAPH_GAP, Breakdown
from .law import Law

Sort = Literal["decode", "prompt", "set-up"]
SORTS: tuple[Sort, ...] = ("decode", "prompt", "set-up")
ODD = 2.0  # times as long as others of its kind: not yet warm, or there was nothing to do
FITS = 0.1  # by which a step may differ from what the law says of it


@dataclass
class Step:
    """A batch, and the time since the end of the one before, of which the parts are; nanoseconds.

    Attributes:
        number: of the batch, from 0.
        start: of its first kernel.
        end: of its last kernel.
        length: since the end of the batch before.
        kernels: since then, with a kernel running; None if the trace cannot tell.
        kernel_gaps: since then, with none running though the next one was queued; likewise.
        launch_gaps: since then, in which the GPU waited for launches; likewise.
        bubble: since then, in which it waited for the host to be done with a batch.
        copies: since then, in which what was launched waited for a copy.
        stalled: since then, in which it waited for something that is not in the trace.
        called: when the host began to launch it.
        launched: when the host had launched all of it.
        launching: L: how long it launched the batch before, without what it waited meanwhile.
        host: H: what else it did from then on until it began to launch this one.
        waiting: how long it waited meanwhile, for the GPU or in a call that blocked.
        ready: when its tokens were on the host: the end of their copy, or `end` if there is none.
        first: how long the GPU, with nothing to do, waited for the first launch since the host had begun with it.
        count: its kernels; None where that is not known.
        graph: whether it was launched as a graph.
        rows: of the batch; None where that is not known.
        one_time: what the host did since the launch of the batch before that is done but once; else "".
        profiler: since then, in which the profiler was busy with itself.
        communication: of `kernels`, with one running that talks to other GPUs.
        alone: of `communication`, with no other kernel beside it.
        sort: a batch with prompts in it is a prompt, even if there are decodes as well.
        ahead: whether it was launched before the host had waited for the tokens of the batch before.
    """

    number: int
    start: int
    end: int
    length: int
    kernels: int | None
    kernel_gaps: int | None
    launch_gaps: int | None
    bubble: int
    copies: int
    stalled: int
    called: int
    launched: int
    launching: int
    host: int
    waiting: int
    ready: int
    first: int
    count: int | None
    graph: bool
    rows: int | None
    one_time: str
    profiler: int
    communication: int
    alone: int
    sort: Sort = "decode"
    ahead: bool = False

    @property
    def decodes(self) -> bool:
        """Whether the batch is of decodes alone."""
        return self.sort == "decode"

    @property
    def on_gpu(self) -> int | None:
        """K: what the batch takes a GPU that never waits for the host; None if the trace cannot tell."""
        return None if self.kernels is None else self.kernels + self.kernel_gaps


def typical_decodes(done: Sequence) -> list[int]:
    """Which batches stand for the steady state: the places of those that are of decodes alone, come after such a batch
    and before one, or at the very end, and have the most rows of all that do.

    The one after matters because an asynchronous engine launches it before this one's tokens are taken in; the rows
    because a batch shrinks as requests finish, at the end of a run.

    Args:
        done: of each batch its `rows`, or None, and whether it was of `decodes` alone.
    """
    decodes = [*(batch.decodes for batch in done), True]
    places = [place for place in range(1, len(done)) if all(decodes[place - 1 : place + 2])]
    most = max((done[place].rows or 0 for place in places), default=0)
    return [place for place in places if (done[place].rows or 0) == most]


@dataclass(frozen=True)
class Typical:
    """What the typical decodes have in common: medians over them, in seconds.

    Attributes:
        count: how many they are.
        parts: where the time of a step goes; None if the trace cannot tell.
        law: K, L and H, and the ramp. Without `parts`, K is all the time that a batch is on the GPU.
        step: its length.
        bubbles: in which no batch is on the GPU.
        copies: in which what was launched waits for a copy.
        stalled: in which it waits for something that is not in the trace.
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
    copies: float
    stalled: float
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

        known = [step for step in steps if step.on_gpu is not None]
        bubbles, copies = middle(step.bubble for step in steps), middle(step.copies for step in steps)
        stalled, window = middle(step.stalled for step in steps), middle(_window(step) for step in steps)
        ramp, on_gpu, parts = middle(step.first for step in steps), window, None
        if known:
            counts = [step.count for step in known]
            kernels, gaps = middle(step.kernels for step in known), middle(step.kernel_gaps for step in known)
            count = None if None in counts else median(counts)
            parts = Breakdown(kernels, gaps, window - kernels - gaps, bubbles, count)
            ramp, on_gpu = ramp + max(parts.launch_gaps, 0.0), parts.on_gpu
        law = Law(on_gpu, middle(step.launching for step in steps), middle(step.host for step in steps), ramp)
        longest = ODD * median(step.length for step in steps)
        usual = [step for step in steps if step.length <= longest]
        windows = [(step.on_gpu, _window(step)) for step in usual]
        busy = sum(min(1e9 * on_gpu if known else own, own) if k is None else k for k, own in windows)
        busy += sum(step.copies + step.stalled for step in usual)  # the host is not waited for
        return cls(
            count=len(steps),
            parts=parts,
            law=law,
            step=window + bubbles + copies + stalled,
            bubbles=bubbles,
            copies=copies,
            stalled=stalled,
            waiting=middle(step.waiting for step in steps),
            communication=middle(step.communication for step in steps),
            alone=middle(step.alone for step in steps),
            exposed=1 - busy / (sum(step.length for step in usual) or 1),
            ahead=float(np.mean([step.ahead for step in steps])),
            graph=2 * sum(step.graph for step in steps) > len(steps),
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


def _window(step: Step) -> int:
    """Nanoseconds that its batch is on the GPU and runs, or waits for launches of its own."""
    return step.length - step.bubble - step.copies - step.stalled
