"""The batches of an engine, told apart in the trace of any: by the launches in torch's, by their numbers in ours."""

from dataclasses import dataclass

import numpy as np

from .gaps import Gpu
from .spans import Span, Trace
from .stretches import Stretches
from .torch_profiler import CALLS, Recording

SMALL = 0.1  # of the usual number of kernels: no batch, but a piece of the next one, cut off by a wait for an upload
ALIKE = 0.05  # by which the numbers of kernels of two batches of a kind may differ
PIECES = 8  # most waits in a step that are looked for
PACE = 0.9  # of the time of a batch on the GPU: from here on, launching may have set the pace
LAUNCHES = ("forward", "replay", "carry_over")  # in traces of ours
ONE_TIME = (
    "StreamBeginCapture|GraphInstantiate|ModuleLoad|LibraryLoad|(?:cuda|hip)Malloc$|Compiler|Lazy Function|"
    "Module Loading|dynamo_timed|triton.*compile"
)
PROFILERS_OWN = "Buffer|Flush|Instrumentation"
PROMPT = "(?i)context_[1-9]|prefill|extend"  # as vLLM and SGLang name a batch that has prompts in it
COMMUNICATION = "(?i)nccl|rccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|multimem"


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
        count: its kernels.
        graph: whether it was launched as a graph.
        prompt: whether the engine says that there are prompts in it.
        one_time: what the host did since the launch of the batch before that is done but once; else "".
        profiler: since then, in which the profiler was busy with itself.
        communication: of `kernels`, with one running that talks to other GPUs.
        alone: of `communication`, with no other kernel beside it.
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
    count: int = 1
    graph: bool = False
    prompt: bool = False
    one_time: str = ""
    profiler: int = 0
    communication: int = 0
    alone: int = 0


@dataclass(frozen=True)
class Batches:
    """All batches of one GPU.

    Attributes:
        batches: in their order on the GPU.
        waits: when the host waited.
        launching: when it launched.
    """

    batches: list[Batch]
    waits: Stretches
    launching: Stretches


def of_trace(trace: Trace) -> Batches:
    """Of a trace of ours.

    A batch's kernels are taken to run for all of its time on the GPU where the trace does not know how long they run,
    and where launching did not set the pace: then the gaps between them are the GPU's own.
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
        kernels = end - start
        if all(span.kernels is not None for span in spans[number]) and not graph and launching > PACE * kernels:
            kernels = sum(nanoseconds(span.kernels) for span in spans[number])
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
                graph=graph,
            )
        )
        before = end
    return Batches(batches, _union(span for span in cpu if span.name == "wait"), _union(sum(calls.values(), [])))


def _union(spans) -> Stretches:
    spans: list[Span] = list(spans)
    start, end = ([nanoseconds(getattr(span, edge)) for span in spans] for edge in ("start", "end"))
    return Stretches.union(np.array(start, dtype=np.int64), np.array(end, dtype=np.int64))


def nanoseconds(seconds: float) -> int:
    """As a whole number."""
    return round(1e9 * seconds)


def of_gpu(gpu: Gpu) -> Batches:
    """Of a trace of torch's profiler: a batch goes on until the host is done with one, and launches again."""
    work, recording = gpu.work, gpu.recording
    opens = np.append(0, np.flatnonzero(gpu.ended))
    called, launched = np.minimum.reduceat(work.called, opens), np.maximum.reduceat(work.returned, opens)
    waits = _waits(gpu)
    launching = Stretches.union(called, launched).shared(waits.outside(int(called.min()), int(launched.max())))
    first = opens[_first_pieces(np.diff(np.append(opens, len(work.row))), called, launched)]
    called, launched = np.minimum.reduceat(work.called, first), np.maximum.reduceat(work.returned, first)
    end = gpu.reach[np.append(first[1:], len(work.row)) - 1]
    since = np.append(work.start[0], end[:-1])
    bubble, launch_gaps = (gpu.kind(kind).between(since, end) for kind in ("bubble", "launch gap"))
    after = np.append(called[0], launched[:-1])  # the host had launched the batch before
    talk, alone = communication(gpu)
    columns = {
        "start": work.start[first],
        "end": end,
        "ready": _ready(gpu, called, end),
        "kernels": end - since - bubble - launch_gaps,
        "bubble": bubble,
        "launch_gaps": launch_gaps,
        "called": called,
        "launched": launched,
        "launching": launching.between(called, launched),
        "count": np.diff(np.append(first, len(work.row))),
        "graph": np.logical_or.reduceat(recording.named("GraphLaunch", work.call) & work.known, first),
        "prompt": np.array(_during(recording, "user_annotation", PROMPT, called, launched)) != "",
        "one_time": np.array(_during(recording, None, ONE_TIME, after, launched)),
        "profiler": _overhead(recording).between(after, launched),
        "communication": talk.between(since, end),
        "alone": alone.between(since, end),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    batches = [Batch(number, **dict(zip(columns, row, strict=True))) for number, row in enumerate(rows)]
    return Batches(batches, waits, launching)


def _waits(gpu: Gpu) -> Stretches:
    """When the thread that launches waited."""
    rows = np.concatenate((gpu.waits, gpu.recording.blocked()))
    rows = rows[gpu.recording.thread[rows] == gpu.thread]
    return Stretches.union(gpu.recording.start[rows], gpu.recording.end[rows])


def _ready(gpu: Gpu, called: np.ndarray, end: np.ndarray) -> np.ndarray:
    """When the last copy to the host ended that was launched after a batch began to be, and before the next did."""
    ready, of = end.copy(), np.searchsorted(called, gpu.downloads.called, side="right") - 1
    np.maximum.at(ready, of[of >= 0], gpu.downloads.end[of >= 0])
    return ready


def _first_pieces(sizes: np.ndarray, called: np.ndarray, launched: np.ndarray) -> np.ndarray:
    """The pieces that begin a batch, of those between which the host was done with something.

    A wait for an upload cuts a batch as well, a few kernels into it. So a piece belongs to the next one if it has less
    than a tenth as many kernels as the usual one, which is the one that a kernel picked at random is most likely in.
    And where a pattern of pieces comes again and again, each is a batch that begins after the longest pause.

    Args:
        sizes: kernels of each piece. int [pieces].
        called: when the host began to launch each. int64 [pieces].
        launched: when it was through. int64 [pieces].
    """
    ordered = np.sort(sizes)
    usual = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    small = sizes < SMALL * usual
    small[-1] = False
    begins = np.flatnonzero(np.append(True, ~small[:-1]))
    sizes = np.add.reduceat(sizes, begins)
    period = _period(sizes)
    if period == 1:
        return begins
    pause = called[begins[1:]] - launched[begins[1:] - 1]
    phase = max(range(1, period + 1), key=lambda phase: np.median(pause[phase - 1 :: period])) % period
    opening = np.median(sizes[phase::period])
    return begins[np.append(0, np.flatnonzero(_alike(sizes[1:], opening)) + 1)]


def _period(sizes: np.ndarray) -> int:
    """After how many pieces their sizes come again, where one seldom is like the one before; else 1."""
    for period in range(1, PIECES + 1):
        if len(sizes) < 4 * period:
            break
        share = _alike(sizes[period:], sizes[:-period]).mean()
        if period == 1 and share >= 0.5:
            break
        if period > 1 and share >= 0.8:
            return period
    return 1


def _alike(sizes: np.ndarray, others) -> np.ndarray:
    return np.abs(sizes - others) <= ALIKE * np.maximum(sizes, others)


def _during(recording: Recording, category: str | None, pattern: str, start: np.ndarray, end: np.ndarray) -> list[str]:
    """The name of the first event with the pattern in its name that overlaps each stretch of time; "" without one."""
    rows = recording.rows(*([category] if category else [*CALLS, "cpu_op", "user_annotation", "overhead"]))
    rows = rows[recording.named(pattern, rows)]
    rows = rows[np.argsort(recording.end[rows], kind="stable")]
    index = np.searchsorted(recording.end[rows], start, side="right")
    found = []
    for number, stop in zip(index.tolist(), end.tolist(), strict=True):
        overlaps = number < len(rows) and recording.start[rows[number]] < stop
        found.append(recording.text(rows[number]) if overlaps else "")
    return found


def _overhead(recording: Recording) -> Stretches:
    rows = recording.rows("overhead")
    rows = rows[recording.named(PROFILERS_OWN, rows)]
    return Stretches.union(recording.start[rows], recording.end[rows])


def communication(gpu: Gpu) -> tuple[Stretches, Stretches]:
    """When a kernel that talks to other GPUs runs, and when no other runs beside it."""
    work = gpu.work
    talks = gpu.recording.named(COMMUNICATION, work.row)
    talk = Stretches.union(work.start[talks], work.end[talks])
    others = Stretches.union(work.start[~talks], work.end[~talks])
    return talk, talk.shared(others.outside(int(work.start[0]), int(gpu.reach[-1])))
