"""A decode step of an engine: what a lab asks of it, besides order and right tokens, and how it looks in characters."""

import statistics
from collections.abc import Callable, Sequence
from functools import cache

from rich.text import Text

from ...check.actions import NOUNS
from ...check.pace import SETTING, Pace, first_token_lies, pace
from ...run.engines import code_lines, engine
from ...run.parts import reserve_of
from ...trace.spans import LAUNCHES
from .lab import LABS, Lab, changed_lines

SOON = 1e-4  # seconds that a first token may lie longer than by the goal
MANY = 8  # changed lines that are no rewrite, however small the engine is; drafts to ask for a reserve
FORWARDS = ("forward", "logits", "replay")


@cache
def goal_pace(name: str) -> Pace:
    """How fast a lab's engine has to be."""
    lab = LABS[name]
    return pace(engine(lab.solution, lab.name), lab.goal_name)


def asked(lab: Lab) -> dict[str, Callable[[Lab, Pace, str], tuple | None]]:
    """What a lab asks for, in order; given it, how fast an engine is and its text, each says what is not as it should
    be, a text and maybe lines that explain it; nothing if all is."""
    return {what: say for what, (applies, say) in ASKED.items() if applies(lab)}


def _forwards(lab: Lab, mine: Pace, source: str) -> tuple | None:
    spans = [span for span in mine.trace.lane("compute") if span.batch_number in mine.decodes]
    count = round(sum(span.name in FORWARDS for span in spans) / len(mine.decodes))
    if count > 1:
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
        enough = "once is" if lab.waits == 1 else f"{lab.waits} times are"
        return f"the host waits {waits} times in a step, and {enough} enough", *_lines(mine)


def _ahead(lab: Lab, mine: Pace, source: str) -> tuple | None:
    windows = mine.trace.batches()
    spans = [span for span in mine.trace.lane("CPU") if span.batch_number in mine.decodes]
    late = {span.name for span in spans if span.end > windows[span.batch_number - 1][1]}
    if which := " and ".join(f"`{what}`" for what in lab.hidden if what in late):
        return f"it is too late for {which} of the next batch: the GPU is done with this one", *_lines(mine)


def _step(lab: Lab, mine: Pace, source: str) -> tuple | None:
    if not mine.as_fast(theirs := goal_pace(lab.name)):
        return f"a step takes longer than that of {theirs.name}", *_lines(mine)


def _reserve(lab: Lab, mine: Pace, source: str) -> tuple | None:
    positions, enough = (reserve_of(engine(text, lab.name), MANY) for text in (source, lab.solution))
    if positions > enough:
        return (f"with {MANY} drafts it reserves {positions} positions, and fewer are enough",)


def _firsts(lab: Lab, mine: Pace, source: str) -> tuple | None:
    lies, goal = (first_token_lies(engine(text, lab.name)) for text in (source, lab.solution))
    if lies > goal + SOON:
        told = f"  In {lab.goal_name} it is {1e3 * goal:.1f} ms: means, of a 1B model, launched kernel by kernel."
        return f"a first token lies on the host for {1e3 * lies:.1f} ms before anybody has it", Text(told)


def _rewrite(lab: Lab, mine: Pace, source: str) -> tuple | None:
    if changed_lines(lab.starter, source) > max(MANY, len(code_lines(lab.starter, comments=False)) // 2):
        return ("it is another engine now: find the bug in the one you were given",)


# By name, which labs it is asked in, and what says it.
ASKED = {
    "one pass": (lambda lab: lab.one_forward, _forwards),
    "streams": (lambda lab: lab.streams > 1, _streams),
    "slots": (lambda lab: lab.slots > 1, _slots),
    "waits": (lambda lab: lab.waits is not None, _waits),
    "ahead": (lambda lab: lab.hidden, _ahead),
    "step": (lambda lab: True, _step),
    "reserve": (lambda lab: lab.reserve, _reserve),
    "first tokens": (lambda lab: lab.firsts, _firsts),
    "small change": (lambda lab: lab.kind == "hunt", _rewrite),
}


def _lines(mine: Pace) -> list[Text]:
    """The lines in which the host waits, for which batch, and what that costs."""
    host = mine.trace.lane("CPU")
    launched = [span for span in host if span.name in FORWARDS]
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


# --- a picture: what the host does above what the GPU does, to scale, an engine above another ---

WIDTH = 44  # characters, of the longest step
HOST = {"schedules, writes, updates": ("▄", "cyan"), "launches": ("▒", "blue"), "waits": ("·", "dim")}
GPU = {"a batch": ("█", "green"), "bubble": ("░", "red")}
DONE = dict.fromkeys((*LAUNCHES, "upload", "download"), "launches") | {"wait": "waits"}  # any other span is the first


def picture(paces: Sequence[Pace]) -> list[Text]:
    """A typical step of each, from the end of one batch on the GPU to the end of the next."""
    scale = WIDTH / max(each.parts.step for each in paces)
    name = max(len(each.name) for each in paces)
    legend = Text()
    for lane, signs in {"CPU": HOST, "GPU": GPU}.items():
        legend.append(f"{lane}:")
        for what, sign in signs.items():
            legend.append(" ").append(*sign).append(f" {what}")
        legend.append("  ")
    lines = [Text(f"A decode step, {SETTING}"), legend]
    for each in paces:
        windows, number = each.trace.batches(), each.decodes[len(each.decodes) // 2]
        (_, begin), (start, end) = windows[number - 1], windows[number]
        host = [(span.start, span.end, HOST[DONE.get(span.name, next(iter(HOST)))]) for span in each.trace.lane("CPU")]
        for lane, spans in {"CPU": host, "GPU": [(start, end, GPU["a batch"])]}.items():
            line = Text(f"{each.name if lane == 'CPU' else '':<{name}}  {lane} ")
            for cell in range(round((end - begin) * scale)):
                middle = begin + (cell + 0.5) / scale
                rest = GPU["bubble"] if lane == "GPU" else (" ", "")
                line.append(*next((sign for first, last, sign in spans if first <= middle < last), rest))
            lines.append(line)
        lines[-1].append(f" {1e3 * each.parts.step:.1f} ms, bubble {share(each):.0%}")
    return lines


def share(pace: Pace) -> float:
    """The bubble's share of a step."""
    return max(pace.parts.bubbles, 0.0) / pace.parts.step
