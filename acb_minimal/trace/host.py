"""What the host did while the GPU waited for it: summed over steps, by the innermost of what was recorded."""

import re
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from .batches import Batches
from .gaps import Gpu
from .steps import Step
from .stretches import Stretches
from .torch_profiler import HOST

Phase = Literal["host", "launching", "waiting"]
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


def while_idle(gpu: Gpu, found: Batches, steps: list[Step]) -> list[Doing]:
    """By the thread that launches, in the bubbles and launch gaps of these steps; what took longest comes first."""
    idle = gpu.kind("bubble").joined(gpu.kind("launch gap")).shared(_spans(steps))
    if not idle.seconds:
        return []
    recording, rows = gpu.recording, gpu.recording.rows(*HOST)
    rows = rows[(recording.thread[rows] == gpu.thread) & ~recording.named("ProfilerStep#", rows)]
    rows = rows[(recording.start[rows] < idle.end[-1]) & (recording.end[rows] > idle.start[0])]
    rows = rows[np.lexsort((-recording.end[rows], recording.start[rows]))]
    frames = np.isin(rows, recording.rows("python_function")) & ~recording.named("built-in", rows)
    annotations = np.isin(rows, recording.rows("user_annotation"))
    start, end, inner, under = innermost(recording.start[rows], recording.end[rows], frames, annotations)
    names = [re.sub(r" at 0x[0-9a-f]+|\b\d+$", "", name) for name in recording.names]  # what differs from step to step
    inside = [names[name] for name in recording.name[rows[inner]].tolist()]
    within = ["" if row < 0 else names[recording.name[rows[row]]] for row in under.tolist()]
    return _sums(start, end, inside, within, idle, found, len(steps))


def innermost(
    start: np.ndarray, end: np.ndarray, frames: np.ndarray, annotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cuts one thread's time by the innermost event.

    Args:
        start: of each event, outer ones first. int64 [events].
        end: of each event. int64 [events].
        frames: which are functions in Python. bool [events].
        annotations: which are annotations. bool [events].

    Returns:
        Of each piece its start, its end, the innermost event, and the one around that which names it best: of a
        function in Python the annotation, of all else the nearest of either; -1 for none. int64 [pieces] each.
    """
    pieces: list[tuple[int, int, int, int]] = []
    # Of each: its end, itself, what names it; and what names those in it: the annotation, either.
    stack: list[tuple[int, int, int, int, int]] = []
    now = 0
    columns = zip(start.tolist(), end.tolist(), frames.tolist(), annotations.tolist(), strict=True)
    for event, (begins, ends, frame, annotation) in enumerate((*columns, (None, 0, False, False))):
        while stack and (begins is None or now < begins or stack[-1][0] <= begins):
            until, top, under, *_ = stack[-1]
            stop = until if begins is None else min(until, begins)
            if stop > now:
                pieces.append((now, stop, top, under))
                now = stop
            if until <= now:
                stack.pop()
        if begins is None:
            break
        now = begins
        *_, annotated, either = stack[-1] if stack else (-1, -1)
        stack.append(
            (
                ends,
                event,
                annotated if frame else either,
                event if annotation else annotated,
                event if annotation or frame else either,
            )
        )
    return tuple(np.array(pieces, dtype=np.int64).reshape(-1, 4).T)


def _sums(start, end, names: list[str], under: list[str], idle: Stretches, found: Batches, steps: int) -> list[Doing]:
    """Of one thread's pieces of time, by names and phase."""
    if not idle.seconds:
        return []
    begin, stop = int(idle.start[0]), int(idle.end[-1])
    launching = idle.shared(found.launching)
    waiting = idle.shared(found.waits)
    busy = launching.joined(waiting)
    rest = idle.shared(busy.outside(begin, stop))
    spent: Counter = Counter()
    for phase, stretches in (("host", rest), ("launching", launching), ("waiting", waiting)):
        lengths = stretches.between(start, end)
        some = np.flatnonzero(lengths)
        for piece, length in zip(some.tolist(), lengths[some].tolist(), strict=True):
            spent[names[piece], under[piece], phase] += length
        spent[NOTHING, "", phase] = round(1e9 * stretches.seconds) - int(lengths.sum())
    return [Doing(*what, length / 1e9 / steps) for what, length in spent.most_common() if length > 0]


def _spans(steps: list[Step]) -> Stretches:
    end = np.array([step.end for step in steps], dtype=np.int64)
    return Stretches.union(end - np.array([step.length for step in steps], dtype=np.int64), end)
