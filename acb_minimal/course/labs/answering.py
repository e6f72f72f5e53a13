"""What the judge answers about an engine, bit by bit: for `acb lab check` in its own process, for `acb lab watch` in
one that is forked for each version. This file is there at once: torch is loaded when a judge is asked."""

import os
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ...run.engines import read_source
from .lab import LABS, Lab

PRINTED = 10  # lines of an engine that are shown


class Answer(NamedTuple):
    """One bit of what there is to say.

    Attributes:
        shown: to be printed; from another process it comes as a terminal's text, a str.
        said: in a few words, what is not as it should be; before the last bit, what is being done.
        last: whether that was all.
        passed: whether the lab is solved.
        copied: whether the engine is the chapter's or the solution's text.
        bubble: its share of a step; None if the engine could not be timed.
    """

    shown: RenderableType
    said: str
    last: bool = False
    passed: bool = False
    copied: bool = False
    bubble: float | None = None


def answers(lab: Lab, file: Path, bubbles: list[float], progress: Callable[[str], None]) -> Iterator[Answer]:
    """Judges an engine.

    Args:
        bubbles: those of earlier versions, as shares of a step.
        progress: is told what goes on.
    """
    import torch

    from . import judging, steps

    torch.set_num_threads(1)  # the judge's tensors are so small that threads only get into each other's way
    found = judging.quick(lab, file)
    bubble = None if found.pace is None else steps.share(found.pace)
    picture = []
    if found.pace is not None:
        picture = [Text(), *steps.picture([found.pace, judging.goal_pace(lab.name)])]
        if any(round(100 * each) != round(100 * bubble) for each in bubbles):
            picture.append(Text(f"Your bubbles so far: {', '.join(f'{each:.0%}' for each in [*bubbles, bubble])}"))
    if found.so_far:
        yield Answer(Group(found.ticks, *picture, Text("\nNothing found so far.")), "more schedules")
        found, picture = judging.thorough(file, found, progress), []
    first = Group(found.ticks, found.shown, *picture)
    if found.fault is not None:
        yield Answer(first, "looking for a wrong token")
        first = judging.again(file, found.fault)
    copied = found.passed and lab.copied(read_source(file))
    yield Answer(first, found.said, True, found.passed, copied, bubble)


def send(pipe: Connection, name: str, file: Path, bubbles: list[float], width: int, colors: str | None) -> None:
    """Judges an engine and sends what there is to say: this process is there for nothing else, and is killed with all
    that the engine has started. What the engine prints is told, too."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    sys.stdout = sys.stderr = printed = StringIO()
    console = Console(file=StringIO(), width=width, color_system=colors, force_terminal=True)
    for answer in answers(LABS[name], file, bubbles, lambda text: None):
        lines = printed.getvalue().splitlines()[:PRINTED]
        printed.truncate(printed.seek(0))
        with console.capture() as shown:
            if lines:
                console.print("Your engine has printed:", *lines, sep="\n  ", highlight=False, markup=False)
            console.print(answer.shown, highlight=False)
        pipe.send(answer._replace(shown=shown.get()))
