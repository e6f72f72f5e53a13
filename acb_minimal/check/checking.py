"""What `acb check` does with an engine, for the process that is the engine's own. All of these raise InputError if it
cannot be used, or the simulator cannot follow it; `progress` is told what goes on."""

from collections.abc import Callable
from typing import NamedTuple

from ..errors import InputError
from ..measure.result_table import ResultTable
from ..run.engines import chapter_path
from .judge import Outcome, load
from .mutations import table
from .pace import Pace, nearest, of_chapter, pace
from .schedules import SearchResult, replay, search

Progress = Callable[[str], None]


class Checked(NamedTuple):
    """What there is to say of an engine."""

    found: SearchResult
    mine: Pace | None = None  # how fast it is, if it is in order
    theirs: Pace | None = None  # the chapter beside it
    untimed: str | None = None  # why it cannot be timed, if it cannot


def check(chapter: str, seconds: float, beside: str | None, progress: Progress) -> Checked:
    """Whether an engine is in order, looking for so many seconds, about; and if so, how fast, beside a chapter (None:
    the nearest)."""
    engine_class = load(chapter)
    found = search(engine_class, seconds, progress)
    if found.outcome is not None:
        return Checked(found)
    progress("its time")
    try:
        mine = pace(engine_class, chapter_path(chapter).stem)
    except InputError as error:
        return Checked(found, untimed=str(error))
    return Checked(found, mine, of_chapter(beside or nearest(mine)))


def replayed(chapter: str, seed: str, progress: Progress) -> Outcome:
    """What became of an engine in the schedule of a seed."""
    return replay(load(chapter), seed)


def mutated(chapter: str, progress: Progress) -> ResultTable:
    """What each line that orders is good for."""
    load(chapter)
    return table(chapter, progress)
