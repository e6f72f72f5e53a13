"""Does an engine overlap? Says of a trace of any engine when its GPU idles, and what the host does meanwhile.

It reads what torch's profiler writes (vLLM, SGLang, transformers or an engine of your own under it), and what `Trace`
writes. How gaps are told apart is in kineto.py.
"""

import gc
import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from .spans import LANES, Trace
from .torch_profiler import DEVICE, HOST, LARGEST, Columns, Gap, Idle, Report, profiled


def read(path: Path) -> dict:
    """A trace, as JSON or gzipped JSON, whatever its name; a bare list of events becomes {"traceEvents": list}.

    Raises InputError if there is no such file, it holds no trace, or nothing in it ran on a GPU.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
    collecting = gc.isenabled()
    gc.disable()  # it would walk all events again and again while they become more, for most of the time
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        # Names of Python functions bring in what is not valid UTF-8 or JSON, and are not worth losing a trace for.
        trace = json.loads(data.decode("utf-8-sig", "replace"), strict=False)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{str(path)!r} is cut short or damaged: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not a trace in JSON or gzipped JSON: {error}") from error
    finally:
        if collecting:
            gc.enable()
    if isinstance(trace, list):
        trace = {"traceEvents": trace}
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        raise InputError(f"there is no trace in {str(path)!r}: it needs a list of events, or one as 'traceEvents'")
    categories = {event.get("cat") for event in _spans(trace["traceEvents"])}
    if not categories & {*DEVICE, "compute"}:
        if categories & set(HOST):
            raise InputError(f"{str(path)!r} has no GPU activity: was it recorded without ProfilerActivity.CUDA?")
        raise InputError(
            f"there is no trace of a GPU in {str(path)!r}: looked for events of category {', '.join(DEVICE)} (torch's "
            f"profiler) or {', '.join(LANES)} (acb profile --trace)"
        )
    return trace


def analyse(events: Iterable[dict]) -> list[Report]:
    """A Report for each GPU in the `traceEvents` of `read`. Raises InputError if what ran on a GPU has no times."""
    spans = defaultdict(list)
    for event in _spans(events):
        spans[event.get("cat")].append(event)
    try:
        return profiled(spans) if any(spans[category] for category in DEVICE) else _ours(spans, events)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"an event of this trace is not as it should be: {type(error).__name__}: {error}") from error


def _spans(events: Iterable) -> list[dict]:
    return [e for e in events if isinstance(e, dict) and e.get("ph") == "X" and isinstance(e.get("cat"), str)]


def _ours(spans: dict[str, list[dict]], events: Iterable[dict]) -> list[Report]:
    """Of a trace that `Trace.chrome` wrote: batches have numbers."""
    trace = Trace()
    for lane in LANES:
        for event in spans[lane]:
            start, args = event["ts"] / 1e6, event["args"]
            kernels = None if args.get("kernels") is None else args["kernels"] / 1e6
            end = start + event["dur"] / 1e6
            trace.add(lane, event["name"], start, end, args["batch"], args["slot"], kernels=kernels)
    compute, windows, bubbles = trace.lane("compute"), trace.batches(), trace.bubbles()
    window = max(end for _, end in windows.values()) - min(start for start, _ in windows.values())
    running, launch_gaps = window - sum(bubbles.values()), None
    if all(span.kernels is not None for span in compute):
        idle = {number: end - start for number, (start, end) in windows.items()}
        for span in compute:
            idle[span.batch_number] -= span.kernels
        launch_gaps = Idle(sum(idle.values()), sum(seconds > 1e-9 for seconds in idle.values()))
        running -= launch_gaps.seconds
    ordered = sorted(windows.values())
    gaps = [(end, start) for (_, end), (start, _) in pairwise(ordered) if start > end]
    host = Columns.of(spans["CPU"], 0)
    largest = [
        Gap(start, end - start, "bubble", host.names(round(1e9 * start), round(1e9 * end)))
        for start, end in sorted(gaps, key=lambda gap: gap[0] - gap[1])[:LARGEST]
    ]
    names = [event["args"]["name"] for event in events if event.get("name") == "process_name"]
    return [
        Report(
            gpu=names[0] if names else "GPU",
            window=window,
            kernels=len(compute),
            kernel_seconds=running,
            bubbles=Idle(sum(bubbles.values()), len(gaps)),
            launch_gaps=launch_gaps,
            device_gaps=Idle(0.0, 0),
            batches=len(windows),
            told_apart="their numbers",
            assumed=0.0,
            largest=largest,
        )
    ]


def render(report: Report) -> Group:
    """The report as tables for a terminal, with the verdict below."""
    batches = "" if report.batches is None else f", {report.batches:,} batches"
    table = _table(f"{escape(report.gpu)}: {_time(report.window)}{batches}", "", "time", "share", "count", "a batch")
    on_gpu = "kernels" if report.launch_gaps is not None else "a batch on the GPU"
    rows = {on_gpu: Idle(report.kernel_seconds, report.kernels), "bubbles": report.bubbles}
    rows |= {"launch gaps": report.launch_gaps, "between queued kernels": report.device_gaps}
    for name, idle in rows.items():
        if idle is None:
            table.add_row(name, "not in this trace", "", "", "")
            continue
        share = f"{idle.seconds / report.window:.1%}" if report.window else "-"
        each = _time(idle.seconds / report.batches) if report.batches else "-"
        table.add_row(name, _time(idle.seconds), share, f"{idle.count:,}", each)
    table.caption = f"Batches are told apart by {report.told_apart}."
    if report.assumed:
        table.caption += f" The launch of {report.assumed:.1%} of kernels is not in the trace: taken as late as can be."
    largest = _table("Largest gaps", "at", "gap", "kind", "the host meanwhile")
    largest.columns[-1].justify = "left"
    for column in largest.columns:
        column.no_wrap = True
    for gap in report.largest:
        host = "\n".join(f"{_time(seconds):>8} {name}" for name, seconds in gap.host)
        largest.add_row(f"{gap.start:.6f} s", _time(gap.seconds), gap.kind, Text(host))
    return Group(table, *([largest] if report.largest else []), Text(verdict(report)))


def verdict(report: Report) -> str:
    """In plain words: what idles most, first, down to a hundredth of the time; and what would cure it."""
    sentences = []
    for kind, idle in sorted(report.gaps().items(), key=lambda item: -item[1].seconds):
        share = idle.seconds / report.window if report.window else 0.0
        if share < 0.01:
            continue
        if kind == "device gap":
            sentences.append(
                f"Between kernels already queued the GPU idles ({share:.1%}): it waits for another stream, or the "
                "profiler slows it; not the host's doing."
            )
        elif report.batches is None:
            sentences.append(f"The GPU idles for want of launches ({share:.1%}); nothing tells batches apart.")
        elif kind == "bubble":
            each = _time(idle.seconds / max(report.batches - 1, 1))
            bound = report.launch_gaps is not None and report.launch_gaps.seconds > idle.seconds
            sentences.append(
                f"Between batches the GPU has nothing to run for {each} a step ({share:.1%}): "
                + (
                    "overlap cannot hide that before launches are fast."
                    if bound
                    else "the host's bookkeeping is not overlapped."
                )
            )
        else:
            sentences.append(
                f"The GPU idles inside batches ({share:.1%}): it waits for launches; CUDA graphs would help, overlap "
                "will not."
            )
        longest = max((gap.seconds for gap in report.largest if gap.kind == kind), default=0.0)
        if idle.count > 2 and longest > idle.seconds / 2:
            sentences.append(f"Most of that is one gap of {_time(longest)}: was there work to do?")
    if not sentences and report.launch_gaps is None:
        return f"A batch is on the GPU {report.busy:.1%} of the time: nothing left for overlap to win."
    return " ".join(sentences) or f"GPU busy {report.busy:.1%}: nothing left for overlap to win."


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _time(seconds: float) -> str:
    """With a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{1e6 * seconds:.1f} us"
