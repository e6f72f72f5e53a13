"""The batches of any engine, told apart by its launches in a trace of torch's profiler."""

import numpy as np

from .batches import Batch, Batches
from .gaps import Gpu
from .stretches import Stretches
from .torch_profiler import CALLS, Recording

SMALL = 0.1  # of the usual number of kernels: no batch, but a piece of the next one, cut off by a wait for an upload
ALIKE = 0.05  # by which the numbers of kernels of two batches of a kind may differ
PIECES = 8  # most waits in a step that are looked for
ONE_TIME = (
    "StreamBeginCapture|GraphInstantiate|ModuleLoad|LibraryLoad|(?:cuda|hip)Malloc$|Compiler|Lazy Function|"
    "Module Loading|dynamo_timed|triton.*compile"
)
PROFILERS_OWN = "Buffer|Flush|Instrumentation"
PROMPT = "(?i)context_[1-9]|prefill|extend"  # as vLLM and SGLang name a batch that has prompts in it
COMMUNICATION = "(?i)nccl|rccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|multimem"


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
    return Batches(batches, waits, _for_tokens(gpu), launching)


def _waits(gpu: Gpu) -> Stretches:
    """When the thread that launches waited."""
    rows = np.concatenate((gpu.waits, gpu.recording.blocked()))
    rows = rows[gpu.recording.thread[rows] == gpu.thread]
    return Stretches.union(gpu.recording.start[rows], gpu.recording.end[rows])


def _for_tokens(gpu: Gpu) -> Stretches:
    """When that thread waited with a copy to the host as the last copy it had launched."""
    rows = gpu.waits[gpu.recording.thread[gpu.waits] == gpu.thread]
    if len(gpu.downloads.row):
        start = gpu.recording.start[rows]
        last = [_latest(np.sort(copies.called), start) for copies in (gpu.downloads, gpu.uploads)]
        rows = rows[last[0] >= last[1]]
    return Stretches.union(gpu.recording.start[rows], gpu.recording.end[rows])


def _latest(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """The latest of the times before each moment; -1 without one. int64 [moments]."""
    return np.append(-1, times)[np.searchsorted(times, moments, side="left")]


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
    found = []
    for begins, ends in zip(start.tolist(), end.tolist(), strict=True):
        overlap = rows[(recording.start[rows] < ends) & (recording.end[rows] > begins)]
        found.append(recording.text(overlap[0]) if len(overlap) else "")
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
