"""What `acb lab` says of labs and learners: tables, tasks, hints, what is to be known at the end. Nothing here needs
torch: it is there at once."""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from ...run.engines import read_source
from ...trace.formatting import table
from .lab import LABS, changed_lines, difference
from .started import Started, following, solved

HEADINGS = {"build": "Builders: from each chapter to the next", "hunt": "Bug hunts: an engine, and its symptom"}
STUCK = 3  # checks in a row with the same answer
ON_GPU = "--workload small --host-work 4"  # a workload that most GPUs hold, and ms of host work that it can hide


def listing(done: Mapping[str, Started]) -> RenderableType:
    """All labs, and how far somebody is in each."""
    made = table("Labs", "", "lab", "what it is about", "goal", "checks", "hints", left=4)
    made.columns[2].no_wrap = False  # where the terminal is narrow, titles take two lines and nothing is cut off
    for column in made.columns:
        column.vertical = "top"
    for kind, heading in HEADINGS.items():
        made.add_row("", "", Text(heading, "bold"))
        for lab in (lab for lab in LABS.values() if lab.kind == kind):
            sign, counts = Text(" "), ("", "")
            if lab.name in done:
                progress = done[lab.name].progress
                sign = Text("…", "yellow") if not progress.solved else Text("✓", "green")
                sign = Text("=", "yellow") if progress.copied else sign
                counts = str(progress.checks), str(progress.hints)
            made.add_row(sign, lab.name, lab.title, lab.goal, *counts)
        made.add_section()
    legend = "Goal: the chapter that an engine has to be as fast as. ✓ solved, = copied, … started."
    count = f"{len(solved(done))} of {len(LABS)} are solved here."
    if after := following(done):
        count += f" Next: acb lab watch {after.name}"
    return Group(made, Text(f"\n{legend}\n{count}"))


def report(learners: Mapping[str, Mapping[str, Started]]) -> RenderableType:
    """A class: where everybody is, and what those who are stuck are stuck at.

    Args:
        learners: by what to call them, the labs that they have started.
    """
    columns = "who", "solved", "at", "checks", "hints", "in a row", "what the judge said last"
    made = table("Who is where", *columns, left=3, wraps=True)
    stuck: Counter[tuple[str, str]] = Counter()
    for who, labs in learners.items():
        all_of_them, count = [each.progress for each in labs.values()], f"{len(solved(labs))} of {len(LABS)}"
        if copied := sum(progress.copied for progress in all_of_them):
            count += f", {copied} copied"
        at = max((each for each in all_of_them if not each.solved), key=lambda each: each.last, default=None)
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


def beginning(each: Started) -> RenderableType:
    """The task, and where the engine is."""
    return Group(
        Text(f"{each.lab.name}: {each.lab.title}", style="bold"),
        Padding(Text(each.lab.task), (1, 0, 1, 2)),
        Text(f"Your engine is {shlex.quote(str(each.engine))}. It runs as it is."),
    )


def hints(each: Started) -> RenderableType:
    """All hints so far and one more, if there is one."""
    given = each.hint()
    rows = [Padding(Text(f"{number}. {hint}", style="dim"), (0, 0, 1, 0)) for number, hint in enumerate(given[:-1], 1)]
    more = len(each.lab.hints) - len(given)
    rest = f"({more} more)" if more else "(That was the last one.)"
    return Group(*rows, Text(f"{len(given)}. {given[-1]}"), Text(rest, "dim"))


def stuck(each: Started) -> str:
    """Advice for somebody who is told the same again and again, as long as there are hints left; empty for others."""
    progress, left = each.progress, len(each.lab.hints) - each.progress.hints
    return f"That is the same {progress.same} times in a row. A hint:" if progress.same >= STUCK and left else ""


def was_reset(each: Started, kept: Path | None) -> Text:
    """Where to find what was there before."""
    return Text(f"{each.engine} is the starter again." + (f" What it was is {kept} now." if kept else ""))


def diff(each: Started) -> RenderableType:
    """From a learner's engine to the goal's, names and comments left out; only of a lab that is solved."""
    if not each.progress.solved:
        return Text(f"{each.lab.name} is not solved yet, and a diff would give it away.")
    text, name = difference(read_source(each.engine), each.lab.solution), each.lab.goal_name
    if not text:
        return Text(f"{each.engine} is that of {name}, but for names and comments.")
    return Syntax(f"--- {each.engine}\n+++ {name}\n{text}", "diff", background_color="default")


def ending(each: Started) -> RenderableType:
    """What is to be known once an engine has passed. Other right ways are written beside it, to run them."""
    lab, progress, source = each.lab, each.progress, read_source(each.engine)
    if progress.copied:
        what = f"Nothing is wrong with it, but it is a text of ours, word for word: {lab.name} is listed as copied."
        parts = [Text(what, style="bold yellow")]
    else:
        counts = f"{_count(progress.checks, 'check')} and {_count(progress.hints, 'hint')}"
        parts = [Text(f"{lab.name} is solved, with {counts}.", style="bold green")]
    if lab.kind == "hunt":
        mine, smallest = changed_lines(lab.starter, source), changed_lines(lab.starter, lab.solution)
        parts.append(Text(f"{lab.found}."))
        parts.append(Text(f"You changed {_count(mine, 'line')}; the smallest fix known changes {smallest}."))
        parts += map(Text, ("Engines in use have had it:", *(f"  {link}" for link in lab.links)))
    parts.append(Text("Other ways:" if lab.kind == "hunt" else "Other right ways:"))
    for number, way in enumerate(lab.others, 1):
        parts.append(Padding(Text(f"- {way.says}"), (0, 0, 0, 2)))
        if way.source is not None:
            file = each.folder / f"other_{number}.py"
            file.write_text(way.source)
            parts.append(Text(f"    acb check {shlex.quote(str(file))}"))
    parts.append(Text(f"From yours to {lab.goal_name}: acb lab diff {shlex.quote(str(each.folder))}"))
    parts.append(Text(f"On a GPU: {on_gpu(each)}"))
    return Group(*parts)


def on_gpu(each: Started) -> str:
    """The command that measures the engine on a GPU, beside the chapters: decodes are launched as graphs, or launching
    would hide what there is to win; unless the lab is about that."""
    chapters = dict.fromkeys(filter(None, (each.lab.start, each.lab.goal, shlex.quote(str(each.engine)))))
    graphs = "" if each.lab.goal == "ch6" else " --graphs"
    return f"acb compare {ON_GPU}{graphs} {' '.join(f'--chapter {name}' for name in chapters)}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
