"""What `acb check` does with an engine, for the process that is the engine's own."""

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
    """What there is to say of an engine.

    Attributes:
        found: what was found in schedules.
        mine: how fast it is, if it is in order.
        theirs: the chapter beside it.
        untimed: why it cannot be timed, if it cannot.
    """

    found: SearchResult
    mine: Pace | None = None
    theirs: Pace | None = None
    untimed: str | None = None


def check(chapter: str, seconds: float, beside: str | None, progress: Progress) -> Checked:
    """Whether an engine is in order, and if so, how fast.

    Args:
        chapter: as for `engines.chapter_path`.
        seconds: to look for schedules that show something, about.
        beside: the chapter to time it beside; None: the nearest.
        progress: is told what goes on.

    Raises:
        InputError: it cannot be used, or the simulator cannot follow it.
    """
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
    """What became of an engine in the schedule of a seed.

    Raises:
        InputError: as for `check`, or there is no such schedule.
    """
    return replay(load(chapter), seed)


def mutated(chapter: str, progress: Progress) -> ResultTable:
    """What each line that orders is good for.

    Raises:
        InputError: as for `check`.
    """
    load(chapter)
    return table(chapter, progress)
