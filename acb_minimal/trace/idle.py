"""Does an engine overlap? Says of a trace of any engine when its GPU idles, and what the host does meanwhile.

It reads what torch's profiler writes (vLLM, SGLang, transformers or an engine of your own under it), and what `Trace`
writes in its way. How gaps are told apart is in gaps.py, how batches are in segmentation.py, what a step is in
batches.py and steps.py, and what is made of all that in verdict.py.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import EngineError, InputError
from . import host, verdict
from .batches import Batches, communication, of_gpu
from .chrome import read_events
from .gaps import KINDS, Gpu, gpus
from .spans import Trace
from .steps import Typical, typical_decodes
from .torch_profiler import CALLS, DEVICE, HOST, Recording

OTHERS = ("mtia", "xpu", "hpu", "privateuse1")  # what categories of other devices begin with


class Report:
    """How one GPU spent its time; `kernel_seconds` and all gaps add up to `window`.

    Attributes:
        gpu: what ran on it.
        name: of the GPU, in the trace.
        kernels: how many there are, memsets and copies within devices included; launches, in a trace of ours.
        window: seconds from the start of its first work to the end of its last.
        bubbles, launch_gaps, kernel_gaps, copies, stalls: gaps, by what they are (gaps.py); None if the trace cannot
            tell.
        kernel_seconds: with any kernel running; with a batch on the GPU, where the trace cannot tell.
        talk: seconds in which a kernel talks to other GPUs, and of that without another kernel.
        graphs: how many are launched.
        assumed: share of kernels, 0 to 1, whose launch is not in the trace.
        found: its batches, and when the host waited and launched.
        batches: how many were told apart; None if nothing tells them apart.
        steps: all of them, as steps.py has them; the first batch has none.
        sorts: how many steps of each kind there are, and the median of their lengths in seconds.
        chosen: the typical ones. What is before the first step is not known: a recording begins anywhere.
        about: what these are.
        typical: what they have in common; None if there are none.
        covered: share of the window, 0 to 1, that they are.
    """

    def __init__(self, gpu: Gpu, step: float | None = None):
        """`step`: seconds that a typical step takes without the profiler, if known."""
        self.gpu, self._step = gpu, step
        self.name, self.kernels, self.found = gpu.name, len(gpu.work.row), of_gpu(gpu)
        self.window = (gpu.window[1] - gpu.window[0]) / 1e9
        self.bubbles, self.launch_gaps, self.kernel_gaps, self.copies, self.stalls = map(gpu.idle, KINDS)
        inside = gpu.idle_inside
        self.kernel_seconds = self.window - gpu.gaps.seconds - (0.0 if inside is None else int(inside.sum()) / 1e9)
        self.talk = tuple(each.seconds for each in communication(gpu))
        launches = np.unique(gpu.work.call[gpu.work.known])
        self.graphs = int(gpu.recording.named("GraphLaunch", launches).sum())
        self.assumed = 1 - float(gpu.work.known.mean())
        self.batches = None if gpu.segments.by == "nothing" else len(self.found.steps)
        self.steps = self.found.steps[1:]
        lengths = {kind: self.steps.length[self.steps.kind == kind] for kind in ("decode", "prompt", "set-up")}
        self.sorts = {kind: (len(some), float(np.median(some)) / 1e9) for kind, some in lengths.items() if len(some)}
        self.chosen, self.about = _typical_steps(self.found)
        self.typical = Typical.of(self.chosen) if len(self.chosen) else None
        self.covered = int(self.chosen.length.sum()) / 1e9 / self.window if self.window else 0.0

    @cached_property
    def least(self) -> float:
        """How many times as long the host takes without the profiler as with it: at least, if that is not known."""
        if self.gpu.numbered or self.typical is None:
            return 1.0
        if self._step is not None:
            return self.typical.without_profiler.factor_for(self._step)
        return host.least(self.gpu, self.found, self.chosen)

    @cached_property
    def doing(self) -> list[host.Doing]:
        """What the host did while the GPU waited for it, in the typical decodes."""
        return host.while_idle(self.gpu, self.found, self.chosen) if self.typical else []

    @cached_property
    def lost(self) -> list[str]:
        """What is missing in the trace: if anything is, all but the refusals is wrong."""
        return verdict.lost(self.gpu, self.found)

    @cached_property
    def refusals(self) -> list[str]:
        """Why there is no verdict."""
        return self.lost or verdict.refusals(self.gpu, self.steps, self.typical, self._step)

    @cached_property
    def verdict(self) -> verdict.Verdict | None:
        """On the typical steps; None if there are refusals."""
        if self.refusals:
            return None
        bracket = not self.gpu.numbered and self._step is None  # the profiler slowed the host: by how much is not known
        return verdict.verdict(self.typical, verdict.signs(self.gpu), self.least, bracket, self.about)

    def figures(self) -> dict:
        """All figures, for JSON; times in seconds."""
        parts = ("bubbles", "launch_gaps", "kernel_gaps", "copies", "stalls")
        typical, law = self.typical, self.typical and self.typical.law
        return {
            **{name: getattr(self, name) for name in ("name", "window", "kernels", "kernel_seconds")},
            **{name: (idle := getattr(self, name)) and idle._asdict() for name in parts},
            "batches": self.batches,
            "graphs": self.graphs,
            "communication": self.talk,
            "told_apart": self.gpu.segments.by,
            "assumed": self.assumed,
            "lost": self.lost,
            "steps": {kind: {"count": count, "median": length} for kind, (count, length) in self.sorts.items()},
            "about": self.about,
            "covered": self.covered,
            "host_takes": [self.least, 1.0],
            "typical": typical
            and asdict(typical)
            | {name: getattr(typical, name) for name in ("idle", "hidden", "as_graphs", "holds")}
            | {name: getattr(law, name) for name in ("synchronous", "asynchronous")},
            "host_while_idle": [doing._asdict() for doing in self.doing],
            "refusals": self.refusals,
            "verdict": self.verdict and self.verdict._asdict(),
        }


def _typical_steps(found: Batches) -> tuple[np.recarray, str]:
    """The steps that stand for all, and what they are; if there are prompts in every one, those between their like."""
    steps = found.steps[1:]
    if chosen := typical_decodes(steps):
        return steps[chosen], "decodes" if found.decodes else "steps"
    prompts = steps.kind == "prompt"
    return steps[prompts & np.append(False, prompts[:-1])[: len(steps)]], "steps with prompts"


def read(path: Path, progress: Callable[[float], None] = lambda share: None) -> Recording:
    """A trace, as JSON or gzipped JSON, whatever its name: {"traceEvents": list}, or a bare list of events.

    Args:
        progress: is told now and then which share of the file has been read, 0 to 1.

    Raises:
        InputError: there is no such file, it holds no trace, or nothing in it ran on a GPU.
    """
    name, header = repr(str(path)), {}
    try:
        recording = Recording.of(read_events(path, header, progress))
    except InputError as error:
        raise InputError(str(error) if name in str(error) else f"{name}: {error}") from error
    recording.header.update(header)
    others = [begin for begin in OTHERS for each in recording.other if each.startswith(begin)]
    if others and not len(recording.rows(*CALLS)):
        raise InputError(f"{name} was recorded on {others[0].upper()}: only traces of CUDA and ROCm can be read")
    if len(recording.rows(*DEVICE)):
        return recording
    if len(recording.rows(*HOST)):
        raise InputError(f"{name} has no GPU activity: was it recorded without ProfilerActivity.CUDA?")
    raise InputError(f"there is no trace of a GPU in {name}: looked for events of category {', '.join(DEVICE)}")


def analyse(
    recording: Recording, begin: float = 0.0, end: float = float("inf"), step: float | None = None
) -> list[Report]:
    """A report for each GPU in a trace. See `gpus` for `begin` and `end`, and Report for `step`."""
    return [Report(gpu, step) for gpu in gpus(recording, begin, end)]


def typical_of(trace: Trace) -> Typical | None:
    """What the typical decodes of a run of ours have in common; None if it has no such.

    Raises:
        EngineError: one of its batches was never on the GPU.
    """
    if missing := trace.rows.keys() - trace.batches():
        raise EngineError(f"nothing was launched for batch {min(missing)}: what ran was for other batches")
    (gpu,) = gpus(Recording.of(trace.events()))
    chosen, _ = _typical_steps(of_gpu(gpu))
    return Typical.of(chosen) if len(chosen) else None
