"""Does an engine overlap? Says of a trace of any engine when its GPU idles, and what the host does meanwhile.

It reads what torch's profiler writes (vLLM, SGLang, transformers or an engine of your own under it), and what `Trace`
writes in its way. How gaps are told apart is in gaps.py, how steps are in batches.py and steps.py, and what is made of
both in verdict.py.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np

from ..errors import EngineError, InputError
from . import host, verdict
from .batches import communication, of_gpu
from .chrome import ChromeFile
from .gaps import Gpu, Idle, gpus
from .host import Doing
from .spans import Trace
from .steps import SORTS, Sort, Typical, typical_decodes
from .torch_profiler import CALLS, DEVICE, HOST, OLD, OTHERS, Recording
from .verdict import Verdict

LONGEST = 5  # gaps that are shown where there is no verdict


class Report:
    """How one GPU spent its time; `kernel_seconds` and all gaps add up to `window`.

    Attributes:
        gpu: what ran on it.
        name: of the GPU, in the trace.
        kernels: how many there are, memsets and copies within devices included; launches, in a trace of ours.
        found: its batches, and when the host waited and launched.
        steps: all of them; the first batch has none.
        chosen: the typical ones. What is before the first step is not known: a recording begins anywhere.
        about: what these are.
        typical: what they have in common; None if there are none.
    """

    def __init__(self, gpu: Gpu, step: float | None = None):
        """
        Args:
            step: seconds that a typical step takes without the profiler, if known.
        """
        self.gpu, self._step = gpu, step
        self.name, self.kernels, self.found = gpu.name, len(gpu.work.row), of_gpu(gpu)
        self.steps = self.found.steps[1:]
        self.chosen = [self.steps[place] for place in typical_decodes(self.steps)]
        self.about = "decodes" if self.found.decodes else "steps"
        if not self.chosen:  # in every step there are prompts
            alike = [step for step, before in zip(self.steps[1:], self.steps, strict=False) if step.sort == before.sort]
            self.chosen = [step for step in alike if step.sort == "prompt"]
            self.about = "steps with prompts"
        self.typical = Typical.of(self.chosen) if self.chosen else None

    @property
    def window(self) -> float:
        """Seconds from the start of its first work to the end of its last."""
        return int(self.gpu.reach[-1] - self.gpu.work.start[0]) / 1e9

    @property
    def kernel_seconds(self) -> float:
        """With any kernel running; with a batch on the GPU, where the trace cannot tell."""
        idle = self.gpu.idle_inside
        return self.window - self.gpu.gaps.seconds - (0.0 if idle is None else int(idle.sum()) / 1e9)

    @property
    def busy(self) -> float:
        """Share of the window, 0 to 1."""
        return self.kernel_seconds / self.window if self.window else 1.0

    @property
    def bubbles(self) -> Idle:
        """Gaps between batches."""
        return self.gpu.idle("bubble")

    @property
    def launch_gaps(self) -> Idle | None:
        """Gaps inside batches; None if the trace cannot tell."""
        return self.gpu.idle("launch gap")

    @property
    def kernel_gaps(self) -> Idle | None:
        """Gaps between kernels that were queued; None if the trace cannot tell."""
        return self.gpu.idle("kernel gap")

    @property
    def copies(self) -> Idle:
        """Gaps in which what was launched waits for a copy."""
        return self.gpu.idle("copy")

    @property
    def stalls(self) -> Idle:
        """Gaps in which what was launched waits for something that is not in the trace."""
        return self.gpu.idle("stall")

    @property
    def talk(self) -> tuple[float, float]:
        """Seconds in which a kernel talks to other GPUs, and of that without another kernel."""
        return tuple(each.seconds for each in communication(self.gpu))

    @property
    def graphs(self) -> int:
        """How many graphs are launched."""
        calls = np.unique(self.gpu.work.call[self.gpu.work.known])
        return int(self.gpu.recording.named("GraphLaunch", calls).sum())

    @property
    def covered(self) -> float:
        """Share of the window, 0 to 1, that the typical steps are."""
        return sum(step.length for step in self.chosen) / 1e9 / self.window if self.window else 0.0

    @property
    def bracket(self) -> bool:
        """Whether how much the profiler slowed the host is not known, but that it did."""
        return not self.gpu.numbered and self._step is None

    @cached_property
    def least(self) -> float:
        """How many times as long the host takes without the profiler as with it: at least, if that is not known."""
        if self.gpu.numbered or self.typical is None:
            return 1.0
        if self._step is not None:
            return self.typical.without_profiler.factor_for(self._step)
        return host.least(self.gpu, self.found, self.chosen)

    @property
    def longest(self) -> list[tuple[float, float, str, str]]:
        """The longest gaps, see host.longest."""
        return host.longest(self.gpu, LONGEST)

    @property
    def batches(self) -> int | None:
        """How many were told apart; None if nothing tells them apart."""
        return len(self.found.steps) if self.gpu.pieces.told else None

    @property
    def assumed(self) -> float:
        """Share of kernels, 0 to 1, whose launch is not in the trace."""
        return 1 - float(self.gpu.work.known.mean())

    @property
    def sorts(self) -> dict[Sort, tuple[int, float]]:
        """How many steps of each sort there are, and the median of their lengths in seconds."""
        lengths = {sort: [step.length for step in self.steps if step.sort == sort] for sort in SORTS}
        return {sort: (len(those), median(those) / 1e9) for sort, those in lengths.items() if those}

    @cached_property
    def doing(self) -> list[Doing]:
        """What the host did while the GPU waited for it, in the typical decodes."""
        return host.while_idle(self.gpu, self.found, self.chosen) if self.chosen else []

    @cached_property
    def lost(self) -> list[str]:
        """What is missing in the trace: if anything is, all but the refusals is wrong."""
        return verdict.lost(self.gpu, self.found)

    @cached_property
    def refusals(self) -> list[str]:
        """Why there is no verdict."""
        return verdict.refusals(self.gpu, self.lost, self.steps, self.typical, self._step)

    @cached_property
    def verdict(self) -> Verdict | None:
        """On the typical steps; None if there are refusals."""
        if self.refusals:
            return None
        return verdict.verdict(self.typical, verdict.signs(self.gpu), self.least, self.bracket, self.about)

    def figures(self) -> dict:
        """All figures, for JSON; times in seconds."""
        parts = {"bubbles": self.bubbles, "launch_gaps": self.launch_gaps, "kernel_gaps": self.kernel_gaps}
        parts |= {"copies": self.copies, "stalls": self.stalls}
        typical, law = self.typical, self.typical and self.typical.law
        return {
            "name": self.name,
            "window": self.window,
            "kernels": self.kernels,
            "kernel_seconds": self.kernel_seconds,
            **{name: idle and idle._asdict() for name, idle in parts.items()},
            "batches": self.batches,
            "graphs": self.graphs,
            "communication": self.talk,
            "told_apart": self.gpu.pieces.by,
            "assumed": self.assumed,
            "lost": self.lost,
            "steps": {sort: {"count": count, "median": length} for sort, (count, length) in self.sorts.items()},
            "about": self.about,
            "covered": self.covered,
            "host_takes": [self.least, 1.0],
            "typical": typical
            and asdict(typical)
            | {name: getattr(typical, name) for name in ("idle", "hidden", "as_graphs", "holds")}
            | {name: getattr(law, name) for name in ("synchronous", "asynchronous")},
            "host_while_idle": [doing._asdict() for doing in self.doing],
            "refusals": self.refusals,
            "verdict": self.verdict and asdict(self.verdict),
        }


def read(path: Path, progress: Callable[[float], None] = lambda share: None) -> Recording:
    """A trace, as JSON or gzipped JSON, whatever its name: {"traceEvents": list}, or a bare list of events.

    Args:
        progress: is told now and then which share of the file has been read, 0 to 1.

    Raises:
        InputError: there is no such file, it holds no trace, or nothing in it ran on a GPU.
    """
    file = ChromeFile(path, progress)
    try:
        recording = Recording.of(file.events())
    except InputError as error:
        raise InputError(str(error) if repr(str(path)) in str(error) else f"{str(path)!r}: {error}") from error
    recording.header.update(file.header)
    others = [OTHERS[begin] for begin in OTHERS for each in recording.other if each.startswith(begin)]
    if others and not len(recording.rows(*CALLS)):
        raise InputError(f"{str(path)!r} was recorded on {others[0]}: only traces of CUDA and ROCm can be read")
    if len(recording.rows(*DEVICE)):
        return recording
    if recording.other & set(OLD):
        raise InputError(f"{str(path)!r} is as torch up to 1.10 wrote traces: record it with a newer one")
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
    return [Report(gpu, step) for gpu in gpus(recording, begin, end)]


def typical_of(trace: Trace) -> Typical | None:
    """What the typical decodes of a run of ours have in common; None if it has no such.

    Raises:
        EngineError: one of its batches was never on the GPU.
    """
    if missing := trace.rows.keys() - trace.batches():
        raise EngineError(f"nothing was launched for batch {min(missing)}: what ran was for other batches")
    (gpu,) = gpus(Recording.of(trace.events()))
    return Report(gpu).typical
