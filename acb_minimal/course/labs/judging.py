"""Whether a lab's engine is what was asked for: in order, no slower than the chapter, and for a hunt not a rewrite.

Two answers: `quick` says in a moment what the fixed schedules of the small cases and a timed run show; `thorough` then
goes through more schedules. What is in order is for check/ to say; here is what a lab asks for besides.
"""

import linecache
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ...check import judge, tables
from ...check.cases import CASES
from ...check.pace import Pace, of_chapter, pace
from ...check.schedules import FIXED, SearchResult, harm, replay, search
from ...errors import InputError
from ...run.engines import engine
from .lab import Lab, changed_lines, statements

PIECES = ("upload", "forward", "download")
SCHEDULES, RUNS = 40, 50  # of `thorough`; `acb check` tries more
MANY = 8  # changed lines that are no rewrite, however small the engine is


@dataclass(frozen=True)
class Ruling:
    """What the judge says of an engine.

    Attributes:
        passed: whether nothing was found that is not as it should be.
        said: in a few words, what was.
        shown: all there is to say of it.
        pace: how fast it is; None if that was not asked.
        fault: what was not in order; None if it was, or did not run at all.
    """

    passed: bool
    said: str
    shown: RenderableType
    pace: Pace | None = None
    fault: SearchResult | None = None


def load(file: Path) -> type:
    """The Engine of a file as it is now, however often it was loaded before.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    if not file.is_file():
        raise InputError(f"there is no {str(file)!r}: acb lab reset {file.parent} puts the starter there")
    with _no_bytecode():
        engine_class = judge.load(str(file))
    if not isinstance(engine_class, type):
        raise InputError(f"the Engine of {str(file)!r} is no class")
    return engine_class


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Bytecode is looked up by second and size: of two versions saved in the same second, it may be the older one's."""
    linecache.checkcache()
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def quick(lab: Lab, file: Path) -> Ruling:
    """What can be said at once."""
    try:
        engine_class = load(file)
        for seed in map(str, range(len(FIXED) * len(CASES))):
            if not (outcome := replay(engine_class, seed)).clean:
                return _fault(SearchResult(seed, outcome, 1, []))
        mine = pace(engine_class, "yours")
    except InputError as error:
        return Ruling(False, _short(str(error)), Text(str(error)))
    if said := _asked(lab, mine, engine_class, file.read_text()):
        shown = Group(Text(f"In order so far, but {said}."), tables.time(mine, of_chapter(lab.goal)))
        return Ruling(False, said, shown, mine)
    return Ruling(True, "passed the quick cases", Text("Nothing found by the quick cases."), mine)


def thorough(lab: Lab, file: Path, found: Ruling, progress: Callable[[str], None] = lambda text: None) -> Ruling:
    """The last word on an engine that has passed the quick cases.

    Args:
        found: what `quick` has said.
        progress: is told what goes on; whatever it raises ends the search.
    """
    try:
        verdict = search(load(file), SCHEDULES, RUNS, progress)
    except InputError as error:
        return Ruling(False, _short(str(error)), Text(str(error)))
    if verdict.outcome is not None:
        return _fault(verdict)
    covered = sum(explorer.schedules() for explorer in verdict.explorers)
    text = f"No hazard, no wrong token: {tables.number(covered)} schedules are covered."
    return Ruling(True, "solved", Text(text), found.pace)


def again(file: Path, ruling: Ruling) -> Text:
    """The command that shows what is not in order: in a schedule with a wrong token, if one is found."""
    fault = ruling.fault
    shown = harm(load(file), fault.seed, fault.outcome) if fault.harm is None else fault.harm
    return tables.again(shlex.quote(str(file)), SearchResult(fault.seed, fault.outcome, fault.schedules, [], shown))


def before(lab: Lab) -> Pace | None:
    """How fast the lab's starter is; None if that is not what the lab is about."""
    return pace(engine(lab.starter, lab.name), "before") if lab.wins else None


def _fault(verdict: SearchResult) -> Ruling:
    outcome = verdict.outcome
    if outcome.hazards:
        waits, awaited = outcome.hazards[0].edge
        said = f"nothing makes {waits} wait for {awaited}"
    else:
        said = _short(outcome.failure)
    return Ruling(False, said, tables.problem(outcome), fault=verdict)


def _asked(lab: Lab, mine: Pace, engine_class: type, source: str) -> str:
    """What the lab asks for and the engine does not do; empty if it does it all."""
    theirs = of_chapter(lab.goal)
    if (streams := _streams(engine_class)) < lab.streams:
        return f"upload, forward pass and download are in {streams} of {lab.streams} streams"
    if lab.waits is not None and (waits := round(mine.host_waits)) > lab.waits:
        times = {1: "once is", 2: "twice is"}.get(lab.waits, f"{lab.waits} times are")
        return f"the host waits {waits} times in a step, and {times} enough"
    if not mine.as_fast(theirs):
        return f"a step takes longer than that of {theirs.name}"
    if lab.kind == "hunt" and changed_lines(lab.starter, source) > max(MANY, len(statements(lab.starter)) // 2):
        return "it is another engine now: find the bug in the one you were given"
    return ""


def _streams(engine_class: type) -> int:
    """In how many streams its uploads, forward passes and downloads are."""
    actions = replay(engine_class, "0").detector.actions
    return len({action.actor for action in actions if action.what in PIECES})


def _short(text: str) -> str:
    first = text.partition(";")[0]
    return first if len(first) <= 80 else f"{first[:79]}…"
