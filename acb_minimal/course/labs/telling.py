"""What is said of a lab when it begins, when a hint is asked for, and when it is solved. Nothing here needs torch."""

import shlex
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from ...run.engines import read_source
from .lab import changed_lines, difference
from .listing import STUCK
from .started import Started

ON_GPU = "--workload small --host-work 4"  # a workload that most GPUs hold, and ms of host work that it can hide


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
        parts.append(Text("Engines in use have had it:"))
        parts += [Text(f"  {link}") for link in lab.links]
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
    lab = each.lab
    chapters = dict.fromkeys(filter(None, (lab.start, lab.goal, shlex.quote(str(each.engine)))))
    graphs = "" if lab.goal == "ch6" else " --graphs"
    return f"acb compare {ON_GPU}{graphs} {' '.join(f'--chapter {name}' for name in chapters)}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
