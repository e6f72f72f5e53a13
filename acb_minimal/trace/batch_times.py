"""What each batch took: on the GPU, of the host, and in each kind of gap. Which is which is in segmentation.py."""

from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from .gaps import KINDS, Gpu
from .steps import ODD, Step
from .stretches import Stretches
from .torch_profiler import CALLS, Recording

MORE = 1.5  # times the kernels of the usual batch: there are prompts in it
CLOCKS = 1_000  # ns by which the clocks of host and GPU may disagree
LATE = np.iinfo(np.int64).max
ONE_TIME = (
    "StreamBeginCapture|GraphInstantiate|ModuleLoad|LibraryLoad|(?:cuda|hip)Malloc$|Compiler|Lazy Function|"
    "Module Loading|dynamo_timed|triton.*compile"
)
PROFILERS_OWN = "Buffer|Flush|Instrumentation"
PROMPT = "(?i)context_[1-9]|prefill|extend"  # as vLLM and SGLang name a batch that has prompts in it
DECODE = r"(?i)context_0\(|\bdecode\b"  # and one that has none
COMMUNICATION = (
    "(?i)nccl|rccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|multimem|cross_device_reduce|deep_ep|nvshmem|"
    "mscclpp|symm_mem|userbuffers"
)


class Batches(NamedTuple):
    """All batches of one GPU.

    Attributes:
        steps: one for each, in their order on the GPU. The first has no batch before it.
        waits: when the host waited.
        for_tokens: when it waited for tokens, as far as can be told, rather than for an upload.
        launching: when it launched.
        decodes: whether the trace says which batches are of decodes alone; else most are taken for what they are alike.
    """

    steps: list[Step]
    waits: Stretches
    for_tokens: Stretches
    launching: Stretches
    decodes: bool


def of_gpu(gpu: Gpu) -> Batches:
    """A batch goes on until the host is done with one, and launches again."""
    work, recording, segments = gpu.work, gpu.recording, gpu.segments
    order = np.argsort(segments.batch, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(segments.batch[order]) != 0))
    called, launched = segments.main, np.maximum.reduceat(work.returned[order], first)
    waits = _waits(gpu)
    launching = _launching(gpu, waits)
    start = np.minimum.reduceat(np.where(work.called < called[segments.batch], LATE, work.start)[order], first)
    end = np.maximum.accumulate(np.maximum.reduceat(work.end[order], first))
    since = np.append(work.start[0], end[:-1])
    bubble, launch_gaps, kernel_gaps, copies, stalled = (gpu.kind(kind).between(since, end) for kind in KINDS)
    running = end - since - bubble - launch_gaps - kernel_gaps - copies - stalled
    known = np.logical_and.reduceat((work.running >= 0)[order], first)
    if gpu.numbered:
        idle = work.end - work.start - work.running
        inside, gaps = (np.add.reduceat(each[order], first) for each in (idle, work.gaps))
        running, kernel_gaps, launch_gaps = running - inside, kernel_gaps + gaps, launch_gaps + inside - gaps
    after = np.append(called[0], launched[:-1])  # the host had launched the batch before
    began, launches = np.append(called[0], called[:-1]), np.append(0, launching.between(called, launched)[:-1])
    waiting, talk = waits.between(began, called), communication(gpu)
    counted = np.logical_and.reduceat((work.count >= 0)[order], first)
    told = [recording.told.get(row, {}) for row in work.row[order][first].tolist()]
    graph = recording.named("GraphLaunch", work.call) & work.known
    columns = {
        "number": work.batch[order][first] if gpu.numbered else np.arange(len(first)),
        "start": start,
        "end": end,
        "length": end - since,
        "kernels": np.where(known, running, None),
        "kernel_gaps": np.where(known, kernel_gaps, None),
        "launch_gaps": np.where(known, launch_gaps, None),
        "bubble": bubble,
        "copies": copies,
        "stalled": stalled,
        "called": called,
        "launched": launched,
        "launching": launches,
        "host": np.maximum(called - began - launches - waiting, 0),
        "waiting": waiting,
        "ready": _ready(gpu, called, end),
        "first": np.maximum(start - np.maximum(called, since), 0),
        "count": np.where(counted, np.add.reduceat(work.count[order], first), None),
        "graph": np.logical_or.reduceat(graph[order], first),
        "rows": np.array([args.get("rows") for args in told], dtype=object),
        "one_time": np.array(_during(recording, None, ONE_TIME, after, launched)),
        "profiler": _overhead(recording).between(after, launched),
        "communication": talk[0].between(since, end),
        "alone": talk[1].between(since, end),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    steps = [Step(**dict(zip(columns, row, strict=True))) for row in rows]
    prompts = _during(recording, "user_annotation", PROMPT, called, launched)
    says = all("decodes" in args for args in told)
    named = says or any(prompts) or any(_during(recording, "user_annotation", DECODE, called, launched))
    found = Batches(steps, waits, _for_tokens(gpu), launching, named)
    for before, step in pairwise(steps):
        step.ahead = not _waited(found, before, step) if len(waits.start) else step.called < before.end
    if says:
        for step, args in zip(steps, told, strict=True):
            step.sort = "decode" if args["decodes"] else "prompt"
    else:
        _sort(steps, prompts)
    return found


def _launching(gpu: Gpu, waits: Stretches) -> Stretches:
    """When the host launched, piece by piece; what only gets a batch ready is not of its launches."""
    work, segments = gpu.work, gpu.segments
    order = np.argsort(segments.piece, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(segments.piece[order]) != 0))
    began = np.maximum(work.called, segments.main[segments.batch])
    began, ended = np.minimum.reduceat(began[order], first), np.maximum.reduceat(work.returned[order], first)
    return Stretches.union(began, ended).shared(waits.outside(int(work.called.min()), int(work.returned.max())))


def _waited(found: Batches, before: Step, step: Step) -> bool:
    """Whether the host waited for the end of a batch after it had launched it, and before it launched the next."""
    tokens = found.for_tokens.over(before.launched, step.called)
    through = found.waits.over(before.launched, step.called)
    covers = (through.start <= before.end + CLOCKS) & (through.end >= before.end - CLOCKS)
    return bool((tokens.end >= before.ready - CLOCKS).any() or covers.any())


def _sort(steps: list[Step], prompts: list[str]) -> None:
    """Says what each batch is, where the trace does not: most are taken for decodes, and alike. What runs much longer
    than the usual one, or is no graph where most are, has prompts in it.

    Args:
        prompts: for each what says that there are prompts in it; "" if nothing does.
    """
    warm, rest = set(), []
    for step, prompt, after in zip(steps, prompts, [*steps[1:], None], strict=True):
        if step.one_time or step.profiler:
            step.sort = "set-up"
        elif prompt:
            step.sort = "prompt"
        else:
            rest.append(step)
            if step.count not in warm and after and step is not steps[0] and step.length > ODD * after.length:
                step.sort = "set-up"
            warm.add(step.count)
    rest = [step for step in rest if step.sort == "decode"]
    times = [step.end - step.start if step.on_gpu is None else step.on_gpu for step in rest]
    usual, graphs = median(times) if rest else 0, 2 * sum(step.graph for step in rest) > len(rest)
    for step, time in zip(rest, times, strict=True):
        if time > MORE * usual or step.graph < graphs:
            step.sort = "prompt"


def _waits(gpu: Gpu) -> Stretches:
    """When a thread that launches waited, and no other of those launched. In a trace of ours a call is all that was
    launched, and none too long."""
    rows = gpu.waits if gpu.numbered else np.concatenate((gpu.waits, gpu.recording.blocked()))
    rows = rows[np.isin(gpu.recording.thread[rows], gpu.threads)]
    waits = Stretches.union(gpu.recording.start[rows], gpu.recording.end[rows])
    if len(gpu.threads) > 1:
        calls = gpu.recording.rows(*CALLS)
        calls = np.setdiff1d(calls[np.isin(gpu.recording.thread[calls], gpu.threads)], rows)
        calls = Stretches.union(gpu.recording.start[calls], gpu.recording.end[calls])
        waits = waits.shared(calls.outside(int(waits.start[0]), int(waits.end[-1]))) if len(waits.start) else waits
    return waits


def _for_tokens(gpu: Gpu) -> Stretches:
    """When such a thread waited with a copy to the host as the last copy it had launched, or in a call that copies."""
    recording, rows = gpu.recording, gpu.waits
    rows = rows[np.isin(recording.thread[rows], gpu.threads)]
    if len(gpu.downloads.row):
        start = recording.start[rows]
        last = [_latest(np.sort(copies.called), start) for copies in (gpu.downloads, gpu.uploads)]
        copied = recording.copied_by_waiting()
        rows = np.concatenate((rows[last[0] >= last[1]], copied[np.isin(recording.thread[copied], gpu.threads)]))
    return Stretches.union(recording.start[rows], recording.end[rows])


def _latest(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """The latest of the times before each moment; -1 without one. int64 [moments]."""
    return np.append(-1, times)[np.searchsorted(times, moments, side="left")]


def _ready(gpu: Gpu, called: np.ndarray, end: np.ndarray) -> np.ndarray:
    """When the last copy to the host ended that was launched after a batch began to be, and before the next did."""
    ready, of = end.copy(), np.searchsorted(called, gpu.downloads.called, side="right") - 1
    np.maximum.at(ready, of[of >= 0], gpu.downloads.end[of >= 0])
    return ready


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
