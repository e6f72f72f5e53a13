"""What the host did while the GPU waited for it: summed over steps, by the innermost of what was recorded."""

import re
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from .batches import Batches
from .gaps import Gpu
from .stretches import Stretches
from .torch_profiler import HOST

Phase = Literal["host", "launching", "waiting"]
# Seconds that torch's profiler costs a host at most, for each event that it records of it and for each kernel, as
# seen on an H200: a test holds what is predicted with them to the steps of tests/data/recorded.json without a profiler.
EVENT, KERNEL = 4e-6, 2.5e-6
SAMPLE = 50  # steps in which what the host did is looked up: it takes time and memory
LEAST = 0.2  # of the host's time is left in any case: a host is not only its events
NOTHING = "(nothing recorded: Python, or another process)"


class Doing(NamedTuple):
    """Something that the host did while the GPU waited.

    Attributes:
        name: of the innermost event.
        under: the annotation or the function in Python in which it was done; "" if there is none in the trace.
        phase: which of the host's times that was.
        seconds: a step, on average.
    """

    name: str
    under: str
    phase: Phase
    seconds: float


def while_idle(gpu: Gpu, found: Batches, steps: np.recarray) -> list[Doing]:
    """By the thread whose launch the GPU waited for, in the bubbles and launch gaps of these steps, or of a sample of
    them; what took longest comes first."""
    steps = steps[:: -(-len(steps) // SAMPLE)]
    spans = Stretches.union(steps.end - steps.length, steps.end)
    idle = gpu.parts["bubble"].joined(gpu.parts["launch gap"]).shared(spans)
    rest = found.launching.joined(found.waits).outside(*gpu.window)
    phases: dict[Phase, Stretches] = {"host": rest, "launching": found.launching, "waiting": found.waits}
    threads, spent = gpu.waited_for(idle), Counter()
    for thread in np.unique(threads).tolist():
        own = Stretches(idle.start[threads == thread], idle.end[threads == thread])
        pieces = _named(gpu, own, thread)
        for phase, when in phases.items():
            for what, length in _spent(pieces, own.shared(when)).items():
                spent[*what, phase] += length
    return [Doing(*what, length / 1e9 / len(steps)) for what, length in spent.most_common() if length > 0]


def least(gpu: Gpu, found: Batches, steps: np.recarray) -> float:
    """How many times as long the host takes for L and H without the profiler, at least: what it adds to the events of
    these steps at most is taken off."""
    recording, work = gpu.recording, int((steps.launching + steps.host).sum())
    times = Stretches.union(steps.end - steps.length, steps.end).shared(found.waits.outside(*gpu.window))
    begins = recording.start[gpu.own(recording.rows(*HOST))]
    events, kernels = int(times.between(begins, begins + 1).sum()), int(np.maximum(steps.count, 0).sum())
    return max(1 - 1e9 * (EVENT * events + KERNEL * kernels) / work, LEAST) if work else 1.0


def longest(gpu: Gpu, count: int) -> list[tuple[float, float, str, str]]:
    """The longest gaps: when each began, in seconds from the first event, and its length; what the host did most in
    it, and what the GPU did."""
    length, rows = gpu.gaps.end - gpu.gaps.start, []
    for place in sorted(np.argsort(length, kind="stable")[::-1][:count].tolist()):
        gap = Stretches(gpu.gaps.start[[place]], gpu.gaps.end[[place]])
        start, end, names = _named(gpu, gap, gpu.waited_for(gap)[0])
        lengths = gap.between(start, end).tolist()
        lengths.append(length[place] - sum(lengths))
        name, under = [*names, (NOTHING, "")][int(np.argmax(lengths))]
        copies = 2 * gpu.copies.between(gap.start, gap.end)[0] > length[place]
        did = f"{name}, in {under}" if under else name
        rows.append((gap.start[0] / 1e9, gap.seconds, did, "copies" if copies else "nothing"))
    return rows


def _spent(pieces: tuple, idle: Stretches) -> Counter:
    """Nanoseconds of these stretches, by what `_named` says of them."""
    start, end, names = pieces
    lengths, spent = idle.between(start, end), Counter()
    for piece in np.flatnonzero(lengths).tolist():
        spent[names[piece]] += int(lengths[piece])
    spent[NOTHING, ""] = round(1e9 * idle.seconds) - int(lengths.sum())
    return spent


def _named(gpu: Gpu, idle: Stretches, thread: int) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """A thread's time around some stretches, cut by the innermost event: start and end of each piece, the name of that
    event and of what is around it (see `_innermost`)."""
    recording, rows = gpu.recording, gpu.recording.rows(*HOST)
    rows = rows[(recording.thread[rows] == thread) & ~recording.named("ProfilerStep#", rows)]
    rows = rows[idle.between(recording.start[rows], recording.end[rows]) > 0]
    rows = rows[np.lexsort((-recording.end[rows], recording.start[rows]))]
    frames = np.isin(rows, recording.rows("python_function")) & ~recording.named("built-in", rows)
    annotations = np.isin(rows, recording.rows("user_annotation"))
    start, end, inner, under = _innermost(recording.start[rows], recording.end[rows], frames, annotations)
    # A name goes without what differs from step to step. The last stands for nothing.
    names = [re.sub(r" at 0x[0-9a-f]+|\b\d+$", "", recording.text(row)) for row in rows.tolist()] + [""]
    return start, end, [(names[event], names[around]) for event, around in zip(inner, under, strict=True)]


def _innermost(
    start: np.ndarray, end: np.ndarray, frames: np.ndarray, annotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cuts one thread's time by the innermost event.

    Args:
        start, end: of each event, outer ones first. int64 [events].
        frames, annotations: which are functions in Python, and which annotations. bool [events].

    Returns:
        Of each piece its start, its end, the innermost event, and the one around that which names it best: of a
        function in Python the annotation, of all else the nearest of either; -1 for none. int64 [pieces] each.
    """
    edges = np.unique(np.append(start, end))
    inner, annotated, either = (np.full(len(edges), -1) for _ in range(3))  # from each edge to the next; -1: none
    under, first, last = np.full(len(start), -1), np.searchsorted(edges, start), np.searchsorted(edges, end)
    for event, (begin, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):  # over those around it
        under[event] = (annotated if frames[event] else either)[begin]
        inner[begin:stop] = event
        if annotations[event]:
            annotated[begin:stop] = event
        if annotations[event] or frames[event]:
            either[begin:stop] = event
    opens = np.flatnonzero(np.append(True, np.diff(inner) != 0)[: len(edges)])
    pieces = opens[inner[opens] >= 0]  # the last edge opens no piece: nothing goes on behind it
    after = opens[np.searchsorted(opens, pieces) + 1]
    return edges[pieces], edges[after], inner[pieces], under[inner[pieces]]
