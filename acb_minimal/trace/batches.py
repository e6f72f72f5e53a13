"""The batches of an engine, told apart by its launches in a trace of torch's profiler; those of a trace of ours have
numbers.
"""

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


class Batches(NamedTuple):
    """All batches of one GPU.

    Attributes:
        steps: one for each, in their order on the GPU. The first has no batch before it.
        waits: when the host waited.
        for_tokens: when it waited for tokens, as far as can be told, rather than for an upload.
        launching: when it launched.
    """

    steps: list[Step]
    waits: Stretches
    for_tokens: Stretches
    launching: Stretches


def of_gpu(gpu: Gpu) -> Batches:
    """A batch goes on until the host is done with one, and launches again."""
    work, recording = gpu.work, gpu.recording
    opens = np.append(0, np.flatnonzero(gpu.ended))
    called, launched = np.minimum.reduceat(work.called, opens), np.maximum.reduceat(work.returned, opens)
    waits = _waits(gpu)
    launching = Stretches.union(called, launched).shared(waits.outside(int(called.min()), int(launched.max())))
    first = opens
    if not gpu.numbered:
        first = opens[_first_pieces(np.diff(np.append(opens, len(work.row))), called, launched)]
    called, launched = np.minimum.reduceat(work.called, first), np.maximum.reduceat(work.returned, first)
    end = gpu.reach[np.append(first[1:], len(work.row)) - 1]
    since = np.append(work.start[0], end[:-1])
    bubble, launch_gaps, kernel_gaps = (gpu.kind(kind).between(since, end) for kind in KINDS)
    running = end - since - bubble - launch_gaps - kernel_gaps
    known = np.logical_and.reduceat(work.running >= 0, first)
    if gpu.numbered:
        inside, gaps = (np.add.reduceat(each, first) for each in (work.end - work.start - work.running, work.gaps))
        running, kernel_gaps, launch_gaps = running - inside, kernel_gaps + gaps, launch_gaps + inside - gaps
    after = np.append(called[0], launched[:-1])  # the host had launched the batch before
    began, launches = np.append(called[0], called[:-1]), np.append(0, launching.between(called, launched)[:-1])
    waiting, talk = waits.between(began, called), communication(gpu)
    counted = np.logical_and.reduceat(work.count >= 0, first)
    told = [recording.told.get(row, {}) for row in work.row[first].tolist()]
    columns = {
        "number": work.batch[first] if gpu.numbered else np.arange(len(first)),
        "start": work.start[first],
        "end": end,
        "length": end - since,
        "kernels": np.where(known, running, None),
        "kernel_gaps": np.where(known, kernel_gaps, None),
        "launch_gaps": np.where(known, launch_gaps, None),
        "bubble": bubble,
        "called": called,
        "launched": launched,
        "launching": launches,
        "host": np.maximum(called - began - launches - waiting, 0),
        "waiting": waiting,
        "ready": _ready(gpu, called, end),
        "first": np.maximum(work.start[first] - np.maximum(called, since), 0),
        "count": np.where(counted, np.add.reduceat(work.count, first), None),
        "graph": np.logical_or.reduceat(recording.named("GraphLaunch", work.call) & work.known, first),
        "rows": np.array([args.get("rows") for args in told], dtype=object),
        "one_time": np.array(_during(recording, None, ONE_TIME, after, launched)),
        "profiler": _overhead(recording).between(after, launched),
        "communication": talk[0].between(since, end),
        "alone": talk[1].between(since, end),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    steps = [Step(**dict(zip(columns, row, strict=True))) for row in rows]
    found = Batches(steps, waits, _for_tokens(gpu), launching)
    for before, step in pairwise(steps):
        step.ahead = not _waited(found, before, step) if len(waits.start) else step.called < before.end
    if all("decodes" in args for args in told):
        for step, args in zip(steps, told, strict=True):
            step.sort = "decode" if args["decodes"] else "prompt"
    else:
        _sort(steps, _during(recording, "user_annotation", PROMPT, called, launched))
    return found


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
    """When the thread that launches waited. In a trace of ours a call is all that was launched, and none too long."""
    rows = gpu.waits if gpu.numbered else np.concatenate((gpu.waits, gpu.recording.blocked()))
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
