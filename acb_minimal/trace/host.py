"""What the host did while the GPU waited for it: summed over steps, by the innermost of what was recorded."""

import re
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from .batch_times import Batches
from .gaps import Gpu
from .steps import Step
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


def while_idle(gpu: Gpu, found: Batches, steps: list[Step]) -> list[Doing]:
    """By the thread whose launch the GPU waited for, in the bubbles and launch gaps of these steps, or of a sample of
    them; what took longest comes first."""
    steps = steps[:: -(-len(steps) // SAMPLE)]
    idle = gpu.kind("bubble").joined(gpu.kind("launch gap")).shared(_spans(steps))
    threads, spent = gpu.waited_for(idle), Counter()
    for thread in np.unique(threads).tolist():
        own = Stretches(idle.start[threads == thread], idle.end[threads == thread])
        start, end, inside, within = _named(gpu, own, thread)
        spent += _sums(start, end, inside, within, own, found)
    return [Doing(*what, length / 1e9 / len(steps)) for what, length in spent.most_common() if length > 0]


def least(gpu: Gpu, found: Batches, steps: list[Step]) -> float:
    """How many times as long the host takes for L and H without the profiler, at least: what it adds to the events of
    these steps at most is taken off."""
    recording, work = gpu.recording, sum(step.launching + step.host for step in steps)
    times = _spans(steps).shared(found.waits.outside(int(gpu.work.start[0]), int(gpu.reach[-1])))
    rows = recording.rows(*HOST)
    rows = rows[np.isin(recording.thread[rows], gpu.threads)]
    events = int((times.between(recording.start[rows], recording.start[rows] + 1) > 0).sum())
    kernels = sum(step.count or 0 for step in steps)
    return max(1 - 1e9 * (EVENT * events + KERNEL * kernels) / work, LEAST) if work else 1.0


def longest(gpu: Gpu, count: int) -> list[tuple[float, float, str, str]]:
    """The longest gaps: when each began, in seconds from the first event, and its length; what the host did most in
    it, and what the GPU did."""
    places = np.sort(np.argsort(gpu.gaps.end - gpu.gaps.start, kind="stable")[::-1][:count])
    gaps, rows = Stretches(gpu.gaps.start[places], gpu.gaps.end[places]), []
    threads = gpu.waited_for(gaps)
    for begin, end, thread in zip(gaps.start.tolist(), gaps.end.tolist(), threads.tolist(), strict=True):
        one = Stretches(np.array([begin]), np.array([end]))
        starts, ends, inside, within = _named(gpu, one, thread)
        lengths = Stretches.between(one, starts, ends) if len(starts) else np.zeros(1)
        rest = end - begin - int(lengths.sum())
        most = int(lengths.argmax())
        name = NOTHING
        if len(starts) and lengths[most] >= rest:
            name = f"{inside[most]}, in {within[most]}" if within[most] else inside[most]
        copies = gpu.copies.between(np.array([begin]), np.array([end]))[0]
        rows.append((begin / 1e9, (end - begin) / 1e9, name, "copies" if 2 * copies > end - begin else "nothing"))
    return rows


def _named(gpu: Gpu, idle: Stretches, thread: int) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """A thread's time around some stretches, cut by the innermost event: start and end of each piece, the name of that
    event and of what is around it (see `innermost`)."""
    recording, rows = gpu.recording, gpu.recording.rows(*HOST)
    rows = rows[(recording.thread[rows] == thread) & ~recording.named("ProfilerStep#", rows)]
    rows = rows[idle.between(recording.start[rows], recording.end[rows]) > 0]
    rows = rows[np.lexsort((-recording.end[rows], recording.start[rows]))]
    frames = np.isin(rows, recording.rows("python_function")) & ~recording.named("built-in", rows)
    annotations = np.isin(rows, recording.rows("user_annotation"))
    start, end, inner, under = innermost(recording.start[rows], recording.end[rows], frames, annotations)
    names = [re.sub(r" at 0x[0-9a-f]+|\b\d+$", "", name) for name in recording.names]  # what differs from step to step
    inside = [names[name] for name in recording.name[rows[inner]].tolist()]
    within = ["" if row < 0 else names[recording.name[rows[row]]] for row in under.tolist()]
    return start, end, inside, within


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
    last = max(end.tolist(), default=0), 0, False, False  # no event: all are over by then
    for event, (begins, ends, frame, annotation) in enumerate((*columns, last)):
        while stack and (now < begins or stack[-1][0] <= begins):
            until, top, under, *_ = stack[-1]
            stop = min(until, begins)
            if stop > now:
                pieces.append((now, stop, top, under))
                now = stop
            if until <= now:
                stack.pop()
        now = begins
        *_, annotated, either = stack[-1] if stack else (-1, -1)
        names = event if annotation else annotated, event if annotation or frame else either
        stack.append((ends, event, annotated if frame else either, *names))
    return tuple(np.array(pieces, dtype=np.int64).reshape(-1, 4).T)


def _sums(start, end, names: list[str], under: list[str], idle: Stretches, found: Batches) -> Counter:
    """Nanoseconds of one thread's pieces of time, by names and phase."""
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
    return spent


def _spans(steps: list[Step]) -> Stretches:
    end = np.array([step.end for step in steps], dtype=np.int64)
    return Stretches.union(end - np.array([step.length for step in steps], dtype=np.int64), end)
