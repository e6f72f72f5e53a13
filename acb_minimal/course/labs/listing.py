"""Tables of labs and learners, as `acb lab` prints them. Nothing here needs torch: a list is there at once."""

from collections import Counter
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from ...trace.formatting import table
from .lab import LABS, following
from .started import Progress

HEADINGS = {"build": "Builders: from each chapter to the next", "hunt": "Bug hunts: an engine, and its symptom"}
STUCK = 3  # checks in a row with the same answer


def listing(done: Mapping[str, Progress]) -> RenderableType:
    """All labs, and how far somebody is in each.

    Args:
        done: what `started.furthest` has found.
    """
    made = table("Labs", "", "lab", "what it is about", "goal", "checks", "hints", left=4)
    made.columns[2].no_wrap = False  # where the terminal is narrow, titles take two lines and nothing is cut off
    for column in made.columns:
        column.vertical = "top"
    for kind, heading in HEADINGS.items():
        made.add_row("", "", Text(heading, "bold"))
        for lab in (lab for lab in LABS.values() if lab.kind == kind):
            progress = done.get(lab.name)
            counts = (progress.checks, progress.hints) if progress else ("", "")
            made.add_row(_sign(progress), lab.name, lab.title, lab.goal, *map(str, counts))
        made.add_section()
    legend = "Goal: the chapter that an engine has to be as fast as. ✓ solved, = copied, … started."
    count = f"{len(solved(done))} of {len(LABS)} are solved here."
    if after := following(None, solved(done)):
        count += f" Next: acb lab watch {after.name}"
    return Group(made, Text(f"\n{legend}\n{count}"))


def solved(done: Mapping[str, Progress]) -> set[str]:
    """The names of the labs that are solved."""
    return {name for name, progress in done.items() if progress.solved}


def report(learners: Mapping[str, Mapping[str, Progress]]) -> RenderableType:
    """A class: where everybody is, and what those who are stuck are stuck at.

    Args:
        learners: by what to call them, their progress in each lab that they have started.
    """
    columns = "who", "solved", "at", "checks", "hints", "in a row", "what the judge said last"
    made = table("Who is where", *columns, left=3, wraps=True)
    stuck: Counter[tuple[str, str]] = Counter()
    for who, labs in learners.items():
        count = f"{len(solved(labs))} of {len(LABS)}"
        if copied := sum(progress.copied for progress in labs.values()):
            count += f", {copied} copied"
        at = max((each for each in labs.values() if not each.solved), key=lambda each: each.last, default=None)
        if at is None:
            said = "all that was started is solved" if labs else "nothing is started"
            made.add_row(who, count, "-", "", "", "", said)
            continue
        said = at.said or "nothing is checked yet"
        made.add_row(who, count, at.lab, str(at.checks), str(at.hints), str(at.same or ""), said)
        if at.same >= STUCK:
            stuck[at.lab, at.said] += 1
    if not stuck:
        return Group(made, Text("\nNobody has been told the same three times in a row."))
    title = "Stuck: told the same three times in a row or more"
    places = table(title, "at", "how many", "what the judge says", wraps=True)
    for (lab, said), count in stuck.most_common():
        places.add_row(lab, str(count), said)
    return Group(made, Text(), places)


def _sign(progress: Progress | None) -> Text:
    if progress is None:
        return Text(" ")
    if progress.copied:
        return Text("=", "yellow")
    return Text("✓", "green") if progress.solved else Text("…", "yellow")
