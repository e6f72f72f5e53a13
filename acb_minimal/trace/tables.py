"""Reports as tables for a terminal, 80 columns wide with every number whole."""

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from .gaps import Idle
from .idle import Report
from .steps import SORTS, Typical
from .verdict import Verdict, ms

MOST = 8  # lines of what the host did
CALLED = {"decode": "decodes", "prompt": "prompts, mixed", "set-up": "set-up"}


def render(report: Report, name: str = "") -> Group:
    """All of a report, the verdict last. `name` is what to call the GPU, by default as the trace does."""
    name, parts = name or report.name, []
    if report.whole:
        parts.append(_whole(report, name))
        if report.sorts:
            parts.append(_sorts(report))
    if report.verdict:
        parts.append(_typical(report.typical))
        if report.doing:
            parts.append(_doing(report))
        parts.append(_verdict(report.verdict))
    parts += [Text(f"{name}, no verdict from this trace: {reason}") for reason in report.refusals]
    return Group(*(line for part in parts for line in (part, "")))


def _whole(report: Report, name: str) -> Table:
    batches = "" if report.batches is None else f", {report.batches:,} batches"
    table = _table(f"{name}: {time(report.window)}{batches}", "all of it", "time", "share", "count")
    on_gpu = "kernels" if report.launch_gaps is not None else "a batch on the GPU"
    rows = {on_gpu: Idle(report.kernel_seconds, report.kernels), "bubbles": report.bubbles}
    rows |= {"launch gaps": report.launch_gaps, "between queued kernels": report.device_gaps}
    for name, idle in rows.items():
        if idle is None:
            table.add_row(name, "not in this trace", "", "")
            continue
        table.add_row(name, time(idle.seconds), _share(idle.seconds, report.window), f"{idle.count:,}")
    table.caption = f"Batches are told apart by {report.told_apart}."
    if report.assumed:
        table.caption += f" The launch of {report.assumed:.1%} of kernels is not in the trace: taken as late as can be."
    return table


def _sorts(report: Report) -> Table:
    table = _table("", "steps", "count", "median")
    for sort in SORTS:
        if sort in report.sorts:
            count, length = report.sorts[sort]
            table.add_row(CALLED[sort], f"{count:,}", ms(length))
    return table


def _typical(typical: Typical) -> Table:
    table = _table(f"Steady decodes: medians of {typical.count:,} steps", "a step", "time", "share")
    for name, seconds in parts(typical).items():
        table.add_row(name, ms(seconds), _share(seconds, typical.step))
    table.add_row("launched ahead", "", _ahead(typical))
    return table


def _ahead(typical: Typical) -> str:
    """The share of steps; where launching sets the pace, a wait returns at once whatever it is for."""
    return f"{typical.ahead:.0%}" if typical.launching < typical.kernels else "no matter"


def parts(typical: Typical) -> dict[str, float]:
    """What is told of a step, in seconds."""
    rows = {
        "step": typical.step,
        "K, kernels": typical.kernels,
        "  communication": typical.communication,
        "  communication exposed": typical.alone,
        "L, launching": typical.launching,
        "H, the host's rest": typical.host,
        "host waits": typical.waiting,
        "GPU waits: host exposed": typical.idle,
        "  in bubbles": typical.bubble,
        "  in launch gaps": typical.launch_gaps,
        "host hidden": typical.hidden,
        "all of it hidden": typical.law.asynchronous,
        "and launched as graphs": typical.as_graphs,
    }
    if not typical.kernels_known:
        del rows["  in bubbles"], rows["  in launch gaps"], rows["and launched as graphs"]
    if not typical.communication:
        rows = {name: seconds for name, seconds in rows.items() if "communication" not in name}
    return rows


def _doing(report: Report) -> Table:
    table = _table("What the host does meanwhile, a step", "time", "share", "phase", "what", left=2)
    total = sum(doing.seconds for doing in report.doing)
    for doing in report.doing[:MOST]:
        what = f"{doing.name}, in {doing.under}" if doing.under else doing.name
        table.add_row(ms(doing.seconds), _share(doing.seconds, total), doing.phase, Text(what))
    rest = sum(doing.seconds for doing in report.doing[MOST:])
    if rest:
        table.add_row(ms(rest), _share(rest, total), "", f"{len(report.doing) - MOST:,} more")
    return table


def side_by_side(names: list[str], reports: list[Report]) -> Group:
    """Several GPUs, a line each, and which of them is the slowest."""
    table = _table("Steady decodes, medians", "", "step", "K", "talk", "alone", "GPU waits")
    for name, report in zip(names, reports, strict=True):
        typical = None if report.refusals else report.typical
        times = (typical.step, typical.kernels, typical.communication, typical.alone, typical.idle) if typical else ()
        table.add_row(name, *map(ms, times))
    table.caption = "Talk: kernels that talk to other GPUs. Alone: with no other kernel beside them."
    slow = slowest(reports)
    if slow.refusals:
        return Group(table)
    name = names[next(number for number, report in enumerate(reports) if report is slow)]
    return Group(table, "", Text(f"Slowest: {name}, {ms(_own(slow))} a step without talking to others."))


def slowest(reports: list[Report]) -> Report:
    """The GPU that the others wait for: with most time of its own in a step."""
    return max(reports, key=_own)


def _own(report: Report) -> float:
    return 0.0 if report.refusals else report.typical.step - report.typical.alone


def compare(before: Report, after: Report) -> Group:
    """Two reports side by side, and whether what the first foretells came true.

    Raises:
        InputError: one of the traces carries no verdict.
    """
    for report in (before, after):
        if report.refusals:
            raise InputError(f"nothing to compare: {report.refusals[0]}")
    table = _table("Steady decodes, medians", "a step", "before", "after", "change")
    old, new = parts(before.typical), parts(after.typical)
    for name in old | new:
        pair = old.get(name, 0.0), new.get(name, 0.0)
        change = f"{pair[1] / pair[0] - 1:+.1%}" if pair[0] > 5e-7 else ""
        table.add_row(name, *map(ms, pair), change)
    table.add_row("launched ahead", _ahead(before.typical), _ahead(after.typical), "")
    texts = []
    for name, report in (("Before", before), ("After", after)):
        texts.append(_verdict(report.verdict, f"{name}, "))
    graphs_are_new = after.typical.graph and not before.typical.graph
    foretold = before.typical.as_graphs if graphs_are_new else before.typical.law.asynchronous
    if before.typical.ahead < 0.5 <= after.typical.ahead:
        off = after.typical.step / foretold - 1
        texts.append(
            Text(f"Foretold from before: {ms(foretold)} a step; it takes {ms(after.typical.step)} ({off:+.1%}).")
        )
    return Group(table, "", *texts)


def _verdict(verdict: Verdict, whose: str = "") -> Text:
    return Text.assemble((f"{whose}{verdict.kind}. ".capitalize(), "bold"), verdict.text)


def _table(title: str, *columns: str, left: int = 0) -> Table:
    table = Table(
        title=escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, show_edge=False
    )
    for number, column in enumerate(columns):
        words = number >= left if left else not number
        wraps = words and number == len(columns) - 1
        table.add_column(column, justify="left" if words else "right", no_wrap=not wraps, overflow="fold")
    return table


def _share(seconds: float, whole: float) -> str:
    return f"{seconds / whole:.1%}" if whole else "-"


def time(seconds: float) -> str:
    """With a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{1e6 * seconds:.1f} us"
