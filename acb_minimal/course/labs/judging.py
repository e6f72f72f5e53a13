"""Whether a lab's engine is what was asked for: in order, as fast as it should be, done as the task says.

Two answers: `quick` says in a moment what the fixed schedules of the small cases and a timed run show; `thorough` then
goes through more schedules. What is in order is for check/ to say, what a lab asks for besides is in steps.py.
"""

import linecache
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ...check import judge, tables
from ...check.cases import CASES
from ...check.pace import Pace, pace
from ...check.schedules import FIXED, SearchResult, harm, replay, search
from ...check.watchdog import Broken, apart
from ...errors import InputError
from ...run.engines import read_source
from .lab import Lab
from .steps import asked

SECONDS = 2.0  # of `thorough`; `acb check` takes more
Progress = Callable[[str], None]
ENDS, ORDER, TOKENS, ALL = "to the end", "order", "tokens", "schedules"


@dataclass(frozen=True)
class Ruling:
    """What the judge says of an engine."""

    judged: dict[str, bool | None]  # what is looked at, and whether it is right; None: that cannot be said yet
    said: str  # in a few words, the first thing that is not
    shown: RenderableType  # all there is to say of that
    pace: Pace | None = None  # how fast it is; None if it could not be timed
    fault: SearchResult | None = None  # what was not in order; None if it was, or did not run at all

    @property
    def passed(self) -> bool:
        """Whether the lab is solved."""
        return all(self.judged.values())

    @property
    def so_far(self) -> bool:
        """Whether nothing was found, and more schedules are left to be tried."""
        return all(right for what, right in self.judged.items() if what != ALL)

    @property
    def ticks(self) -> Text:
        """What is judged, on one line."""
        signs = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}
        ticks = (Text.assemble(f"{what} ", signs[right]) for what, right in self.judged.items())
        count = f"{sum(map(bool, self.judged.values()))} of {len(self.judged)}: "
        return Text(count, "bold").append_text(Text("  ").join(ticks))


def load(file: Path) -> type:
    """The Engine of a file as it is now, however often it was loaded before.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    if not file.is_file():
        raise InputError(f"there is no {str(file)!r}: acb lab reset {file.parent} puts the starter there")
    linecache.checkcache()
    # It is looked up by second and size: of two versions saved in the same second, it may be the older one's.
    sys.dont_write_bytecode = True
    return judge.load(str(file))


def in_its_process(work: Callable[..., Ruling], lab: Lab, file: Path, *more, progress: Progress) -> Ruling:
    """What `work`, one of the functions below, says of an engine, from a process of its own; also if that was ended, or
    what judges was changed."""
    try:
        return apart(work, lab, file, *more, file=str(file), shown=nullcontext(progress))
    except (Broken, InputError) as error:
        said = _unusable(_nothing_yet(lab) | {ENDS: False}, str(error))
        return replace(said, shown=Text(f"{str(error).removesuffix('.')}."))


def quick(lab: Lab, file: Path, progress: Progress) -> Ruling:
    """What can be said at once."""
    judged, fault, mine, found = _nothing_yet(lab), None, None, []
    try:
        engine_class = load(file)
        for seed in map(str, range(len(FIXED) * len(CASES))):
            outcome = replay(engine_class, seed)
            wrong = outcome.wrong_batch_number is not None
            judged[ORDER] = judged[ORDER] is not False and not outcome.hazards
            judged[TOKENS] = judged[TOKENS] is not False and not wrong
            if not outcome.clean:
                fault = fault or SearchResult(seed, outcome, 1, [])
            if outcome.failure is not None and not wrong:
                judged |= {ENDS: False, TOKENS: None}
                break
            judged[ENDS] = judged[ENDS] or not wrong or None
        if judged[ENDS]:
            mine = pace(engine_class, "yours")
    except InputError as error:
        return _unusable(judged | {ENDS: False}, str(error))
    for what, say in asked(lab).items() if mine else ():
        said = say(lab, mine, read_source(file))
        judged[what] = not said
        if said:
            found.append((said[0], Group(Text(f"In order so far, but {said[0]}."), *said[1:])))
    if fault is not None:
        return replace(_faulty(judged, fault), pace=mine)
    said, shown = found[0] if found else ("passed the quick cases", Text("Nothing found by the quick cases."))
    return Ruling(judged, said, shown, mine)


def thorough(lab: Lab, file: Path, found: Ruling, progress: Progress) -> Ruling:
    """The last word on an engine of which `quick` has found nothing."""
    try:
        verdict = search(load(file), SECONDS, progress)
    except InputError as error:
        return replace(_unusable(found.judged | {ALL: False}, str(error)), pace=found.pace)
    if verdict.outcome is not None:
        judged = found.judged | {ALL: False, ORDER: not verdict.outcome.hazards, TOKENS: verdict.harm is None}
        return replace(_faulty(judged, verdict), pace=found.pace)
    covered = tables.number(sum(case.schedules for case in verdict.explored))
    text = f"No hazard, no wrong token: {covered} schedules are covered."
    return replace(found, judged=found.judged | {ALL: True}, said="solved", shown=Text(text))


def again(lab: Lab, file: Path, found: Ruling, progress: Progress) -> Ruling:
    """The command that shows what is not in order: in a schedule with a wrong token, if one is found."""
    fault = found.fault
    shown = harm(load(file), fault.seed, fault.outcome) if fault.harm is None else fault.harm
    return replace(found, shown=tables.again(shlex.quote(str(file)), replace(fault, harm=shown)))


def _nothing_yet(lab: Lab) -> dict[str, bool | None]:
    return dict.fromkeys([ENDS, ORDER, TOKENS, *asked(lab), ALL])


def _unusable(judged: dict[str, bool | None], why: str) -> Ruling:
    return Ruling(judged, _short(why), Text(why))


def _faulty(judged: dict[str, bool | None], fault: SearchResult) -> Ruling:
    outcome = fault.outcome
    if outcome.hazards:
        said = "nothing makes {} wait for {}".format(*outcome.hazards[0].edge)
    else:
        said = _short(outcome.failure)
    return Ruling(judged, said, tables.problem(outcome), fault=fault)


def _short(text: str) -> str:
    first = text.partition(";")[0]
    return first if len(first) <= 80 else f"{first[:79]}…"
