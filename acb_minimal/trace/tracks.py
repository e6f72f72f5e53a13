"""What was found in a trace, where it can be seen: as tracks in the trace itself, or as spans for a timeline."""

from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from .chrome import with_events
from .gaps import KINDS
from .idle import Report
from .spans import Lane, Trace
from .steps import Step
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
    process = f"acb idle {number}"
    events = [{"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"acb idle: {report.name}"}}]
    steps = [(f"{each.sort} {each.number}", each.end - each.length, each.length) for each in report.steps]
    tracks = {"steps": steps}
    for kind in KINDS[:2]:
        gaps = report.gpu.kind(kind)
        tracks[f"{kind}s"] = [(kind, start, end - start) for start, end in gaps.edges()]
    for thread, (name, shown) in enumerate(tracks.items()):
        place = {"pid": process, "tid": thread}
        events.append({"ph": "M", "name": "thread_name", **place, "args": {"name": name}})
        for label, start, length in shown:
            time = {"ts": zero + start / 1e3, "dur": length / 1e3}
            events.append({"ph": "X", "cat": "acb_idle", "name": label, **place, **time})
    return events


def timeline(report: Report) -> tuple[Trace, int, int]:
    """A few typical decodes from the middle as spans, with the numbers of the first and the last.

    Raises:
        InputError: there are none, or something is missing in the trace.
    """
    if report.lost:
        raise InputError(f"nothing is drawn of {report.name}: {report.lost[0]}")
    steps = _middle(report.chosen)
    if not steps:
        raise InputError(f"there are no typical decodes of {report.name} to draw")
    first, last = steps[0].number, steps[-1].number
    return _spans(report, first, last), first, last


def _middle(chosen: list[Step]) -> list[Step]:
    """Steps from the middle that follow one another."""
    numbered = groupby(enumerate(chosen), lambda pair: pair[1].number - pair[0])
    longest = max(([step for _, step in run] for _, run in numbered), key=len, default=[])
    begin = max(len(longest) - SHOWN, 0) // 2
    return longest[begin : begin + SHOWN]


def _spans(report: Report, first: int, last: int) -> Trace:
    """Of batches `first` to `last` and their neighbours; in two slots by turns where batches are launched ahead."""
    gpu, found, trace = report.gpu, report.found, Trace(report.name)
    zero = found.steps[0].number
    some = found.steps[max(first - 1 - zero, 0) : last + 2 - zero]
    slots = "AB" if report.typical.ahead > 0.5 else "A"

    def add(lane: Lane, name: str, stretches: Stretches, number: int | None = None, slot: str | None = None) -> None:
        for start, end in stretches.edges():
            trace.add(lane, name, start / 1e9, end / 1e9, number, slot)

    def slot_of(number: int) -> str:
        return slots[number % len(slots)]

    begin, end = some[0].called, max(some[-1].end, some[-1].launched)
    rest = found.waits.joined(found.launching).outside(begin, end)
    add("CPU", "wait", found.waits.cut(begin, end))
    for batch, after in pairwise(some):
        launches = found.launching.cut(batch.called, batch.launched)
        add("CPU", "launch", launches, batch.number, slot_of(batch.number))
        add("CPU", "host", rest.cut(batch.called, after.called), after.number)
    for batch in some:
        known = batch.kernels is not None
        start = batch.start if batch.bubble or not known else batch.end - batch.on_gpu - batch.launch_gaps
        trace.add(
            "compute", "batch", start / 1e9, batch.end / 1e9, batch.number, slot_of(batch.number),
            launched=batch.called / 1e9, kernels=batch.kernels / 1e9 if known else None,
            kernel_gaps=batch.kernel_gaps / 1e9 if known else None,
        )  # fmt: skip
    calls = np.array([batch.called for batch in found.steps])
    for lane, copies, of_next in (("H2D", gpu.uploads, 1), ("D2H", gpu.downloads, 0)):
        numbers = np.searchsorted(calls, copies.called, side="right") - 1 + of_next + zero
        for start, end, number in zip(copies.start.tolist(), copies.end.tolist(), numbers.tolist(), strict=True):
            if some[0].number <= number <= some[-1].number:
                trace.add(lane, "copy", start / 1e9, end / 1e9, number, slot_of(number))
    return trace
