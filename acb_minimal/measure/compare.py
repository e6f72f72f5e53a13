"""All chapters on one workload, side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..run.checkpoint import Checkpoint
from ..run.engines import chapter_path, chapter_paths
from ..run.options import Options
from ..run.session import Completion
from ..run.workload import Workload
from .kernel_profile import apart
from .profile import Method, Profile, Run, look_into, serve


@dataclass(frozen=True)
class Comparison:
    """One chapter's profile beside the first one's.

    Attributes:
        profile: of this chapter.
        speed_up: new tokens per second over the first chapter's.
        same_tokens: share of the generated tokens, 0 to 1, that are the first chapter's, place by place.
    """

    profile: Profile
    speed_up: float
    same_tokens: float


def compare(
    workload: Workload,
    device: str = "auto",
    chapters: Sequence[str] = (),
    checkpoint: Checkpoint | None = None,
    options: Options | None = None,
    progress: Callable[[str], None] = lambda text: None,
    method: Method | None = None,
) -> Iterator[Comparison]:
    """Profiles a workload in several chapters on one and the same loaded model, and yields each as it is done. On a GPU
    that is once all have been served at full speed.

    Args:
        workload: what to serve.
        device: as Session takes it.
        chapters: names or paths; all chapters of the course if there are none.
        checkpoint: the workload's model, if it is there already.
        options: as Session takes them; what the first chapter could not have is not tried again.
        progress: is told, of each chapter, which run it is and what Session tells, and when it is profiled.
        method: as in `profile`, but for the process: all chapters are profiled in the same one.

    Raises:
        InputError: a request cannot be served; the chapters would be compared on something else.
    """
    checkpoint, method = checkpoint or Checkpoint(workload.model), method or Method()
    paths = [chapter_path(name) for name in chapters] or list(chapter_paths().values())
    served: list[tuple[Path, list[Run]]] = [(path, []) for path in paths]
    first: Profile | None = None

    def run(path: Path, number: int) -> Run:
        which = f"{path.stem}, run {number} of {method.runs}:" if method.runs > 1 else path.stem
        return serve(workload, str(path), device, checkpoint, options, lambda text: progress(f"{which} {text}"))

    def compared(path: Path, runs: list[Run]) -> Comparison:
        nonlocal first
        done = look_into(runs, workload, str(path), checkpoint, path.stem, method)
        first = first or done
        return beside(first, done)

    for path, runs in served:
        runs.append(run(path, 1))
        options, kind = runs[0].options, runs[0].device.kind
        if kind == "sim":  # whose second run would be as its first, and which has nothing to profile
            yield compared(path, runs)
    if kind == "sim":
        return
    for path, runs in served * (method.runs - 1):  # in turns: a machine that becomes slower does so for all
        runs.append(run(path, len(runs) + 1))
    with apart() as process:  # which is not there while anything runs at full speed
        method = replace(method, process=process)
        for path, runs in served:
            if method.kernels:
                progress(f"{path.stem} under torch's profiler")
            yield compared(path, runs)


def beside(first: Profile, done: Profile) -> Comparison:
    """A profile beside the first one's, of the same workload."""
    speed_up = done.figures.tokens_per_second / first.figures.tokens_per_second
    return Comparison(done, speed_up, _same(first.completions, done.completions))


def _same(ours: list[Completion], theirs: list[Completion]) -> float:
    """Share of tokens that agree, place by place; a token that only one side has does not."""
    pairs = [(a.tokens, b.tokens) for a, b in zip(ours, theirs, strict=True)]
    agree = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return agree / sum(max(len(a), len(b)) for a, b in pairs)
