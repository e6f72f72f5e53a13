"""Reports as tables for a terminal, 80 columns wide with every number whole."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from .formatting import duration, ms, share, table
from .gaps import Idle
from .host import longest
from .idle import Report
from .steps import Typical
from .verdict import Verdict

MOST = 8  # lines of what the host did
LONGEST = 5  # gaps that are shown where there is no verdict
# What kinds of steps are called, where the trace says which they are and where it does not.
CALLED = {"decode": ("alike", "decodes"), "prompt": ("longer", "prompts, mixed"), "set-up": ("set-up", "set-up")}
COPIES, STALLS = "waits for copies", "waits, unexplained"
FEW = 0.5  # share of the trace: typical steps that are less of it are said to be
MODELS = 0.15  # by which K of two traces may differ, and the one predict the other


def render(report: Report, name: str = "") -> Group:
    """All of a report, the verdict last. `name` is what to call the GPU, by default as the trace does."""
    name, parts = name or report.name, []
    if not report.lost:
        parts.append(_whole(report, name))
        if report.sorts:
            parts.append(_sorts(report))
    if report.verdict:
        parts.append(_typical(report))
        if report.doing:
            parts.append(_doing(report))
        few = f"Of {report.covered:.0%} of the trace: " if report.covered < FEW else ""
        parts.append(_verdict(report.verdict, few))
    elif not report.lost:
        parts.append(_longest(report))
    parts += [Text(f"{name}, no verdict from this trace: {reason}") for reason in report.refusals]
    return Group(*(line for part in parts for line in (part, "")))


def _whole(report: Report, name: str) -> Table:
    batches = "" if report.batches is None else f", {report.batches:,} batches"
    graphs = f"{report.graphs:,} graphs are launched." if report.graphs else "No graph is launched."
    caption = f"Batches are told apart by {report.gpu.segments.by}. {graphs}"
    if report.assumed:
        caption += f" The launch of {report.assumed:.1%} of kernels is not in the trace: taken as late as can be."
    heads = "all of it", "time", "share", "count"
    made = table(f"{name}: {duration(report.window)}{batches}", *heads, caption=caption)
    on_gpu = "kernels" if report.launch_gaps is not None else "a batch on the GPU"
    rows = {on_gpu: Idle(report.kernel_seconds, report.kernels), "kernel gaps": report.kernel_gaps}
    rows |= {"launch gaps": report.launch_gaps, "bubbles": report.bubbles}
    rows |= {name: idle for name, idle in ((COPIES, report.copies), (STALLS, report.stalls)) if idle.count}
    for what, idle in rows.items():
        if idle is None:
            made.add_row(what, "not in this trace", "", "")
            continue
        made.add_row(what, duration(idle.seconds), share(idle.seconds, report.window), f"{idle.count:,}")
    for what, seconds in zip(("communication", "  with nothing beside"), report.talk, strict=True):
        if report.talk[0]:
            made.add_row(what, duration(seconds), share(seconds, report.window), "")
    return made


def _longest(report: Report) -> Table:
    heads = "at", "length", "the GPU", "the host, most of the time"
    made = table("The longest gaps", *heads, left=0, wraps=True)
    made.columns[2].justify = "left"
    for begin, length, host, gpu in longest(report.gpu, LONGEST):
        made.add_row(f"{begin:.6f} s", duration(length), gpu, Text(host))
    return made


def _sorts(report: Report) -> Table:
    made = table("", "steps", "count", "median")
    for kind, (count, length) in report.sorts.items():
        made.add_row(CALLED[kind][report.found.decodes], f"{count:,}", ms(length, 3))
    return made


def _typical(report: Report) -> Table:
    typical = report.typical
    head = f"Typical {report.about}: medians of {typical.count:,} steps, {report.covered:.0%} of the trace"
    made = table(head, "a step", "time", "share")
    for name, seconds in parts(typical).items():
        made.add_row(name, ms(seconds, 3), share(seconds, typical.step))
    made.add_row("launched ahead", "", _ahead(typical))
    return made


def _ahead(typical: Typical) -> str:
    """The share of steps; where launching sets the pace, a wait returns at once whatever it is for."""
    return f"{typical.ahead:.0%}" if typical.law.launching < typical.law.on_gpu else "no matter"


def parts(typical: Typical) -> dict[str, float]:
    """What is told of a step, in seconds."""
    rows, made, law = {"step": typical.step}, typical.parts, typical.law
    if made:
        rows |= {"  kernels": made.kernels, "  kernel gaps": made.kernel_gaps, "  launch gaps": made.launch_gaps}
    rows |= {f"  {COPIES}": typical.copies} if typical.copies else {}
    rows |= {f"  {STALLS}": typical.stalled} if typical.stalled else {}
    rows |= {"  bubbles": typical.bubbles, "K, kernels and their gaps" if made else "K, or longer": law.on_gpu}
    if typical.communication:
        rows |= {"  communication": typical.communication, "  communication exposed": typical.alone}
    rows |= {"L, launching": law.launching, "H, the host's rest": law.host, "host waits": typical.waiting}
    rows |= {"GPU waits: host exposed": typical.idle, "host hidden": typical.hidden}
    rows |= {"all of it hidden": law.asynchronous}
    return rows | ({"and launched as graphs": typical.as_graphs} if made and not typical.graph else {})


def _doing(report: Report) -> Table:
    made = table("What the host does meanwhile, a step", "time", "share", "phase", "what", left=0, wraps=True)
    made.columns[2].justify = "left"
    total = sum(doing.seconds for doing in report.doing)
    for doing in report.doing[:MOST]:
        what = f"{doing.name}, in {doing.under}" if doing.under else doing.name
        made.add_row(ms(doing.seconds, 3), share(doing.seconds, total), doing.phase, Text(what))
    if rest := sum(doing.seconds for doing in report.doing[MOST:]):
        made.add_row(ms(rest, 3), share(rest, total), "", f"{len(report.doing) - MOST:,} more")
    return made


def side_by_side(names: list[str], reports: list[Report]) -> Group:
    """Several GPUs, a line each, and which of them is the slowest."""
    caption = "Talk: kernels that talk to other GPUs. Alone: with no other kernel beside them."
    made = table("Typical steps, medians", "", "step", "K", "talk", "alone", "GPU waits", caption=caption)
    for name, report in zip(names, reports, strict=True):
        typical = None if report.refusals else report.typical
        times = typical and (typical.step, typical.law.on_gpu, typical.communication, typical.alone, typical.idle)
        made.add_row(name, *(ms(seconds, 3) for seconds in times or ()))
    slow = slowest(reports)
    if slow.refusals:
        return Group(made)
    name = dict(zip(reports, names, strict=True))[slow]
    return Group(made, "", Text(f"Slowest: {name}, {ms(_own(slow), 3)} a step without talking to others."))


def slowest(reports: list[Report]) -> Report:
    """The GPU that the others wait for: with most time of its own in a step."""
    return max(reports, key=_own)


def _own(report: Report) -> float:
    return 0.0 if report.refusals else report.typical.step - report.typical.alone


def compare(before: Report, after: Report) -> Group:
    """Two reports side by side, and whether what the first predicts came true.

    Raises:
        InputError: one of the traces carries no verdict.
    """
    if refusals := before.refusals or after.refusals:
        raise InputError(f"nothing to compare: {refusals[0]}")
    made = table("Typical steps, medians", "a step", "before", "after", "change")
    old, new = parts(before.typical), parts(after.typical)
    for name in old | new:
        pair = old.get(name, 0.0), new.get(name, 0.0)
        change = f"{pair[1] / pair[0] - 1:+.1%}" if pair[0] > 5e-7 else ""
        made.add_row(name, *(ms(seconds, 3) for seconds in pair), change)
    made.add_row("launched ahead", _ahead(before.typical), _ahead(after.typical), "")
    texts = [_verdict(before.verdict, "Before, "), _verdict(after.verdict, "After, ")]
    graphs_are_new = after.typical.graph and not before.typical.graph
    if before.typical.ahead < 0.5 <= after.typical.ahead:
        takes, k = after.typical.step, after.typical.law.on_gpu / before.typical.law.on_gpu - 1
        predicted = before.typical.as_graphs if graphs_are_new else before.typical.law.asynchronous
        took = f"{ms(takes, 3)} ({takes / predicted - 1:+.1%})"
        says = f"Predicted from before: {ms(predicted, 3)} a step; it takes {took}."
        if before.name != after.name:
            says = f"Nothing is predicted from {before.name} to {after.name}."
        elif abs(k) > MODELS and not graphs_are_new:
            says = f"Nothing is predicted: K differs by {k:+.0%}, so these are two loads."
        texts.append(Text(says))
    return Group(made, "", *texts)


def _verdict(verdict: Verdict, whose: str = "") -> Text:
    return Text.assemble((f"{whose}{verdict.kind}. ".capitalize(), "bold"), verdict.text)
