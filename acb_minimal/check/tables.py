"""What the checks have found, as text and tables for the `acb` command."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..measure.result_table import STEP, parts_in_ms
from ..trace.formatting import in_ms, ms, table
from .actions import NOUNS
from .judge import Outcome
from .lines import Line
from .pace import SETTING, HostWait, Pace
from .schedules import HARM_SEEDS, SearchResult


def verdict(chapter: str, found: SearchResult) -> RenderableType:
    """What a search has found: the first thing that went wrong and how to see it again, or what was covered."""
    sizes = (
        f"Covered: batches of up to {found.rows} rows and {found.tokens} tokens, up to {found.batches} of them in a "
        "run. What an engine does only beyond that is not seen."
    )
    if found.outcome is not None:
        said = [Text(sizes)] if found.batches else []
        return Group(Text(f"{chapter} is not in order."), problem(found.outcome), *said, again(chapter, found))
    made = table(f"{chapter}: no hazard, no wrong token", "case", "different schedules", "states", "runs")
    for case in found.explored:
        count = number(case.schedules)
        every = f"all {count}" if case.complete else f"{count} so far"
        made.add_row(case.case, every, f"{case.states:,}", f"{case.runs:,}")
    more = "" if all(case.complete for case in found.explored) else " There are more: --seconds 600 goes on for longer."
    made.caption = (
        "Schedules that meet in the same state go on as one: that is how so many are covered by few runs. "
        f"Run one by one, from start to end, besides: {found.schedules:,} different ones.{more} {sizes}"
    )
    return made


def again(chapter: str, found: SearchResult) -> Text:
    """How to see the schedule that shows most."""
    if found.harm is None:
        none = ""
        if found.outcome.hazards and found.outcome.failure is None:
            none = f"No token was wrong in {HARM_SEEDS} schedules; that is luck, not order.\n"
        return Text(f"{none}See this schedule: acb check {chapter} --replay {found.seed}")
    seed, outcome = found.harm
    harm = f"What it can do: {outcome.failure}.\n{_why(outcome)}" if outcome is not found.outcome else ""
    return Text(f"{harm}See this schedule: acb check {chapter} --replay {seed}")


def number(count: int) -> str:
    """A count as text: whole, as long as it can be read."""
    return f"{count:,}" if count < 1e9 else f"{count:.1e}"


def problem(outcome: Outcome) -> Text:
    """The first hazard with the lines that make it, and the first wrong token and what it comes from."""
    lines = []
    for hazard in outcome.hazards[:1]:
        lines.append(f"Hazard: {hazard}.")
        lines += [_line(action.line, outcome) for action in (hazard.first, hazard.second) if action.line is not None]
        if outcome.early is not None and outcome.early.line:
            found, record = "nothing that was recorded", outcome.early.found
            if record is not None and record.line is not None:
                found = f"an older record, of {record.line.told(outcome.file)} before {hazard.first}"
            lines.append(_line(outcome.early.line, outcome))
            lines.append(f"    finds {found}: it has to come after the record")
        if more := len(outcome.hazards) - 1:
            lines.append(f"  and {more} more")
    if outcome.failure:
        lines.append(f"Failure: {outcome.failure}.")
        lines += _why(outcome).splitlines()
    return Text("\n".join(lines))


def _line(line: Line, outcome: Outcome) -> str:
    return f"  {line.told(outcome.file)}: {line.text}"


def _why(outcome: Outcome) -> str:
    return f"  Why: {outcome.why}.\n" if outcome.why else ""


def timeline(chapter: str, seed: str, outcome: Outcome) -> RenderableType:
    """What the host and the device did, in the order in which it was done."""
    made = Table(title=f"{chapter}, seed {seed}: in order of completion", title_justify="left", caption_justify="left")
    for column in ("who", "what", "slot", "line"):
        made.add_column(column, justify="right" if column == "line" else "left", no_wrap=True)
    made.add_column("requests and tokens", overflow="fold")
    for action in [action for kind, action in outcome.events if kind == "done"]:
        line = action.line.told(outcome.file).removeprefix("line ") if action.line else ""
        note = outcome.notes.get(action.number)
        made.add_row(outcome.names[action.actor], str(action), action.slot, line, note)
    made.caption = (
        "Of a batch that is scheduled: each request's tokens, from which position, and its pages. Of a forward pass: "
        "the tokens it was given, and what it sampled behind them. Of an update: the tokens that came home."
    )
    return made if outcome.clean else Group(made, problem(outcome))


def time(mine: Pace, theirs: Pace) -> RenderableType:
    """How fast an engine is beside a chapter, which may be the engine, and what its host waits for."""
    made = table(f"Time of a decode step, {SETTING}", "ms", *STEP, "host\nlaunches", "host waits\na step")
    for pace in (mine,) if mine.file == theirs.file else (mine, theirs):
        times = [*parts_in_ms(pace.parts), in_ms(pace.typical.law.launching)]
        made.add_row(pace.name, *times, f"{pace.host_waits:.0f}")
    compared = [] if mine.file == theirs.file else [_compared(mine, theirs)]
    return Group(made, *compared, *(_wait(wait, mine) for wait in mine.waits))


def _compared(mine: Pace, theirs: Pace) -> Text:
    """Whether an engine is as fast as a chapter."""
    more, name = mine.parts.step - theirs.parts.step, theirs.name
    if not mine.as_fast(theirs):
        text = f"{mine.name} takes {ms(more)} a step longer than {name}: {mine.slower(theirs):.0%}."
    elif not theirs.as_fast(mine):
        text = f"{mine.name} takes {ms(-more)} a step less than {name}."
    else:
        text = f"{mine.name} is as fast as {name}."
    if (waits := round(mine.host_waits)) > (fewer := round(theirs.host_waits)):
        text += f" Its host waits {waits} times a step, that of {name} {fewer}."
    return Text(text)


def _wait(wait: HostWait, pace: Pace) -> RenderableType:
    """One of the lines in which the host waits."""
    line = f"{wait.line.told(pace.file)}: {wait.line.code}"
    text = f"waits {ms(wait.seconds)} a step for the {NOUNS.get(wait.what, wait.what)} of a batch"
    if wait.bubble:
        text += (
            "; no other batch has been launched, so the GPU runs dry here: "
            f"{ms(wait.bubble)} of bubble a step, and then it waits for the launch of the next one"
        )
    elif wait.ahead:
        text += "; another one has been launched behind it"
    return Group(Padding(Text(line), (0, 0, 0, 2)), Padding(Text(text), (0, 0, 0, 4)))
