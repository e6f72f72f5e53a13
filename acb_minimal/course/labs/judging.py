"""Whether a lab's engine is what was asked for: in order, as fast as it should be, done as the task says.

Two answers: `quick` says in a moment what the fixed schedules of the small cases and a timed run show; `thorough` then
goes through more schedules. What is in order is for check/ to say; here is what a lab asks for besides.
"""

import linecache
import shlex
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ...check import judge, tables
from ...check.actions import NOUNS
from ...check.cases import CASES
from ...check.pace import Pace, first_token_lies, pace
from ...check.schedules import FIXED, SearchResult, harm, replay, search
from ...check.watchdog import Broken, apart
from ...errors import InputError
from ...run.engines import code_lines, engine, read_source
from ...run.parts import reserve_of
from .lab import LABS, Lab, changed_lines

SECONDS = 2.0  # of `thorough`; `acb check` takes more
Progress = Callable[[str], None]
SOON = 1e-4  # seconds that a first token may lie longer than by the goal
MANY = 8  # changed lines that are no rewrite, however small the engine is
ENDS, ORDER, TOKENS, STEP, ALL = "to the end", "order", "tokens", "step", "schedules"


@dataclass(frozen=True)
class Ruling:
    """What the judge says of an engine.

    Attributes:
        judged: what is looked at, in order, and whether it is as it should be; None: that cannot be said yet.
        said: in a few words, the first thing that is not.
        shown: all there is to say of that.
        pace: how fast it is; None if it could not be timed.
        fault: what was not in order; None if it was, or did not run at all.
    """

    judged: dict[str, bool | None]
    said: str
    shown: RenderableType
    pace: Pace | None = None
    fault: SearchResult | None = None

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
        line = Text(f"{sum(map(bool, self.judged.values()))} of {len(self.judged)}: ", "bold")
        return line.append_text(Text("  ").join(Text.assemble(f"{what} ", signs[right])
                                                for what, right in self.judged.items()))  # fmt: skip


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
    """What `work` says of an engine, from a process of its own; also if that was ended, or what judges was changed.

    Args:
        work: one of the functions below, which takes all of these.
    """
    try:
        return apart(work, lab, file, *more, file=str(file), shown=nullcontext(progress))
    except (Broken, InputError) as error:
        return Ruling(_nothing_yet(lab) | {ENDS: False}, _short(str(error)), Text(f"{str(error).removesuffix('.')}."))


def quick(lab: Lab, file: Path, progress: Progress) -> Ruling:
    """What can be said at once."""
    asked, judged = _asked(lab), _nothing_yet(lab)
    try:
        engine_class, fault = load(file), None
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
        mine = pace(engine_class, "yours") if judged[ENDS] else None
    except InputError as error:
        return Ruling(judged | {ENDS: False}, _short(str(error)), Text(str(error)))
    found: list[tuple[str, RenderableType]] = []
    if mine is not None:
        for what, say in asked.items():
            said = say(lab, mine, read_source(file))
            judged[what] = not said
            if said:
                found.append((said[0], Group(Text(f"In order so far, but {said[0]}."), *said[1:])))
    if fault is not None:
        return replace(_faulty(judged, fault), pace=mine)
    if found:
        return Ruling(judged, *found[0], mine)
    return Ruling(judged, "passed the quick cases", Text("Nothing found by the quick cases."), mine)


def thorough(lab: Lab, file: Path, found: Ruling, progress: Progress) -> Ruling:
    """The last word on an engine that has passed the quick cases.

    Args:
        found: what `quick` has said.
        progress: is told what goes on.
    """
    try:
        verdict = search(load(file), SECONDS, progress)
    except InputError as error:
        return replace(found, judged=found.judged | {ALL: False}, said=_short(str(error)), shown=Text(str(error)))
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


@cache
def goal_pace(name: str) -> Pace:
    """How fast a lab's engine has to be."""
    lab = LABS[name]
    return pace(engine(lab.solution, lab.name), lab.goal_name)


def _faulty(judged: dict[str, bool | None], fault: SearchResult) -> Ruling:
    outcome = fault.outcome
    if outcome.hazards:
        waits, awaited = outcome.hazards[0].edge
        said = f"nothing makes {waits} wait for {awaited}"
    else:
        said = _short(outcome.failure)
    return Ruling(judged, said, tables.problem(outcome), fault=fault)


def _nothing_yet(lab: Lab) -> dict[str, bool | None]:
    return dict.fromkeys([ENDS, ORDER, TOKENS, *_asked(lab), ALL])


# --- what a lab asks for: each says what is not as it should be, and why; nothing if all is ---


def _asked(lab: Lab) -> dict[str, Callable]:
    asked = {
        "one pass": _forwards if lab.one_forward else None,
        "streams": _streams if lab.streams > 1 else None,
        "slots": _slots if lab.slots > 1 else None,
        "waits": _waits if lab.waits is not None else None,
        "ahead": _ahead if lab.hidden else None,
        STEP: _step,
        "reserve": _reserve if lab.reserve else None,
        "first tokens": _firsts if lab.firsts else None,
        "small change": _rewrite if lab.kind == "hunt" else None,
    }
    return {what: say for what, say in asked.items() if say}


def _forwards(lab: Lab, mine: Pace, source: str) -> tuple | None:
    spans = [span for span in mine.trace.lane("compute") if span.batch_number in mine.decodes]
    count = round(sum(span.name in ("forward", "logits", "replay") for span in spans) / len(mine.decodes))
    if count <= 1:
        return None
    busy = mine.parts.step - mine.parts.bubbles
    cost = (f"They are what it costs: {1e3 * busy:.0f} of the {1e3 * mine.parts.step:.0f} ms of a step. "
            "Each reads all of the model's weights again, for one row. The waits are short.")  # fmt: skip
    return f"a step has {count} forward passes, and one is enough", Text(cost)


def _streams(lab: Lab, mine: Pace, source: str) -> tuple | None:
    if mine.streams < lab.streams:
        return (f"upload, forward pass and download are in {mine.streams} of {lab.streams} streams",)


def _slots(lab: Lab, mine: Pace, source: str) -> tuple | None:
    slots = [span.slot for span in mine.trace.lane("H2D") if span.batch_number in mine.decodes]
    if not all(len(set(slots[place : place + lab.slots])) == lab.slots for place in range(len(slots) - lab.slots + 1)):
        return (f"the batches do not take turns with {lab.slots} slots",)


def _waits(lab: Lab, mine: Pace, source: str) -> tuple | None:
    if (waits := round(mine.host_waits)) > lab.waits:
        return f"the host waits {waits} times in a step, and {_times(lab.waits)} enough", *_lines(mine)


def _ahead(lab: Lab, mine: Pace, source: str) -> tuple | None:
    windows = mine.trace.batches()
    spans = [span for span in mine.trace.lane("CPU") if span.batch_number in mine.decodes]
    late = {span.name for span in spans if span.end > windows[span.batch_number - 1][1]}
    if late := [f"`{what}`" for what in lab.hidden if what in late]:
        which = " and ".join(late)
        return f"it is too late for {which} of the next batch: the GPU is done with this one", *_lines(mine)


def _step(lab: Lab, mine: Pace, source: str) -> tuple | None:
    if not mine.as_fast(theirs := goal_pace(lab.name)):
        return f"a step takes longer than that of {theirs.name}", *_lines(mine)


def _reserve(lab: Lab, mine: Pace, source: str) -> tuple | None:
    asked, enough = (reserve_of(engine(text, lab.name), MANY) for text in (source, lab.solution))
    if asked > enough:
        return (f"with {MANY} drafts it reserves {asked} positions, and fewer are enough",)


def _firsts(lab: Lab, mine: Pace, source: str) -> tuple | None:
    lies, goal = (first_token_lies(engine(text, lab.name)) for text in (source, lab.solution))
    if lies > goal + SOON:
        return (
            f"a first token lies on the host for {1e3 * lies:.1f} ms before anybody has it",
            Text(f"  In {lab.goal_name} it is {1e3 * goal:.1f} ms: means, of a 1B model, launched kernel by kernel."),
        )


def _rewrite(lab: Lab, mine: Pace, source: str) -> tuple | None:
    if changed_lines(lab.starter, source) > max(MANY, len(code_lines(lab.starter, comments=False)) // 2):
        return ("it is another engine now: find the bug in the one you were given",)


def _lines(mine: Pace) -> list[Text]:
    """The lines in which the host waits, for which batch, and what that costs."""
    host = mine.trace.lane("CPU")
    launched = [span for span in host if span.name in ("forward", "logits", "replay")]
    # How many batches have been launched behind the one whose tokens are taken in.
    behind = statistics.median_low(
        max(each.batch_number for each in launched if each.start < span.start) - span.batch_number
        for span in host
        if span.name == "update" and span.batch_number in mine.decodes
    )
    told = []
    for wait in mine.waits:
        more = behind - wait.ahead
        which = f"batch N + {more}, and takes in the tokens of N" if more > 0 else "batch N"
        text = f"waits {1e3 * wait.seconds:.2f} ms a step for the {NOUNS.get(wait.what, wait.what)} of {which}"
        later = f"N + {max(more, 0) + 1}"
        if wait.bubble:
            text += f"; {later} is not launched yet, so the GPU runs dry: {1e3 * wait.bubble:.2f} ms of bubble a step"
        elif wait.ahead:
            text += f"; {later} is launched already"
        told.append(Text(f"  {wait.line.told(mine.file)}: {wait.line.code}\n    {text}"))
    return told


def _times(count: int) -> str:
    return "once is" if count == 1 else f"{count} times are"


def _short(text: str) -> str:
    first = text.partition(";")[0]
    return first if len(first) <= 80 else f"{first[:79]}…"
