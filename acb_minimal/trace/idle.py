"""Does an engine overlap? Says of a trace of any engine when its GPU idles, and what the host does meanwhile.

It reads what torch's profiler writes (vLLM, SGLang, transformers or an engine of your own under it), and what `Trace`
writes in its way. How gaps are told apart is in gaps.py, how steps are in batches.py and steps.py, and what is made of
both in verdict.py.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from ..errors import EngineError, InputError
from . import host, verdict
from .batches import Batches, of_gpu
from .chrome import ChromeFile
from .gaps import KINDS, Gpu, Idle, gpus
from .host import Doing
from .spans import Trace
from .steps import SORTS, Sort, Step, Typical, steps_of, typical_steps
from .torch_profiler import DEVICE, HOST, Recording
from .verdict import Verdict


@dataclass(frozen=True)
class Report:
    """How one GPU spent its time; `kernel_seconds` and all gaps add up to `window`.

    Attributes:
        name: of the GPU, in the trace.
        window: seconds from the start of its first work to the end of its last.
        kernels: how many there are, memsets and copies within devices included; launches, in a trace of ours.
        kernel_seconds: with any of them running; with a batch on the GPU, where the trace cannot tell.
        bubbles: gaps between batches.
        launch_gaps: gaps inside batches; None if the trace cannot tell.
        kernel_gaps: gaps between kernels that were queued; likewise.
        told_apart: by what batches were.
        assumed: share of kernels, 0 to 1, whose launch is not in the trace.
        sorts: how many steps of each sort there are, and the median of their lengths in seconds.
        typical: what the typical decodes have in common; None if there are none.
        doing: what the host did while the GPU waited for it, in these.
        whole: whether no kernels are missing in the trace; else all but the refusals is wrong.
        refusals: why there is no verdict.
        verdict: on the typical decodes; None if there are refusals.
        gpu: what ran on it.
        found: its batches.
        steps: all of them.
        chosen: those of the typical decodes.
    """

    name: str
    window: float
    kernels: int
    kernel_seconds: float
    bubbles: Idle
    launch_gaps: Idle | None
    kernel_gaps: Idle | None
    told_apart: str
    assumed: float
    sorts: dict[Sort, tuple[int, float]]
    typical: Typical | None
    doing: list[Doing]
    whole: bool
    refusals: list[str]
    verdict: Verdict | None
    gpu: Gpu = field(repr=False, compare=False)
    found: Batches = field(repr=False, compare=False)
    steps: list[Step] = field(repr=False, compare=False)
    chosen: list[Step] = field(repr=False, compare=False)

    @property
    def busy(self) -> float:
        """Share of the window, 0 to 1."""
        return self.kernel_seconds / self.window if self.window else 1.0

    @property
    def batches(self) -> int | None:
        """How many were told apart; None if nothing tells them apart."""
        return None if self.told_apart == "nothing" else len(self.found.batches)


def read(path: Path, progress: Callable[[float], None] = lambda share: None) -> Recording:
    """A trace, as JSON or gzipped JSON, whatever its name: {"traceEvents": list}, or a bare list of events.

    Args:
        progress: is told now and then which share of the file has been read, 0 to 1.

    Raises:
        InputError: there is no such file, it holds no trace, or nothing in it ran on a GPU.
    """
    file = ChromeFile(path, progress)
    recording = Recording.of(file.events())
    recording.header.update(file.header)
    if len(recording.rows(*DEVICE)):
        return recording
    if len(recording.rows(*HOST)):
        raise InputError(f"{str(path)!r} has no GPU activity: was it recorded without ProfilerActivity.CUDA?")
    raise InputError(f"there is no trace of a GPU in {str(path)!r}: looked for events of category {', '.join(DEVICE)}")


def analyse(
    recording: Recording, begin: float = 0.0, end: float = float("inf"), step: float | None = None
) -> list[Report]:
    """A report for each GPU in a trace.

    Args:
        recording: as `read` gives it.
        begin: seconds from the trace's first event: what ran on a GPU earlier is left out.
        end: likewise, later.
        step: seconds that a typical step takes without the profiler, if known.

    Raises:
        InputError: nothing ran on a GPU in that time.
    """
    return [_of_gpu(gpu, step) for gpu in gpus(recording, begin, end)]


def typical_of(trace: Trace) -> Typical | None:
    """What the typical decodes of a run of ours have in common; None if it has no such.

    Raises:
        EngineError: one of its batches was never on the GPU.
    """
    if missing := trace.rows.keys() - trace.batches():
        raise EngineError(f"nothing was launched for batch {min(missing)}: what ran was for other batches")
    (gpu,) = gpus(Recording.of(trace.events()))
    chosen = typical_steps(steps_of(of_gpu(gpu)))
    return Typical.of(chosen) if chosen else None


def as_json(report: Report) -> dict:
    """All figures of a report; times in seconds."""
    typical = report.typical
    figures = {
        name: value._asdict() if isinstance(value, Idle) else value
        for name in ("name", "window", "kernels", "kernel_seconds", "bubbles", "launch_gaps", "kernel_gaps", "batches",
                     "told_apart", "assumed", "whole", "refusals")
        for value in [getattr(report, name)]
    }  # fmt: skip
    figures["steps"] = {sort: {"count": count, "median": length} for sort, (count, length) in report.sorts.items()}
    figures["typical"] = typical and {
        **asdict(typical),
        "idle": typical.idle,
        "hidden": typical.hidden,
        "synchronous": typical.law.synchronous,
        "asynchronous": typical.law.asynchronous,
        "graphs": typical.as_graphs,
        "holds": typical.holds,
    }
    figures["host_while_idle"] = [doing._asdict() for doing in report.doing]
    figures["verdict"] = report.verdict and asdict(report.verdict)
    return figures


def _of_gpu(gpu: Gpu, step: float | None) -> Report:
    found = of_gpu(gpu)
    bubbles, launch_gaps, kernel_gaps = (gpu.idle(kind) for kind in KINDS)
    steps = steps_of(found)
    chosen = typical_steps(steps)
    refusals = verdict.refusals(gpu, found, steps, chosen, step)
    typical = Typical.of(chosen) if chosen else None
    window = int(gpu.reach[-1] - gpu.work.start[0])
    running = window - int((gpu.gaps.end - gpu.gaps.start).sum())
    if gpu.idle_inside is not None:
        running -= int(gpu.idle_inside.sum())
    checked = gpu.numbered or step is not None
    return Report(
        name=gpu.name,
        window=window / 1e9,
        kernels=len(gpu.work.row),
        kernel_seconds=running / 1e9,
        bubbles=bubbles,
        launch_gaps=launch_gaps,
        kernel_gaps=kernel_gaps,
        told_apart=gpu.told_apart,
        assumed=1 - float(gpu.work.known.mean()),
        sorts=_sorts(steps),
        typical=typical,
        doing=host.while_idle(gpu, found, chosen) if chosen else [],
        whole=not verdict.lost(gpu, found),
        refusals=refusals,
        verdict=None if refusals else verdict.verdict(typical, verdict.signs(gpu), checked),
        gpu=gpu,
        found=found,
        steps=steps,
        chosen=chosen,
    )


def _sorts(steps: list[Step]) -> dict[Sort, tuple[int, float]]:
    lengths = {sort: [step.length for step in steps if step.sort == sort] for sort in SORTS}
    return {sort: (len(those), median(those) / 1e9) for sort, those in lengths.items() if those}
