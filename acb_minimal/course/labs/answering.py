"""What the judge answers about an engine, bit by bit: for `acb lab check` in its own process, for `acb lab watch` in
one that is forked for each version. This file is there at once: torch is loaded when a judge is asked."""

import os
from collections.abc import Callable, Iterator
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ...run.engines import read_source
from .lab import LABS, Lab

PRINTED = 10  # lines of an engine that are shown


class Answer(NamedTuple):
    """One bit of what there is to say."""

    shown: RenderableType  # from another process it comes as a terminal's text, a str
    said: str  # in a few words, what is not as it should be; before the last bit, what is being done
    last: bool = False
    passed: bool = False  # whether the lab is solved
    copied: bool = False  # whether the engine is the chapter's or the solution's text
    bubble: float | None = None  # its share of a step; None if the engine could not be timed


def answers(lab: Lab, file: Path, bubbles: list[float], progress: Callable[[str], None]) -> Iterator[Answer]:
    """Judges an engine.

    Args:
        bubbles: those of earlier versions, as shares of a step.
        progress: is told what goes on.
    """
    from . import judging, steps

    def ask(work: Callable, *more) -> judging.Ruling:
        return judging.in_its_process(work, lab, file, *more, progress=progress)

    found = ask(judging.quick)
    bubble, picture = None, []
    if found.pace is not None:
        bubble, picture = steps.share(found.pace), [Text(), *steps.picture([found.pace, steps.goal_pace(lab.name)])]
        if any(round(100 * each) != round(100 * bubble) for each in bubbles):
            picture.append(Text(f"Your bubbles so far: {', '.join(f'{each:.0%}' for each in [*bubbles, bubble])}"))
    if found.so_far:
        yield Answer(Group(found.ticks, *picture, Text("\nNothing found so far.")), "more schedules")
        found, picture = ask(judging.thorough, found), []
    first = Group(found.ticks, found.shown, *picture)
    if found.fault is not None:
        yield Answer(first, "looking for a wrong token")
        first = ask(judging.again, found).shown
    copied = found.passed and lab.copied(read_source(file))
    yield Answer(first, found.said, True, found.passed, copied, bubble)


def send(pipe: Connection, name: str, file: Path, bubbles: list[float], width: int, colors: str | None) -> None:
    """Judges an engine and sends what there is to say: this process is there for nothing else, and is killed with all
    that the engine has started. What the engine prints is told, too."""
    os.setpgrp()
    console = Console(file=StringIO(), width=width, color_system=colors, force_terminal=True)
    with TemporaryFile("w+") as printed:
        for stream in (1, 2):
            os.dup2(printed.fileno(), stream)
        for answer in answers(LABS[name], file, bubbles, lambda text: None):
            printed.seek(0)
            lines = printed.read().splitlines()[:PRINTED]
            printed.truncate(0)
            with console.capture() as shown:
                if lines:
                    console.print("Your engine has printed:", *lines, sep="\n  ", highlight=False, markup=False)
                console.print(answer.shown, highlight=False)
            pipe.send(answer._replace(shown=shown.get()))
