"""What was found in a trace, where it can be seen: as tracks in the trace itself, or as spans for a timeline."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from .chrome import with_events
from .gaps import KINDS
from .idle import Report
from .spans import Lane, Trace
from .stretches import Stretches
from .torch_profiler import Recording

SHOWN = 4  # steps in a timeline


def annotate(source: Path, target: Path, recording: Recording, reports: list[Report]) -> None:
    """Writes a trace of torch's profiler again, with tracks for Perfetto: steps, bubbles, launch gaps, of each GPU.

    Args:
        source: the trace, as JSON or gzipped JSON.
        target: where to; gzipped if its name ends in .gz.
        recording: what was read from `source`.
        reports: what was found in it.
    """
    events = [event for number, report in enumerate(reports) for event in _tracks(recording.zero, report, number)]
    with_events(source, target, events)


def _tracks(zero: float, report: Report, number: int) -> list[dict]:
    process, steps = f"acb idle {number}", report.steps
    tracks = {"steps": [(f"{each.kind} {each.number}", each.end - each.length, each.end) for each in steps]}
    tracks |= {f"{kind}s": [(kind, *edges) for edges in report.gpu.parts[kind].edges()] for kind in KINDS[:2]}
    events = [{"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"acb idle: {report.name}"}}]
    for thread, (name, shown) in enumerate(tracks.items()):
        place = {"pid": process, "tid": thread}
        events.append({"ph": "M", "name": "thread_name", **place, "args": {"name": name}})
        for label, start, end in shown:
            time = {"ts": zero + int(start) / 1e3, "dur": int(end - start) / 1e3}
            events.append({"ph": "X", "cat": "acb_idle", "name": label, **place, **time})
    return events


def timeline(report: Report) -> tuple[Trace, int, int]:
    """A few typical decodes from the middle, that follow one another, as spans, with the numbers of the first and the
    last. With them come their neighbours; in two slots by turns where batches are launched ahead.

    Raises:
        InputError: there are none, or something is missing in the trace.
    """
    if report.lost:
        raise InputError(f"nothing is drawn of {report.name}: {report.lost[0]}")
    numbers = report.chosen.number
    if not len(numbers):
        raise InputError(f"there are no typical decodes of {report.name} to draw")
    run = max(np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1), key=len)
    shown = run[max(len(run) - SHOWN, 0) // 2 :][:SHOWN]
    first, last = int(shown[0]), int(shown[-1])
    return _spans(report, first, last), first, last


def _spans(report: Report, first: int, last: int) -> Trace:
    gpu, found, trace, slots = report.gpu, report.found, Trace(report.name), "AB" if report.typical.ahead > 0.5 else "A"
    numbers = found.steps.number
    some = found.steps[(numbers >= first - 1) & (numbers <= last + 1)]

    def add(lane: Lane, name: str, stretches: Stretches, number: int | None = None, slotted: bool = True) -> None:
        slot = slots[number % len(slots)] if slotted and number is not None else None
        for start, end in stretches.edges():
            trace.add(lane, name, start / 1e9, end / 1e9, number, slot)

    begin, end = int(some.called[0]), int(max(some.end[-1], some.launched[-1]))
    rest = found.waits.joined(found.launching).outside(begin, end)
    add("CPU", "wait", found.waits.cut(begin, end))
    for batch, after in pairwise(some):
        add("CPU", "launch", found.launching.cut(batch.called, batch.launched), int(batch.number))
        add("CPU", "host", rest.cut(batch.called, after.called), int(after.number), slotted=False)
    for batch in some:
        number, parts = int(batch.number), {}
        start = batch.start
        if batch.known:
            parts = {"kernels": batch.kernels / 1e9, "kernel_gaps": batch.kernel_gaps / 1e9}
            inside = batch.kernels + batch.kernel_gaps + batch.launch_gaps
            start = batch.start if batch.bubble else batch.end - inside
        slot, called = slots[number % len(slots)], batch.called / 1e9
        trace.add("compute", "batch", start / 1e9, batch.end / 1e9, number, slot, launched=called, **parts)
    for lane, copies, of_next in (("H2D", gpu.uploads, 1), ("D2H", gpu.downloads, 0)):
        of = np.searchsorted(found.steps.called, copies.called, side="right") - 1 + of_next + numbers[0]
        for number in range(int(some.number[0]), int(some.number[-1]) + 1):
            add(lane, "copy", Stretches(copies.start[of == number], copies.end[of == number]), number)
    return trace
