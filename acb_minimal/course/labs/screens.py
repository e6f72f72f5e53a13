"""What `acb lab` prints of labs and learners. Nothing here needs torch: a list is there at once."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .catalog import LABS, following
from .folder import Progress, Started
from .lab import changed_lines

HEADINGS = {"build": "Builders: from each chapter to the next", "hunt": "Bug hunts: an engine, and its symptom"}
COUNTS = ("checks", "hints", "in a row", "how many")
STUCK = 3  # checks in a row with the same answer


def listing(done: Mapping[str, Progress]) -> RenderableType:
    """All labs, and how far somebody is in each.

    Args:
        done: what `folder.furthest` has found.
    """
    table = _table("Labs", "", "lab", "what it is about", "goal", "checks", "hints")
    for kind, heading in HEADINGS.items():
        table.add_row("", "", Text(heading, "bold"))
        for lab in (lab for lab in LABS.values() if lab.kind == kind):
            progress = done.get(lab.name)
            counts = (progress.checks, progress.hints) if progress else ("", "")
            table.add_row(_sign(progress), lab.name, lab.title, lab.goal, *map(str, counts))
        table.add_section()
    solved = sum(bool(progress.solved) for progress in done.values())
    after = next((name for name in LABS if name not in done), None)
    legend = "Goal: the chapter that an engine has to be as fast as."
    count = f"{solved} of {len(LABS)} are solved here." + (f" Next: acb lab start {after}" if after else "")
    return Group(table, Text(f"\n{legend} {count}"))


def started(each: Started) -> RenderableType:
    """What to do now, after a start."""
    lab, engine, folder = each.lab, *(shlex.quote(str(path)) for path in (each.engine, each.folder))
    commands = {
        f"acb run {engine} --prompt 'count 3 to 7'": "",
        f"acb lab check {folder}": "judges it; with --watch on every save",
        f"acb lab hint {folder}": "gives a hint",
    }
    width = len(f"acb lab check {folder}")
    return Group(
        Text(f"{lab.name}: {lab.title}", style="bold"),
        Padding(Text(lab.task), (1, 0, 1, 2)),
        Text(f"Your engine is {engine}. It runs as it is:\n"),
        *(Text(f"  {command:<{width}}  {says}") for command, says in commands.items()),
    )


def hints(each: Started, given: Sequence[str]) -> RenderableType:
    """All hints so far; the last one is new."""
    rows = [Padding(Text(f"{number}. {hint}", style="dim"), (0, 0, 1, 0)) for number, hint in enumerate(given[:-1], 1)]
    more = len(each.lab.hints) - len(given)
    rest = f"{more} more" if more else "That was the last one"
    then = f"\n{rest}. Then: acb lab check {shlex.quote(str(each.folder))}"
    return Group(*rows, Text(f"{len(given)}. {given[-1]}"), Text(then))


def stuck(each: Started) -> str:
    """Advice for somebody who is told the same again and again, as long as there are hints left; empty for others."""
    progress, left = each.progress, len(each.lab.hints) - each.progress.hints
    if progress.same < STUCK or not left:
        return ""
    return f"That is the same {progress.same} times in a row. A hint: acb lab hint {shlex.quote(str(each.folder))}"


def solved(each: Started, source: str) -> RenderableType:
    """What is to be known once an engine has passed; its times and its diff to the chapter's come from elsewhere.

    Args:
        source: the learner's engine.
    """
    lab, progress = each.lab, each.progress
    parts: list[RenderableType] = [
        Text(f"{lab.name} is solved, with {_count(progress.checks, 'check')} and {_count(progress.hints, 'hint')}.",
             style="bold green")
    ]  # fmt: skip
    if lab.kind == "hunt":
        mine, smallest = changed_lines(lab.starter, source), changed_lines(lab.starter, lab.solution)
        parts.append(Text(f"{lab.found}."))
        parts.append(Text(f"You changed {_count(mine, 'line')}; the smallest fix known changes {smallest}."))
        parts.append(Text("Engines in use have had it:"))
        parts += [Text(f"  {link}") for link in lab.links]
    parts.append(Text("Other ways:" if lab.kind == "hunt" else "Other right ways:"))
    parts += [Padding(Text(f"- {other}"), (0, 0, 0, 2)) for other in lab.others]
    if after := following(lab):
        parts.append(Text(f"Next: acb lab start {after.name}"))
    return Group(*parts)


def report(learners: Mapping[str, Mapping[str, Progress]]) -> RenderableType:
    """A class: where everybody is, and what those who are stuck are stuck at.

    Args:
        learners: by what to call them, their progress in each lab that they have started.
    """
    table = _table("Who is where", "who", "solved", "at", "checks", "hints", "what the judge said last", "in a row")
    stuck: Counter[tuple[str, str]] = Counter()
    for who, labs in learners.items():
        count = f"{sum(bool(progress.solved) for progress in labs.values())} of {len(LABS)}"
        at = max((each for each in labs.values() if not each.solved), key=_when, default=None)
        if at is None:
            table.add_row(who, count, "-", "", "", "all that was started is solved" if labs else "nothing is started")
            continue
        said = at.said or "nothing is checked yet"
        table.add_row(who, count, at.lab, str(at.checks), str(at.hints), said, str(at.same or ""))
        if at.same >= STUCK:
            stuck[at.lab, at.said] += 1
    if not stuck:
        return Group(table, Text("\nNobody has been told the same three times in a row."))
    places = _table("Stuck: told the same three times in a row or more", "how many", "at", "what the judge says")
    for (lab, said), count in stuck.most_common():
        places.add_row(str(count), lab, said)
    return Group(table, Text(), places)


def _when(progress: Progress) -> str:
    return progress.checked or progress.started


def _sign(progress: Progress | None) -> Text:
    if progress is None:
        return Text(" ")
    return Text("✓", "green") if progress.solved else Text("…", "yellow")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in COUNTS else "left",
                        no_wrap=column in ("lab", "who", "at", "solved"))  # fmt: skip
    return made
