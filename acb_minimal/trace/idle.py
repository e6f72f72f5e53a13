"""Does an engine overlap? Says of a trace of any engine when its GPU idles, and what the host does meanwhile.

It reads what torch's profiler writes (vLLM, SGLang, transformers or an engine of your own under it), and what `Trace`
writes. How gaps are told apart is in gaps.py, how steps are in launched.py and steps.py, and what is made of both in
verdict.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from ..errors import InputError
from . import batches, host, launched, verdict
from .batches import Batches
from .chrome import ChromeFile
from .gaps import Gpu, Idle, gpus
from .host import Doing
from .spans import LANES, Trace
from .steps import SORTS, Sort, Step, Typical, steady, steps_of
from .torch_profiler import DEVICE, HOST, Recording
from .verdict import Verdict


@dataclass(frozen=True)
class Report:
    """How one GPU spent its time; `kernel_seconds` and all gaps add up to `window`.

    Attributes:
        name: of the GPU, in the trace.
        window: seconds from the start of its first work to the end of its last.
        kernels: how many there are, memsets and copies within devices included; launches, in a trace of ours.
        kernel_seconds: with any of them running; in a trace of ours that lacks kernel times, with a batch on the GPU.
        bubbles: gaps between batches.
        launch_gaps: gaps inside batches; None if the trace cannot show them.
        device_gaps: gaps between kernels that were queued.
        told_apart: by what batches were.
        assumed: share of kernels, 0 to 1, whose launch is not in the trace.
        sorts: how many steps of each sort there are, and the median of their lengths in seconds.
        typical: the typical steady step; None if there are none.
        doing: what the host did while the GPU waited for it, in the steady steps.
        whole: whether no kernels are missing in the trace; else all but the refusals is wrong.
        refusals: why there is no verdict.
        verdict: on the steady steps; None if there are refusals.
        source: what ran on the GPU; a Trace, in a trace of ours.
        found: its batches.
        steps: all of them.
        steady: those that the verdict is about.
    """

    name: str
    window: float
    kernels: int
    kernel_seconds: float
    bubbles: Idle
    launch_gaps: Idle | None
    device_gaps: Idle
    told_apart: str
    assumed: float
    sorts: dict[Sort, tuple[int, float]]
    typical: Typical | None
    doing: list[Doing]
    whole: bool
    refusals: list[str]
    verdict: Verdict | None
    source: Gpu | Trace = field(repr=False, compare=False)
    found: Batches = field(repr=False, compare=False)
    steps: list[Step] = field(repr=False, compare=False)
    steady: list[Step] = field(repr=False, compare=False)

    @property
    def busy(self) -> float:
        """Share of the window, 0 to 1."""
        return self.kernel_seconds / self.window if self.window else 1.0

    @property
    def batches(self) -> int | None:
        """How many were told apart; None if nothing tells them apart."""
        return None if self.told_apart == "nothing" else len(self.found.batches)


def read(path: Path, progress: Callable[[float], None] = lambda share: None) -> Recording | Trace:
    """A trace, as JSON or gzipped JSON, whatever its name: {"traceEvents": list}, or a bare list of events.

    Args:
        progress: is told now and then which share of the file has been read, 0 to 1.

    Returns:
        A Trace if we wrote it, a Recording if torch's profiler did.

    Raises:
        InputError: there is no such file, it holds no trace, or nothing in it ran on a GPU.
    """
    file, ours = ChromeFile(path, progress), []

    def others() -> Iterator[dict]:
        for event in file.events():
            if event.get("cat") in (*LANES, "launch"):
                ours.append(event)
            else:
                yield event

    recording = Recording.of(others())
    if len(recording.rows(*DEVICE)):
        recording.header.update(file.header)
        return recording
    if any(event.get("cat") == "compute" for event in ours):
        try:
            return Trace.of_chrome({**file.header, "traceEvents": ours})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{str(path)!r} is not as `acb profile --trace` writes it: {error!r}") from error
    if len(recording.rows(*HOST)):
        raise InputError(f"{str(path)!r} has no GPU activity: was it recorded without ProfilerActivity.CUDA?")
    raise InputError(
        f"there is no trace of a GPU in {str(path)!r}: looked for events of category {', '.join(DEVICE)} (torch's "
        f"profiler) or {', '.join(LANES)} (acb profile --trace)"
    )


def analyse(
    trace: Recording | Trace, begin: float = 0.0, end: float = float("inf"), step: float | None = None
) -> list[Report]:
    """A report for each GPU in a trace.

    Args:
        trace: as `read` gives it.
        begin: seconds from the trace's first event: what ran on a GPU earlier is left out.
        end: likewise, later.
        step: seconds that a steady step takes without the profiler, if known.

    Raises:
        InputError: nothing ran on a GPU in that time.
    """
    if isinstance(trace, Trace):
        return [_of_ours(_part(trace, begin, end))]
    return [_of_gpu(gpu, step) for gpu in gpus(trace, begin, end)]


def as_json(report: Report) -> dict:
    """All figures of a report; times in seconds."""
    typical = report.typical
    figures = {
        name: value._asdict() if isinstance(value, Idle) else value
        for name in ("name", "window", "kernels", "kernel_seconds", "bubbles", "launch_gaps", "device_gaps", "batches",
                     "told_apart", "assumed", "whole", "refusals")
        for value in [getattr(report, name)]
    }  # fmt: skip
    figures["steps"] = {sort: {"count": count, "median": length} for sort, (count, length) in report.sorts.items()}
    figures["steady"] = typical and {
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
    found, idle = launched.of_gpu(gpu), [gpu.idle(kind) for kind in ("bubble", "launch gap", "device gap")]
    steps = steps_of(found)
    chosen = steady(steps)
    refusals = verdict.refusals(gpu, found, steps, chosen, step)
    typical = Typical.of(chosen) if chosen else None
    window = int(gpu.reach[-1] - gpu.work.start[0])
    return Report(
        name=gpu.name,
        window=window / 1e9,
        kernels=len(gpu.work.row),
        kernel_seconds=(window - int((gpu.gaps.end - gpu.gaps.start).sum())) / 1e9,
        bubbles=idle[0],
        launch_gaps=idle[1],
        device_gaps=idle[2],
        told_apart=gpu.told_apart,
        assumed=1 - float(gpu.work.known.mean()),
        sorts=_sorts(steps),
        typical=typical,
        doing=host.while_idle(gpu, found, chosen) if chosen else [],
        whole=not verdict.lost(gpu, found),
        refusals=refusals,
        verdict=None if refusals else verdict.verdict(typical, verdict.signs(gpu), checked=step is not None),
        source=gpu,
        found=found,
        steps=steps,
        steady=chosen,
    )


def _of_ours(trace: Trace) -> Report:
    """Of a trace of ours: batches have numbers, and nothing slowed it."""
    found, bubbles, windows = batches.of_trace(trace), trace.bubbles(), trace.batches()
    steps, compute = steps_of(found), trace.lane("compute")
    chosen = steady(steps)
    refusals = verdict.too_few(steps, chosen)
    window = max(end for _, end in windows.values()) - min(start for start, _ in windows.values())
    running, launch_gaps = window - sum(bubbles.values()), None
    between = sum(after > end for (_, end), (after, _) in pairwise(sorted(windows.values())))
    if all(span.kernels is not None for span in compute):
        idle = {number: end - start for number, (start, end) in windows.items()}
        for span in compute:
            idle[span.batch_number] -= span.kernels
        launch_gaps = Idle(sum(idle.values()), sum(seconds > 1e-9 for seconds in idle.values()))
        running -= launch_gaps.seconds
    typical = Typical.of(chosen, launch_gaps is not None) if chosen else None
    slots = {span.slot for span in trace.spans} - {None}
    return Report(
        name=trace.device or "GPU",
        window=window,
        kernels=len(compute),
        kernel_seconds=running,
        bubbles=Idle(sum(bubbles.values()), between),
        launch_gaps=launch_gaps,
        device_gaps=Idle(0.0, 0),
        told_apart="their numbers",
        assumed=0.0,
        sorts=_sorts(steps),
        typical=typical,
        doing=host.while_idle_in_ours(trace, found, chosen) if chosen else [],
        whole=True,
        refusals=refusals,
        verdict=None
        if refusals
        else verdict.verdict(typical, "it has two slots" if len(slots) > 1 else "", checked=True),
        source=trace,
        found=found,
        steps=steps,
        steady=chosen,
    )


def _part(trace: Trace, begin: float, end: float) -> Trace:
    """The batches that ran in that time, and the waits among them."""
    zero = min(span.start for span in trace.spans)
    numbers = [n for n, (start, _) in trace.batches().items() if begin <= start - zero < end]
    if not numbers:
        raise InputError(f"no batch runs in this trace from {begin:g} to {end:g} s")
    whole = len(numbers) == len(trace.batches())
    return trace if whole else trace.part(min(numbers), max(numbers))


def _sorts(steps: list[Step]) -> dict[Sort, tuple[int, float]]:
    lengths = {sort: [step.length for step in steps if step.sort == sort] for sort in SORTS}
    return {sort: (len(those), median(those) / 1e9) for sort, those in lengths.items() if those}
