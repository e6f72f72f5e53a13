"""Runs a few batches of a workload under torch's profiler, in a process of its own.

It is a process of its own because the profiler slows launches, and the slowness can stay: on some machines a process in
which it has run launches kernels more slowly ever after (docs/myths.md). Of what runs here, only the kernels' own
times are good for anything.
Several runs may share the process, which then loads the model once.
"""

import functools
import gc
import json
import linecache
import re
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function, schedule

from ..device import Work
from ..run.checkpoint import Checkpoint
from ..run.options import Options
from ..run.ranks import Ranks
from ..run.session import Session
from ..run.timed import BatchDone
from ..run.traced import TracedCudaDevice
from ..run.workload import Workload
from ..trace.gaps import gpus
from ..trace.law import EAGER_GAP, inside
from ..trace.spans import LAUNCHES, Span, Trace, number_of
from ..trace.steps import typical_decodes
from ..trace.stretches import Stretches
from ..trace.torch_profiler import Recording

LAUNCH = re.compile(rf"({'|'.join(LAUNCHES)}) of batch (\d+)")  # what launch_name makes


class Enough(Exception):
    """Ends a run once the batches to be profiled are through."""


class ProfiledDevice(TracedCudaDevice):
    """A CUDA GPU on which some batches run under torch's profiler; then Enough is raised.

    Launches have names in what the profiler writes, by what they launch and for which batch. The profiler is to be
    entered around the run.
    """

    def __init__(self, batches: range, file: Path):
        """
        Args:
            batches: their numbers.
            file: where the profiler writes what it saw, in Chrome's format.
        """
        super().__init__()
        self.batches = batches
        warmup = min(batches.start, 2)
        self.profiler = torch.profiler.profile(
            activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU],
            acc_events=True,  # there is only one cycle; without this torch warns of losing those before
            schedule=schedule(wait=batches.start - warmup, warmup=warmup, active=len(batches), repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(file)),
        )

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        super().spent(what, since, rows, batch_number, slot)
        if what == "schedule" and batch_number == self.batches.stop:
            self.finish()  # what is not done when the profiler stops, it does not see
            raise Enough
        if what == "schedule" and batch_number:  # its steps are the batches, and it is in step 0 from the start
            self.profiler.step()

    @contextmanager
    def launching(self, engine: str, name: str, work: Work | None):
        if torch.cuda.is_current_stream_capturing():
            self.captured = work
            yield
        else:
            with record_function(launch_name(name, number_of(work))):
                yield


def launch_name(what: str, batch_number: int | None) -> str:
    """What a launch is called in a trace of torch's profiler."""
    return f"{what} of batch {batch_number}"


def kernel_runs(recording: Recording, but: str | None = None) -> dict[tuple[int, str], tuple[Stretches, int]]:
    """When the kernels of each launch ran, on the only GPU. A kernel is of the launch that its call lies in.

    Args:
        but: kernels whose names have this pattern in them do not count.

    Returns:
        By number of the batch and what was launched, when a kernel of it runs, and the number of its kernels.
    """
    (gpu,), mine = gpus(recording), {}
    work = gpu.work
    some = work.known & ~recording.named(but, work.row) if but else work.known
    for row in recording.rows("user_annotation"):
        if named := LAUNCH.fullmatch(recording.text(row)):
            inside = (work.called >= recording.start[row]) & (work.called <= recording.end[row])
            mine[int(named[2]), named[1]] = some & inside & (work.thread == recording.thread[row])
    runs = {key: (Stretches.union(work.start[at], work.end[at]), int(at.sum())) for key, at in sorted(mine.items())}
    return {key: (run, count) for key, (run, count) in runs.items() if count}


def sample(done: Sequence[BatchDone], count: int) -> range:
    """The numbers of so many batches in a row that stand for all typical decodes; fewer if there are not so many.

    Of all rows it is the one with the fewest batches that are no typical decodes. Kernels take longer as contexts grow,
    so then the one in the middle half, if that has so many. A host can be slow for tens of batches on end, so then the
    one whose steps are nearest to the median.

    Args:
        done: the batches of a run that has typical decodes.
        count: 1 or more.
    """
    decodes = typical_decodes(done)
    took = {number: done[number].time - done[number - 1].time for number in range(1, len(done))}
    median = statistics.median(took[number] for number in decodes)
    middle = decodes[len(decodes) // 4 : len(decodes) - len(decodes) // 4]
    among = middle if len(middle) >= count else decodes
    firsts = decodes[: max(len(decodes) - count + 1, 1)]
    windows = [range(first, min(first + count, decodes[-1] + 1)) for first in firsts]

    def unlike(window: range) -> tuple[int, int, float]:
        distance = statistics.fmean(abs(took[number] - median) for number in window)
        return len(set(window).difference(decodes)), len(set(window).difference(among)), distance

    return min(windows, key=unlike)


def with_kernels(trace: Trace, kernel_trace: str) -> Trace:
    """The trace of a run at full speed, told what kernels take in some batches by that of another, under torch's
    profiler: how long they run, and the GPU's time between them.

    A graph's kernels are queued all at once, so that is what is left of the graph's time, and not what torch's profiler
    saw, which lengthens it.
    """
    recording = Recording.of(json.loads(kernel_trace)["traceEvents"])
    runs, (gpu,) = kernel_runs(recording), gpus(recording)
    gap = gpu.usual / 1e9 or EAGER_GAP

    def told(span: Span) -> Span:
        if span.lane != "compute" or (span.batch_number, span.name) not in runs:
            return span
        run, count = runs[span.batch_number, span.name]
        kernels, gaps = inside(span.seconds, run.seconds, None, count, span.name == "replay", gap)
        return replace(span, kernels=kernels, kernel_gaps=gaps, kernel_count=count)

    return replace(trace, spans=[told(span) for span in trace.spans])


def apart() -> ProcessPoolExecutor:
    """A process to profile in. It starts when it is first needed, and ends when this is left as a context."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def profiled(
    workload: Workload, chapter: Path | type, batches: range, options: Options, ranks: Ranks | None, process: Executor
) -> str:
    """Runs the workload on the GPU again, in another process, and returns what the profiler writes about some of its
    batches: JSON in Chrome's format.

    Args:
        chapter: a file, or a class whose text is in linecache.
        ranks: those that share the model; all of them do this, and see what runs on their own GPU. They meet anew each
            time, so they have a process for this run alone.
        process: what `apart` gives.
    """
    torch.cuda.empty_cache()  # the other process needs room for the model and the KV cache
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        if isinstance(chapter, type):
            lines = linecache.getlines(chapter.run.__code__.co_filename)
            chapter = Path(folder, "engine.py")
            chapter.write_text("".join(lines))
        with apart() if ranks else nullcontext(process) as used:
            meeting = ranks and ranks.again()
            used.submit(_profile, workload, str(chapter), options, meeting, batches, file).result()
        return file.read_text()


def _profile(
    workload: Workload, chapter: str, options: Options, ranks: Ranks | None, batches: range, file: Path
) -> None:
    if ranks:
        ranks.join("cuda")
    checkpoint = Checkpoint(workload.model, ranks) if ranks else _checkpoint(workload.model)
    _serve(workload, chapter, options, checkpoint, ProfiledDevice(batches, file))
    gc.collect()
    torch.cuda.empty_cache()  # what asked for the profile needs the room, until it asks for the next one
    if ranks:
        torch.distributed.destroy_process_group()  # graphs that have captured its collectives are gone by now


@functools.lru_cache(maxsize=1)
def _checkpoint(model: str) -> Checkpoint:
    """The model that this process profiles, loaded once."""
    return Checkpoint(model)


def _serve(workload: Workload, chapter: str, options: Options, checkpoint: Checkpoint, device: ProfiledDevice) -> None:
    with device.profiler, suppress(Enough):
        Session(workload.job(checkpoint.vocab_size), chapter, checkpoint, device, options).serve()
