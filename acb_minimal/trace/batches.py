"""What each batch took: on the GPU, of the host, and in each kind of gap. Which is which is in segmentation.py."""

from typing import NamedTuple

import numpy as np

from .gaps import KINDS, Gpu
from .steps import ODD
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
        steps: a row for each, as steps.py has them, in their order on the GPU. The first has no batch before it.
        waits: when the host waited.
        launching: when it launched.
        decodes: whether the trace says which batches are of decodes alone; else most are taken for what they are alike.
    """

    steps: np.recarray
    waits: Stretches
    launching: Stretches
    decodes: bool


def of_gpu(gpu: Gpu) -> Batches:
    """A batch goes on until the host is done with one, and launches again."""
    work, recording, segments = gpu.work, gpu.recording, gpu.segments
    order = np.argsort(segments.batch, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(segments.batch[order]) != 0))

    def each(ufunc: np.ufunc, values: np.ndarray) -> np.ndarray:
        """Of each batch, the values of its work put together."""
        return ufunc.reduceat(values[order], first)

    called, launched = segments.main, each(np.maximum, work.returned)
    waits = _waits(gpu)
    launching = _launching(gpu, waits)
    start = each(np.minimum, np.where(work.called < called[segments.batch], LATE, work.start))
    end = np.maximum.accumulate(each(np.maximum, work.end))
    since = np.append(work.start[0], end[:-1])
    bubble, launch_gaps, kernel_gaps, copies, stalled = (gpu.parts[kind].between(since, end) for kind in KINDS)
    kernels = end - since - bubble - launch_gaps - kernel_gaps - copies - stalled
    if gpu.numbered:
        idle, gaps = each(np.add, work.end - work.start - work.running), each(np.add, work.gaps)
        kernels, kernel_gaps, launch_gaps = kernels - idle, kernel_gaps + gaps, launch_gaps + idle - gaps
    after = np.append(called[0], launched[:-1])  # the host had launched the batch before
    began, launches = np.append(called[0], called[:-1]), np.append(0, launching.between(called, launched)[:-1])
    waiting, (talk, alone) = waits.between(began, called), communication(gpu)
    told = [recording.told.get(row, {}) for row in work.row[order][first].tolist()]
    count = np.where(each(np.minimum, work.count) < 0, -1, each(np.add, work.count))
    overhead = recording.when(recording.called(PROFILERS_OWN, "overhead"))
    numbers = work.batch[order][first] if gpu.numbered else np.arange(len(first))
    rows, kinds = np.array([args.get("rows") or 0 for args in told]), np.full(len(first), "decode", dtype=object)
    once = _during(recording, ONE_TIME, after, launched, *CALLS, "cpu_op", "user_annotation", "overhead")
    table = dict(
        number=numbers, start=start, end=end, length=end - since, bubble=bubble, copies=copies, stalled=stalled,
        known=each(np.minimum, work.running) >= 0, kernels=kernels, kernel_gaps=kernel_gaps, launch_gaps=launch_gaps,
        called=called, launched=launched, launching=launches, waiting=waiting, ready=_ready(gpu, called, end),
        host=np.maximum(called - began - launches - waiting, 0), count=count, rows=rows, one_time=once, kind=kinds,
        first=np.maximum(start - np.maximum(called, since), 0), profiler=overhead.between(after, launched),
        graph=each(np.logical_or, recording.named("GraphLaunch", work.call) & work.known),
        communication=talk.between(since, end), alone=alone.between(since, end),
        decodes=np.ones(len(first), dtype=bool), ahead=np.zeros(len(first), dtype=bool),
    )  # fmt: skip
    steps = np.rec.fromarrays(list(table.values()), names=list(table))
    steps.ahead[1:] = ~_waited(gpu, waits, steps) if len(waits.start) else called[1:] < end[:-1]
    prompts = _during(recording, PROMPT, called, launched, "user_annotation")
    if says := all("decodes" in args for args in told):
        steps.kind[[not args["decodes"] for args in told]] = "prompt"
    else:
        _sort(steps, prompts != "")
    steps.decodes[:] = steps.kind == "decode"
    named = np.append(prompts, _during(recording, DECODE, called, launched, "user_annotation"))
    return Batches(steps, waits, launching, says or bool((named != "").any()))


def _launching(gpu: Gpu, waits: Stretches) -> Stretches:
    """When the host launched, piece by piece; what only gets a batch ready is not of its launches."""
    work, segments = gpu.work, gpu.segments
    order = np.argsort(segments.piece, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(segments.piece[order]) != 0))
    began = np.maximum(work.called, segments.main[segments.batch])
    began, ended = np.minimum.reduceat(began[order], first), np.maximum.reduceat(work.returned[order], first)
    return Stretches.union(began, ended).shared(waits.outside(int(work.called.min()), int(work.returned.max())))


def _waited(gpu: Gpu, waits: Stretches, steps: np.recarray) -> np.ndarray:
    """Whether the host waited for the end of each batch after it had launched it, and before it launched the next: for
    its tokens, as far as can be told, rather than for an upload, or else as it ended. bool [steps - 1]."""
    launched, called, end, ready = steps.launched[:-1], steps.called[1:], steps.end[:-1], steps.ready[:-1]
    for_tokens = _for_tokens(gpu).meets(np.maximum(launched, ready - CLOCKS - 1), called)
    return for_tokens | waits.meets(np.maximum(launched, end - CLOCKS - 1), np.minimum(called, end + CLOCKS + 1))


def _sort(steps: np.recarray, prompts: np.ndarray) -> None:
    """Says what each batch is, where the trace does not: most are taken for decodes, and alike. What runs much longer
    than the usual one, or is no graph where most are, has prompts in it; the first of so many kernels is set-up if it
    takes much longer than what comes after it.

    Args:
        prompts: where something says that there are some. bool [steps].
    """
    steps.kind[prompts] = "prompt"
    steps.kind[(steps.one_time != "") | (steps.profiler > 0)] = "set-up"
    rest = np.flatnonzero(steps.kind == "decode")
    new = rest[np.unique(steps.count[rest], return_index=True)[1]]
    new = new[(new > 0) & (new < len(steps) - 1)]
    steps.kind[new[steps.length[new] > ODD * steps.length[new + 1]]] = "set-up"
    rest = np.flatnonzero(steps.kind == "decode")
    if len(rest):
        times = np.where(steps.known, steps.kernels + steps.kernel_gaps, steps.end - steps.start)[rest]
        graph = steps.graph[rest]
        odd = (times > MORE * np.median(times)) | (~graph & (2 * graph.sum() > len(rest)))
        steps.kind[rest[odd]] = "prompt"


def _waits(gpu: Gpu) -> Stretches:
    """When a thread that launches waited, and no other of those launched. In a trace of ours a call is all that was
    launched, and none too long."""
    recording = gpu.recording
    rows = gpu.own(recording.waits if gpu.numbered else np.append(recording.waits, recording.blocked()))
    waits = recording.when(rows)
    if len(gpu.threads) > 1 and len(waits.start):
        calls = recording.when(np.setdiff1d(gpu.own(recording.rows(*CALLS)), rows))
        waits = waits.shared(calls.outside(int(waits.start[0]), int(waits.end[-1])))
    return waits


def _for_tokens(gpu: Gpu) -> Stretches:
    """When such a thread waited with a copy to the host as the last copy it had launched, or in a call that copies."""
    recording, rows = gpu.recording, gpu.own(gpu.recording.waits)
    if len(gpu.downloads.row):
        down, up = (np.append(-1, np.sort(copies.called)) for copies in (gpu.downloads, gpu.uploads))
        start = recording.start[rows]
        last = down[np.searchsorted(down, start) - 1] >= up[np.searchsorted(up, start) - 1]
        rows = np.append(rows[last], gpu.own(recording.copied_by_waiting()))
    return recording.when(rows)


def _ready(gpu: Gpu, called: np.ndarray, end: np.ndarray) -> np.ndarray:
    """When the last copy to the host ended that was launched after a batch began to be, and before the next did."""
    ready, of = end.copy(), np.searchsorted(called, gpu.downloads.called, side="right") - 1
    np.maximum.at(ready, of[of >= 0], gpu.downloads.end[of >= 0])
    return ready


def _during(recording: Recording, pattern: str, start: np.ndarray, end: np.ndarray, *categories: str) -> np.ndarray:
    """The name of the first event with the pattern in its name that overlaps each stretch of time; "" without one.
    object [stretches]."""
    found, rows = np.full(len(start), "", dtype=object), recording.called(pattern, *categories)
    for row in rows[::-1].tolist():
        found[(recording.start[row] < end) & (recording.end[row] > start)] = recording.text(row)
    return found


def communication(gpu: Gpu) -> tuple[Stretches, Stretches]:
    """When a kernel that talks to other GPUs runs, and when no other runs beside it."""
    talks = gpu.recording.named(COMMUNICATION, gpu.work.row)
    talk, others = (gpu.recording.when(gpu.work.row[which]) for which in (talks, ~talks))
    return talk, talk.shared(others.outside(*gpu.window))
