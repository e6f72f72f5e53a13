"""Where the time of a step goes: kernels, launch gaps, bubbles.

On a GPU this takes two runs. The first is timed by events on the compute stream, at full speed: it says how long each
batch was on the GPU and how long the GPU waited for the next one. The second runs a few batches in the middle under
torch's profiler, which sees every kernel. Profiling slows the launching of kernels, not the kernels: so of the second
run only their times are used, and a batch's launch gaps are its time on the GPU in the first run less its kernels' in
the second. The trace of the first is told how long the kernels of those batches ran, not when. The second has a process
of its own, because the slowness stays: a process in which torch's profiler has run once launches kernels more slowly
ever after.

The simulator knows it all from one run.
"""

import json
import linecache
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function, schedule

from ..device import CudaDevice, Device, Work, number_of, traced_cuda
from ..errors import InputError
from ..run.checkpoint import Checkpoint
from ..run.dials import Dials
from ..run.ranks import Ranks
from ..run.session import Completion, Session
from ..run.workload import Workload
from ..trace.spans import Trace
from ..trace.torch_profiler import Recording, bubble_share, kernel_runs
from .figures import Breakdown, Figures, widest_decodes

SAMPLE = 8  # batches that run under the profiler, unless told otherwise
COMPUTES = ("carry_over", "forward", "replay")


@dataclass(frozen=True)
class Profile:
    """One chapter on one workload.

    Attributes:
        chapter: what it is called.
        device: what it ran on.
        figures: of the run at full speed.
        trace: of the run at full speed; it knows the kernel times of the batches that ran under torch's profiler.
        breakdown: of a decode step; None without kernels, and if the workload has no batches of decodes in a row.
        profiled_bubbles: share of time, 0 to 1, between batches by the kernels' own times, in the run under torch's
            profiler; None without such a run.
        kernel_trace: what torch's profiler wrote, in Chrome's format; None without such a run.
        completions: in the order of the prompts.
        dials: what was turned.
    """

    chapter: str
    device: Device
    figures: Figures
    trace: Trace
    breakdown: Breakdown | None
    profiled_bubbles: float | None
    kernel_trace: dict | None
    completions: list[Completion]
    dials: Dials

    def shown(self, count: int) -> tuple[int, int]:
        """The first and the last of a few batches worth a look: those whose kernel times are known, else the middle."""
        known = {span.batch_number for span in self.trace.lane("compute") if span.kernels is not None}
        first, last = self.trace.middle(count)
        if known and not known.issuperset(range(first, last + 1)):
            first, last = min(known), min(min(known) + count - 1, max(known))
        return first, last


def profile(
    chapter: str | type,
    workload: Workload,
    device: str | Device = "auto",
    checkpoint: Checkpoint | None = None,
    name: str | None = None,
    kernels: bool = True,
    dials: Dials | None = None,
    progress: Callable[[str], None] = lambda text: None,
    batches: int = SAMPLE,
) -> Profile:
    """Runs a workload through a chapter and says where the time of its steps went.

    Args:
        chapter: as Session takes it.
        workload: what to serve.
        device: as Session takes it.
        checkpoint: the workload's model, if it is there already.
        name: what to call the chapter; by default its name, or that of the class.
        kernels: on a GPU, whether to run it again under torch's profiler; without, there is no breakdown.
        dials: as Session takes them.
        progress: is told what Session tells.
        batches: how many run under the profiler, from the middle on; fewer if there are not so many.

    Raises:
        InputError: a request cannot be served, or the device is "cpu", where host and device are one.
    """
    if (device if isinstance(device, str) else device.kind) == "cpu":
        raise InputError("there is no profile of device 'cpu': host and device are one; use cuda or sim")
    checkpoint = checkpoint or Checkpoint(workload.model)
    job = workload.job(checkpoint.vocab_size)
    session = Session(job, chapter, checkpoint, device, dials, trace=True)
    session.progress = progress
    if session.refused:
        raise InputError(next(iter(session.refused.values())))
    completions = session.serve()
    trace, steps = session.trace, session.scheduler.steps
    decodes = widest_decodes(steps)
    breakdown = bubbles = kernel_trace = None
    if decodes and kernels and session.device.kind == "cuda":
        sample = range(decodes[len(decodes) // 2], decodes[-1] + 1)[:batches]
        kernel_trace = profiled(workload, chapter, sample, session.dials, checkpoint.ranks)
        recording = Recording.of(kernel_trace["traceEvents"])
        runs = kernel_runs(recording, launch_names(sample))
        trace = with_kernels(trace, recording, sample)
        typical = [runs[number] for number in decodes if number in runs]
        seconds = statistics.fmean(sum(end - start for start, end in run) for run, _ in typical)
        breakdown = Breakdown.of(trace, steps, seconds, statistics.fmean(count for _, count in typical))
        bubbles = bubble_share([run for run, _ in runs.values()])
    elif decodes and session.device.kind == "sim":
        breakdown = Breakdown.simulated(trace, steps)
    name = name or (chapter if isinstance(chapter, str) else chapter.__name__)
    figures, dials = Figures.of(session), session.dials
    return Profile(name, session.device, figures, trace, breakdown, bubbles, kernel_trace, completions, dials)


class Enough(Exception):
    """Ends a run once the batches to be profiled are through."""


class ProfiledDevice(CudaDevice):
    """A CUDA GPU on which some batches run under torch's profiler; then Enough is raised.

    Launches have names in what the profiler writes, by what they launch and for which batch.

    Attributes:
        sample: numbers of the batches.
        profiler: torch's; to be entered around the run.
    """

    def __init__(self, sample: range, file: Path):
        """
        Args:
            sample: numbers of the batches.
            file: where the profiler writes what it saw, in Chrome's format.
        """
        super().__init__()
        self.sample = sample
        self.cuda = traced_cuda(self)
        warmup = min(sample.start, 2)
        self.profiler = torch.profiler.profile(
            activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA],
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
    """The trace of a run, with the kernel times that these batches had in another run, under torch's profiler."""
    names = {launch_name(what, number): (number, what) for number in sample for what in COMPUTES}
    seconds = {key: sum(end - start for start, end in run) for key, (run, _) in kernel_runs(recording, names).items()}
    spans = []
    for span in trace.spans:
        known = seconds.get((span.batch_number, span.name)) if span.lane == "compute" else None
        spans.append(span if known is None else replace(span, kernels=min(known, span.seconds)))
    return replace(trace, spans=spans)


def profiled(
    workload: Workload, chapter: str | type, sample: range, dials: Dials, ranks: Ranks | None = None
) -> dict:
    """Runs the workload on the GPU again, in a process of its own.

    Args:
        workload: what to serve.
        chapter: as Session takes it; a class must have its module's text in linecache.
        sample: numbers of the batches that are to run under torch's profiler.
        dials: what is turned.
        ranks: those that share the model; all of them do this, and see what runs on their own GPU.

    Returns:
        What the profiler writes about them, in Chrome's format.
    """
    torch.cuda.empty_cache()  # the other process needs room for the model and the KV cache
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        if isinstance(chapter, type):
            text = "".join(linecache.getlines(chapter.run.__code__.co_filename))
            chapter = str(Path(folder, "engine.py"))
            Path(chapter).write_text(text)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            process.submit(_profile, workload, chapter, sample, dials, file, ranks and ranks.again()).result()
        return json.loads(file.read_text())


def _profile(workload: Workload, chapter: str, sample: range, dials: Dials, file: Path, ranks: Ranks | None) -> None:
    if ranks:
        ranks.join("cuda")
    _profile_to(file, workload, chapter, sample, dials, ranks)
    if ranks:
        ranks.part()


def _profile_to(file: Path, workload: Workload, chapter: str, sample: range, dials: Dials, ranks: Ranks | None) -> None:
    device = ProfiledDevice(sample, file)
    checkpoint = Checkpoint(workload.model, ranks)
    with device.profiler, suppress(Enough):
        Session(workload.job(checkpoint.vocab_size), chapter, checkpoint, device, dials).serve()
