"""Runs a few batches of a workload under torch's profiler, in a process of its own.

It is a process of its own because the profiler slows launches, and the slowness stays: a process in which it has run
once launches kernels more slowly ever after. Of what runs here, only the kernels' own times are good for anything.
Several runs may share the process, which then loads the model once.
"""

import functools
import gc
import linecache
import tempfile
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
from ..run.traced import TracedCudaDevice
from ..run.workload import Workload
from ..trace.spans import Span, Trace, number_of
from ..trace.torch_profiler import Recording, kernel_runs

COMPUTES = ("carry_over", "forward", "replay")


class Enough(Exception):
    """Ends a run once the batches to be profiled are through."""


class ProfiledDevice(TracedCudaDevice):
    """A CUDA GPU on which some batches run under torch's profiler; then Enough is raised.

    Launches have names in what the profiler writes, by what they launch and for which batch.

    Attributes:
        sample: numbers of the batches.
        profiler: torch's; to be entered around the run.
    """

    def __init__(self, sample: range, file: Path, operations: bool = True):
        """
        Args:
            sample: numbers of the batches.
            file: where the profiler writes what it saw, in Chrome's format.
            operations: whether it records PyTorch's operations, and with them the names of launches.
        """
        super().__init__()
        self.sample = sample
        warmup = min(sample.start, 2)
        self.profiler = torch.profiler.profile(
            activities=[ProfilerActivity.CUDA, *([ProfilerActivity.CPU] if operations else [])],
            acc_events=True,  # there is only one cycle; without this torch warns of losing those before
            schedule=schedule(wait=sample.start - warmup, warmup=warmup, active=len(sample), repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(file)),
        )

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        super().spent(what, since, rows, batch_number, slot)
        if what == "schedule" and batch_number == self.sample.stop:
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


def launch_names(sample: range) -> dict[str, int]:
    """By what the launches of these batches' kernels are called, their numbers."""
    return {launch_name(what, number): number for number in sample for what in COMPUTES}


def with_kernels(trace: Trace, recording: Recording, sample: range) -> Trace:
    """The trace of a run, with the kernels that these batches had in another run, under torch's profiler."""
    names = {launch_name(what, number): (number, what) for number in sample for what in COMPUTES}
    runs = kernel_runs(recording, names)

    def told(span: Span) -> Span:
        if span.lane != "compute" or (span.batch_number, span.name) not in runs:
            return span
        run, count = runs[span.batch_number, span.name]
        seconds = sum(end - start for start, end in run)
        return replace(span, kernels=min(seconds, span.seconds), kernel_count=count)

    return replace(trace, spans=[told(span) for span in trace.spans])


def apart() -> ProcessPoolExecutor:
    """A process to profile in. It starts when it is first needed, and ends when this is left as a context."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def profiled(
    workload: Workload,
    chapter: str | type,
    sample: range,
    options: Options,
    ranks: Ranks | None = None,
    process: Executor | None = None,
    operations: bool = True,
) -> str:
    """Runs the workload on the GPU again, in another process.

    Args:
        workload: what to serve.
        chapter: as Session takes it; a class must have its module's text in linecache.
        sample: numbers of the batches that are to run under torch's profiler.
        options: what is turned.
        ranks: those that share the model; all of them do this, and see what runs on their own GPU. They meet anew each
            time, so they need a process for this run alone.
        process: as `profile` takes it.
        operations: as `profile` takes it.

    Returns:
        What the profiler writes about them, in Chrome's format, as JSON.
    """
    torch.cuda.empty_cache()  # the other process needs room for the model and the KV cache
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        if isinstance(chapter, type):
            text = "".join(linecache.getlines(chapter.run.__code__.co_filename))
            chapter = str(Path(folder, "engine.py"))
            Path(chapter).write_text(text)
        with nullcontext(process) if process and not ranks else apart() as used:
            meeting = ranks and ranks.again()
            used.submit(_profile, workload, chapter, options, meeting, sample, file, operations).result()
        return file.read_text()


def _profile(
    workload: Workload,
    chapter: str,
    options: Options,
    ranks: Ranks | None,
    sample: range,
    file: Path,
    operations: bool,
) -> None:
    if ranks:
        ranks.join("cuda")
    checkpoint = Checkpoint(workload.model, ranks) if ranks else _checkpoint(workload.model)
    _serve(workload, chapter, options, checkpoint, ProfiledDevice(sample, file, operations))
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
