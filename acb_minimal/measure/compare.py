"""Chapters on one workload, side by side: how long a step takes, and where its time goes.

On a GPU this takes two runs. The first is timed by events on the compute stream, at full speed: it says how long each
batch was on the GPU and how long the GPU waited for the next one. The second (kernel_profile.py) runs a few batches,
typical ones of the first, under torch's profiler, which sees every kernel. Profiling slows the launching of kernels,
not the kernels: so of the second run only their times are used, and the GPU's own between two that were queued. The
trace of the first is told both. The simulator knows it all from one run.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import InputError
from ..run.checkpoint import Checkpoint
from ..run.engines import chapter_path, chapter_paths
from ..run.options import Options
from ..run.session import Completion, Session
from ..run.timed import BatchDone, Machine
from ..run.workload import Workload
from ..trace.idle import typical_of
from ..trace.law import Breakdown
from ..trace.spans import Trace
from ..trace.steps import Typical, typical_decodes
from .kernel_profile import apart, profiled, sample, with_kernels
from .latency import Latency, of_session, stored
from .metrics import Metrics, command, environment

SAMPLE = 8  # batches that run under the profiler, unless told otherwise


@dataclass(frozen=True)
class Method:
    """How chapters are measured on a GPU; the simulator needs one run, and no profiler.

    Attributes:
        runs: of each at full speed, an odd number; the one whose decode step is their median is kept.
        kernels: whether to run once more under torch's profiler.
        batches: how many run under the profiler.
    """

    runs: int = 1
    kernels: bool = True
    batches: int = SAMPLE

    def __post_init__(self):
        if self.runs < 1 or self.runs % 2 == 0:
            raise InputError(f"runs is {self.runs}; it must be an odd number: one of them is in the middle")
        if self.batches < 1:
            raise InputError(f"batches is {self.batches}; it must be 1 or more")


@dataclass(frozen=True)
class Run:
    """A run at full speed: what it ran on, what was set, and what became of it.

    Attributes:
        trace: of all of it; in a Profile it knows what kernels take in the batches that ran under torch's profiler.
        done: its batches.
        completions: in the order of the prompts.
        latency: of requests that arrive over time; None where all are there from the start.
    """

    device: Machine
    options: Options
    metrics: Metrics
    trace: Trace
    done: list[BatchDone] = field(repr=False)
    completions: list[Completion] = field(repr=False)
    latency: Latency | None

    @property
    def step(self) -> float:
        """Seconds by which runs are compared: of a decode step, or of the whole if no such come in a row."""
        step = self.metrics.ms_per_decode_step
        return self.metrics.seconds if step is None else step / 1e3


@dataclass(frozen=True, kw_only=True)
class Profile(Run):
    """One chapter on one workload, and beside the first chapter of a comparison: of its runs the one that was kept.

    Attributes:
        chapter: what it is called.
        typical: what its typical decodes have in common; None if the workload has no batches of decodes in a row.
        kernel_trace: what torch's profiler wrote, JSON in Chrome's format; None without it.
        run_steps: seconds of a step (Run.step) in each of the runs.
        speedup: of a decode step over the first chapter's, by the GPU's clock; None without decodes.
        same_tokens: share of the generated tokens, 0 to 1, that are the first chapter's, place by place.
    """

    chapter: str
    typical: Typical | None
    kernel_trace: str | None
    run_steps: list[float]
    speedup: float | None
    same_tokens: float

    @property
    def breakdown(self) -> Breakdown | None:
        """Of a typical decode; None if that is not known."""
        return self.typical and self.typical.parts

    def shown(self, count: int) -> tuple[int, int]:
        """The first and the last of a few batches worth a look: those whose kernel times are known, else the middle."""
        known = {span.batch_number for span in self.trace.lane("compute") if span.kernels is not None}
        first, last = self.trace.middle(count)
        if not known or known.issuperset(range(first, last + 1)):
            return first, last
        return min(known), min(min(known) + count - 1, max(known))


def profile(
    chapter: str | type,
    workload: Workload,
    device: str | Machine = "auto",
    checkpoint: Checkpoint | None = None,
    options: Options | None = None,
    method: Method | None = None,
) -> Profile:
    """`compare` of one chapter."""
    (only,) = compare(workload, device, [chapter], checkpoint, options, method=method)
    return only


def compare(
    workload: Workload,
    device: str | Machine = "auto",
    chapters: Sequence[str | type] = (),
    checkpoint: Checkpoint | None = None,
    options: Options | None = None,
    progress: Callable[[str], None] = lambda text: None,
    method: Method | None = None,
) -> Iterator[Profile]:
    """Serves a workload with several chapters on one and the same loaded model, and yields a profile of each as it is
    done. On a GPU that is once all have been served at full speed.

    Args:
        workload: what to serve.
        device: as Session takes it.
        chapters: names, paths, or classes whose text is in linecache; all chapters of the course if there are none.
        checkpoint: the workload's model, if it is there already.
        options: as Session takes them; what the first chapter could not have is not tried again.
        progress: is told, of each chapter, which run it is and what Session tells, and when it is profiled.
        method: how to measure.

    Raises:
        InputError: a request cannot be served, for the chapters would be compared on something else; or the device is
            "cpu", where host and device are one.
    """
    checkpoint, method = checkpoint or Checkpoint(workload.model), method or Method()
    named = [each if isinstance(each, type) else chapter_path(each) for each in chapters]
    served = [(each, []) for each in named or chapter_paths().values()]
    first: Profile | None = None

    def run(chapter: Path | type, runs: list[Run]) -> None:
        number = f", run {len(runs) + 1} of {method.runs}:" if method.runs > 1 else ""
        told = lambda text: progress(f"{_called(chapter)}{number} {text}")  # noqa: E731
        runs.append(serve(workload, chapter, device, checkpoint, options, told))

    for chapter, runs in served:
        run(chapter, runs)
        options, simulated = runs[0].options, runs[0].device.kind == "sim"
        if simulated:  # whose second run would be as its first, and which has nothing to profile
            yield (done := look_into(runs, workload, chapter, checkpoint, method, None, first))
            first = first or done
    if simulated:
        return
    for chapter, runs in served * (method.runs - 1):  # in turns: a machine that becomes slower does so for all
        run(chapter, runs)
    with apart() if method.kernels else nullcontext() as process:  # not there while anything runs at full speed
        for chapter, runs in served:
            if method.kernels:
                progress(f"{_called(chapter)} under torch's profiler")
            yield (done := look_into(runs, workload, chapter, checkpoint, method, process, first))
            first = first or done


def serve(
    workload: Workload,
    chapter: str | Path | type,
    device: str | Machine,
    checkpoint: Checkpoint,
    options: Options | None,
    progress: Callable[[str], None] = lambda text: None,
) -> Run:
    """Serves a workload at full speed: the first part of `compare`, which says what is what, and what is raised."""
    if (device if isinstance(device, str) else device.kind) == "cpu":
        raise InputError("there is no profile of device 'cpu': host and device are one; use cuda or sim")
    engine = chapter if isinstance(chapter, type) else str(chapter)
    session = Session(workload.job(checkpoint.vocab_size), engine, checkpoint, device, options, trace=True)
    session.progress = progress
    if session.refused:
        raise InputError(next(iter(session.refused.values())))
    completions = session.serve()
    metrics, latency = Metrics.of(session), of_session(session)
    return Run(session.device, session.options, metrics, session.trace, session.done, completions, latency)


def look_into(
    runs: list[Run],
    workload: Workload,
    chapter: Path | type,
    checkpoint: Checkpoint,
    method: Method,
    process: Executor | None = None,
    first: Profile | None = None,
) -> Profile:
    """Says where the time of steps went: the second part of `compare`.

    Args:
        runs: of the chapter, at full speed; as many as the method says.
        process: to profile in; None to do without.
        first: what to compare it with; None for itself.
    """
    kept = sorted(runs, key=lambda run: run.step)[len(runs) // 2]
    trace, kernel_trace = kept.trace, None
    if process and typical_decodes(kept.done):
        some = sample(kept.done, method.batches)
        if checkpoint.ranks:  # each has found its own, and they can only run the same batches
            begin, end = checkpoint.ranks.exchange(f"{some.start} {some.stop}")[0].split()
            some = range(int(begin), int(end))
        kernel_trace = profiled(workload, chapter, some, kept.options, checkpoint.ranks, process)
        trace = with_kernels(trace, kernel_trace)
    typical, speedup, same = typical_of(trace), 1.0, 1.0
    if first:
        same = _same(first.completions, kept.completions)
        speedup = first.typical.step / typical.step if first.typical and typical else None
    return Profile(
        **vars(kept) | {"trace": trace},
        chapter=_called(chapter),
        typical=typical,
        kernel_trace=kernel_trace,
        run_steps=[run.step for run in runs],
        speedup=speedup,
        same_tokens=same,
    )


def entry(workload: Workload, profiles: Sequence[Profile]) -> dict:
    """What to store of a comparison, at least one profile: all of its figures, the machine, the date and the command. A
    JSON object that has the keys of metrics.COMPARISON."""
    chapters = [
        {
            "chapter": done.chapter,
            "figures": asdict(done.metrics),
            "step": done.typical and done.typical.step,
            "breakdown": done.breakdown and asdict(done.breakdown),
            "law": done.typical and asdict(done.typical.law),
            "speedup": done.speedup,
            "same_tokens": done.same_tokens,
            "run_steps": done.run_steps,
            **({"latency": stored(done.latency)} if done.latency else {}),
        }
        for done in profiles
    ]
    return {
        "command": command(),
        "environment": environment(profiles[0].device),
        "workload": {name: value for name, value in asdict(workload).items() if name != "lengths" or value},
        "dials": str(profiles[0].options),
        "chapters": chapters,
    }


def _called(chapter: Path | type) -> str:
    return chapter.__name__ if isinstance(chapter, type) else chapter.stem


def _same(ours: list[Completion], theirs: list[Completion]) -> float:
    """Share of tokens that agree, place by place; a token that only one side has does not."""
    pairs = [(a.tokens, b.tokens) for a, b in zip(ours, theirs, strict=True)]
    agree = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return agree / sum(max(len(a), len(b)) for a, b in pairs)
