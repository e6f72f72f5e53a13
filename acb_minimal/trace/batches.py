"""The batches of an engine as a trace has them; and those of a trace of ours, in which they have numbers."""

from dataclasses import dataclass

import numpy as np

from .spans import Span, Trace
from .stretches import Stretches

PACE = 0.9  # of the time of a batch on the GPU: from here on, launching may have set the pace
LAUNCHES = ("forward", "replay", "carry_over")  # in traces of ours


@dataclass(frozen=True)
class Batch:
    """One batch, as a trace has it. Times are nanoseconds.

    Attributes:
        number: from 0.
        start: of its first kernel.
        end: of its last kernel.
        ready: when its tokens were on the host: the end of their copy, or `end` if there is none.
        taken: when the host began to take them in, where a trace says so.
        kernels: since the end of the batch before, with a kernel running, or between two that were queued.
        bubble: since then, in which the GPU waited for the host to be done with a batch.
        launch_gaps: since then, in which it waited for launches.
        called: when the host began to launch it.
        launched: when the host had launched all of it.
        launching: how long it launched, without what it waited meanwhile.
        count: its kernels; None where that is not known.
        graph: whether it was launched as a graph.
        prompt: whether the engine says that there are prompts in it.
        one_time: what the host did since the launch of the batch before that is done but once; else "".
        profiler: since then, in which the profiler was busy with itself.
        communication: of `kernels`, with one running that talks to other GPUs.
        alone: of `communication`, with no other kernel beside it.
        running: of `kernels`, with a kernel running, where a trace of ours says so.
    """

    number: int
    start: int
    end: int
    ready: int
    kernels: int
    bubble: int
    launch_gaps: int
    called: int
    launched: int
    launching: int
    taken: int | None = None
    count: int | None = None
    graph: bool = False
    prompt: bool = False
    one_time: str = ""
    profiler: int = 0
    communication: int = 0
    alone: int = 0
    running: int | None = None


@dataclass(frozen=True)
class Batches:
    """All batches of one GPU.

    Attributes:
        batches: in their order on the GPU.
        waits: when the host waited.
        for_tokens: when it waited for tokens, as far as can be told, rather than for an upload.
        launching: when it launched.
    """

    batches: list[Batch]
    waits: Stretches
    for_tokens: Stretches
    launching: Stretches


def of_trace(trace: Trace) -> Batches:
    """Of a trace of ours.

    A batch's kernels are taken to run for all of its time on the GPU where the trace does not know how long they run,
    and where launching did not set the pace: then the gaps between them are the GPU's own. It set the pace if it took
    about as long as the batch did, and began when the GPU was done with the batch before: a host that is ahead takes
    as long too, but for want of room in the launch queue.
    """
    spans, cpu = {}, trace.lane("CPU")
    for span in trace.lane("compute"):
        spans.setdefault(span.batch_number, []).append(span)
    calls = {}
    for span in cpu:
        if span.name in LAUNCHES:
            calls.setdefault(span.batch_number, []).append(span)
    taken = {span.batch_number: nanoseconds(span.start) for span in cpu if span.name == "update"}
    ready = {span.batch_number: nanoseconds(span.end) for span in trace.lane("D2H")}
    windows = sorted(trace.batches().items(), key=lambda item: item[1])
    batches, before = [], None
    for number, (start, end) in windows:
        start, end = nanoseconds(start), nanoseconds(end)
        launches = [(nanoseconds(call.start), nanoseconds(call.end)) for call in calls.get(number, [])]
        launches = launches or [(start, start)]
        launching = sum(end - start for start, end in launches)
        graph = any(span.name == "replay" for span in spans[number])
        kernels, running, counts = end - start, None, [span.kernel_count for span in spans[number]]
        if all(span.kernels is not None for span in spans[number]):
            running = sum(nanoseconds(span.kernels) for span in spans[number])
            late = before is None or launches[0][0] >= before
            if late and not graph and launching > PACE * kernels:
                kernels = running
        batches.append(
            Batch(
                number=number,
                start=start,
                end=end,
                ready=ready.get(number, end),
                kernels=kernels,
                bubble=max(start - before, 0) if before is not None else 0,
                launch_gaps=end - start - kernels,
                called=min(start for start, _ in launches),
                launched=max(end for _, end in launches),
                launching=launching,
                taken=taken.get(number),
                count=None if None in counts else sum(counts),
                graph=graph,
                prompt=number in (trace.prompts or ()),
                running=running,
            )
        )
        before = end
    waits = _union(span for span in cpu if span.name == "wait")
    return Batches(batches, waits, waits, _union(sum(calls.values(), [])))


def _union(spans) -> Stretches:
    spans: list[Span] = list(spans)
    start, end = ([nanoseconds(getattr(span, edge)) for span in spans] for edge in ("start", "end"))
    return Stretches.union(np.array(start, dtype=np.int64), np.array(end, dtype=np.int64))


def nanoseconds(seconds: float) -> int:
    """As a whole number."""
    return round(1e9 * seconds)
