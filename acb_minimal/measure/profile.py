"""Where the time of a step goes: kernels, launch gaps, bubbles.

On a GPU this takes two runs. The first is timed by events on the compute stream, at full speed: it says how long each
batch was on the GPU and how long the GPU waited for the next one. The second runs a few batches, typical ones of the
first, under torch's profiler, which sees every kernel. Profiling slows the launching of kernels, not the kernels: so of
the second run only their times are used, and a batch's launch gaps are its time on the GPU in the first run less its
kernels' in the second. The trace of the first is told how long the kernels of those batches ran, not when. The second
is in another process (kernel_profile.py).

The simulator knows it all from one run.
"""

import json
import statistics
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import InputError
from ..run.checkpoint import Checkpoint
from ..run.options import Options
from ..run.session import Completion, Session
from ..run.timed import BatchDone, Machine
from ..run.workload import Workload
from ..trace.spans import Trace
from ..trace.torch_profiler import Recording, bubble_share, kernel_runs
from .kernel_profile import launch_names, profiled, with_kernels
from .metrics import Breakdown, Metrics, typical_decodes, widest_decodes

SAMPLE = 8  # batches that run under the profiler, unless told otherwise


@dataclass(frozen=True)
class Method:
    """How a profile is taken on a GPU; the simulator needs one run, and no profiler.

    Raises:
        InputError: the number of runs is not odd, or there are no batches to profile.

    Attributes:
        runs: at full speed, an odd number; the one whose decode step is their median is kept.
        kernels: whether to run once more under torch's profiler; without, there is no breakdown.
        batches: how many run under the profiler (metrics.typical_decodes).
        operations: whether it records PyTorch's operations as well. Without, nothing says which batch a kernel was for:
            there is a kernel trace, and no breakdown.
        process: what `kernel_profile.apart` gives, to profile in; by default one for this profile alone.
    """

    runs: int = 1
    kernels: bool = True
    batches: int = SAMPLE
    operations: bool = True
    process: Executor | None = None

    def __post_init__(self):
        if self.runs < 1 or self.runs % 2 == 0:
            raise InputError(f"runs is {self.runs}; it must be an odd number: one of them is in the middle")
        if self.batches < 1:
            raise InputError(f"batches is {self.batches}; it must be 1 or more")


class Run(NamedTuple):
    """A run at full speed.

    Attributes:
        device: what it ran on.
        options: what was turned.
        steps: its batches.
        trace: of all of it.
        figures: of all of it.
        completions: in the order of the prompts.
    """

    device: Machine
    options: Options
    steps: list[BatchDone]
    trace: Trace
    figures: Metrics
    completions: list[Completion]

    @property
    def step(self) -> float:
        """Seconds by which runs are compared: of a decode step, or of the whole if no such come in a row."""
        step = self.figures.ms_per_decode_step
        return self.figures.seconds if step is None else step / 1e3


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
        kernel_trace: what torch's profiler wrote, JSON in Chrome's format; None without such a run.
        completions: in the order of the prompts.
        options: what was turned.
        run_steps: seconds of a step (Run.step) in each of the runs; all else is of the one that was kept.
    """

    chapter: str
    device: Machine
    figures: Metrics
    trace: Trace
    breakdown: Breakdown | None
    profiled_bubbles: float | None
    kernel_trace: str | None
    completions: list[Completion]
    options: Options
    run_steps: list[float]

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
    device: str | Machine = "auto",
    checkpoint: Checkpoint | None = None,
    name: str | None = None,
    options: Options | None = None,
    progress: Callable[[str], None] = lambda text: None,
    method: Method | None = None,
) -> Profile:
    """Runs a workload through a chapter and says where the time of its steps went.

    Args:
        chapter: as Session takes it.
        workload: what to serve.
        device: as Session takes it.
        checkpoint: the workload's model, if it is there already.
        name: what to call the chapter; by default its name, or that of the class.
        options: as Session takes them.
        progress: is told what Session tells.
        method: how to measure.

    Raises:
        InputError: a request cannot be served, or the device is "cpu", where host and device are one.
    """
    checkpoint, method = checkpoint or Checkpoint(workload.model), method or Method()
    runs = [serve(workload, chapter, device, checkpoint, options, progress)]
    if runs[0].device.kind == "cuda":
        runs += [serve(workload, chapter, device, checkpoint, options, progress) for _ in range(method.runs - 1)]
    return look_into(runs, workload, chapter, checkpoint, name, method)


def serve(
    workload: Workload,
    chapter: str | type,
    device: str | Machine,
    checkpoint: Checkpoint,
    options: Options | None,
    progress: Callable[[str], None],
) -> Run:
    """Serves a workload at full speed: the first part of `profile`, which says what is what, and what is raised."""
    if (device if isinstance(device, str) else device.kind) == "cpu":
        raise InputError("there is no profile of device 'cpu': host and device are one; use cuda or sim")
    session = Session(workload.job(checkpoint.vocab_size), chapter, checkpoint, device, options, trace=True)
    session.progress = progress
    if session.refused:
        raise InputError(next(iter(session.refused.values())))
    completions = session.serve()
    figures, steps = Metrics.of(session), session.done
    return Run(session.device, session.options, steps, session.trace, figures, completions)


def look_into(
    runs: list[Run],
    workload: Workload,
    chapter: str | type,
    checkpoint: Checkpoint,
    name: str | None,
    method: Method,
) -> Profile:
    """Says where the time of steps went: the second part of `profile`.

    Args:
        runs: of the chapter, at full speed.
        workload: that they served.
        chapter: that served it.
        checkpoint: that served it.
        name: as `profile` takes it.
        method: as `profile` takes it; it has been run as often as that says.
    """
    kept = sorted(runs, key=lambda run: run.step)[len(runs) // 2]
    trace, decodes = kept.trace, widest_decodes(kept.steps)
    breakdown = bubbles = kernel_trace = None
    if decodes and method.kernels and kept.device.kind == "cuda":
        sample = typical_decodes(kept.steps, method.batches)
        if checkpoint.ranks:  # each has found its own, and they can only run the same batches
            first, end = checkpoint.ranks.exchange(f"{sample.start} {sample.stop}")[0].split()
            sample = range(int(first), int(end))
        kernel_trace = profiled(
            workload, chapter, sample, kept.options, checkpoint.ranks, method.process, method.operations
        )
    if kernel_trace and method.operations:
        recording = Recording.of(json.loads(kernel_trace)["traceEvents"])
        kernels = kernel_runs(recording, launch_names(sample))
        trace = with_kernels(trace, recording, sample)
        typical = [kernels[number] for number in decodes if number in kernels]
        seconds = statistics.fmean(sum(end - start for start, end in run) for run, _ in typical)
        breakdown = Breakdown.of(trace, kept.steps, seconds, statistics.fmean(count for _, count in typical))
        bubbles = bubble_share([run for run, _ in kernels.values()])
    elif decodes and kept.device.kind == "sim":
        breakdown = Breakdown.simulated(trace, kept.steps)
    return Profile(
        name or (chapter if isinstance(chapter, str) else chapter.__name__),
        kept.device,
        kept.figures,
        trace,
        breakdown,
        bubbles,
        kernel_trace,
        kept.completions,
        kept.options,
        [run.step for run in runs],
    )
