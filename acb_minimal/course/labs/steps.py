"""A decode step in the terminal: what the host does above what the GPU does, to scale, an engine above another."""

from collections.abc import Sequence

from rich.text import Text

from ...check.pace import SETTING, Pace
from ...trace.spans import LAUNCHES

WIDTH = 44  # characters, of the longest step
WORK = ("▄", "cyan")
SIGNS = {  # what a span is drawn as; any other is work
    "wait": ("·", "dim"),
    **dict.fromkeys((*LAUNCHES, "upload", "download"), ("▒", "blue")),
}
BATCH, BUBBLE = ("█", "green"), ("░", "red")


def picture(paces: Sequence[Pace]) -> list[Text]:
    """A typical step of each, from the end of one batch on the GPU to the end of the next."""
    scale = WIDTH / max(pace.parts.step for pace in paces)
    name = max(len(pace.name) for pace in paces)
    lines = [Text(f"A decode step, {SETTING}"), _legend()]
    for pace in paces:
        windows, number = pace.trace.batches(), pace.decodes[len(pace.decodes) // 2]
        (_, begin), (start, end) = windows[number - 1], windows[number]
        cells = round((end - begin) * scale)
        host = [(span.start, span.end, SIGNS.get(span.name, WORK)) for span in pace.trace.lane("CPU")]
        lanes = {"CPU": host, "GPU": [(start, end, BATCH)]}
        for lane, spans in lanes.items():
            line = Text(f"{pace.name if lane == 'CPU' else '':<{name}}  {lane} ")
            for cell in range(cells):
                middle = begin + (cell + 0.5) / scale
                rest = BUBBLE if lane == "GPU" else (" ", "")
                line.append(*next((sign for first, last, sign in spans if first <= middle < last), rest))
            lines.append(line)
        lines[-1].append(f" {1e3 * pace.parts.step:.1f} ms, bubble {share(pace):.0%}")
    return lines


def share(pace: Pace) -> float:
    """The bubble's share of a step."""
    return max(pace.parts.bubbles, 0.0) / pace.parts.step


def _legend() -> Text:
    host = {WORK: "schedules, writes, updates", SIGNS["forward"]: "launches", SIGNS["wait"]: "waits"}
    device = {BATCH: "a batch", BUBBLE: "bubble"}
    line = Text()
    for lane, signs in {"CPU": host, "GPU": device}.items():
        line.append(f"{lane}:")
        for sign, what in signs.items():
            line.append(" ").append(*sign).append(f" {what}")
        line.append("  ")
    return line
