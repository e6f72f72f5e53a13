"""How far a decode step is from the floor that memory sets, as a picture: what its time goes to, as it is and compiled.

Every pair of bars is drawn against its own floor, so that all steps are on one scale, short or long. The table it draws
is measure/roofline.py's.
"""

from collections.abc import Iterator
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..errors import InputError
from ..measure.result_table import ResultTable
from .theme import FONT, LIGHT, WIDTH, Theme, bare_axes, in_ms, legible, text_width, write_title

PARTS = ("attention", "GEMMs", "rest", "between kernels")
WHOLE = "the step"
BAR, HEAD, SPACE = 0.25, 0.27, 0.13  # inches: from bar to bar, for the name of a pair, and below it
LEFT, FOOT, TOP = 1.5, 0.5, 0.32
# Where each column ends, in inches from the left. What a reader wants first is first: a phone shows the left half.
COLUMNS = {"": 0.75, "times floor": LEFT - 0.15, "kernels": WIDTH - 0.75, "ms": WIDTH - 0.15}
HEAVY = "times floor"


class Step(NamedTuple):
    """A decode step as the table has it.

    Attributes:
        case: workload and model, number of rows, positions of each.
        compiled: "yes" or "no".
        ms: of each of PARTS.
        total: ms of the step, as measured.
        floor: ms.
        kernels: how many.
    """

    case: tuple[str, int, int]
    compiled: str
    ms: dict[str, float]
    total: float
    floor: float
    kernels: int


def steps(found: ResultTable, *, theme: Theme = LIGHT, title: str = "") -> Figure:
    """A pair of bars for each workload and context, with the floor as a line through all of them.

    The total is as measured. What came out below zero, as time between kernels can, is not drawn.

    Args:
        found: what measure.roofline.roofline returned.
        theme: its colours.
        title: to write above it.

    Raises:
        InputError: the table has no rows.
    """
    pairs: dict[tuple[str, int, int], list[Step]] = {}
    for step in _read(found):
        pairs.setdefault(step.case, []).append(step)
    if not pairs:
        raise InputError("there is no roofline to draw: it needs at least one step")
    styles = _styles(theme)
    height = sum(HEAD + BAR * len(pair) + SPACE for pair in pairs.values())
    top = FOOT + height
    figure = Figure((WIDTH, top + TOP + 0.32 * bool(title)), facecolor=theme.page)
    write_title(figure, theme, title)
    tall, width = figure.get_figheight(), WIDTH - LEFT - 1.6
    axes = bare_axes(figure, theme, LEFT, FOOT, width, height)
    longest = 1.02 * max(_length(step) for pair in pairs.values() for step in pair)
    point = longest / (72 * width)  # in floors
    axes.set_xlim(0, longest)
    axes.set_ylim(0, height)
    axes.set_yticks([])
    ticks = [0.5 * number for number in range(int(2 * longest) + 1)]
    axes.set_xticks(ticks, ["floor" if tick == 1 else f"{tick:g}" for tick in ticks])
    axes.set_xlabel("times the floor: how long reading what must be read takes at the least", size=FONT)
    axes.xaxis.label.set_color(theme.faint)

    def write(inch: float, y: float, text: str, **style) -> None:
        """At so many inches from the left and from the foot."""
        style = {"color": theme.ink, "size": FONT + 1, "va": "center_baseline"} | style
        figure.text(inch / WIDTH, y / tall, text, **style)

    inch = LEFT
    for part in PARTS:
        corner = inch / WIDTH, (top + 0.09) / tall
        figure.add_artist(Rectangle(corner, 0.13 / WIDTH, 0.13 / tall, **styles[part][0]))
        write(inch + 0.19, top + 0.15, part, size=FONT)
        inch += 0.45 + text_width(part) / 72
    for name, right in COLUMNS.items():
        write(right, top + 0.15, name, size=FONT, ha="right", weight="bold" if name == HEAVY else "normal")

    y = height  # inches above the axes' foot
    for (name, rows, context), pair in pairs.items():
        head, floor = FOOT + y - 0.55 * HEAD, f"floor {in_ms(pair[0].floor / 1e3)}"
        write(LEFT, head, f"{name}: {rows} rows of {context:,} positions", weight="bold")
        write(COLUMNS["ms"], head, floor, ha="right", size=FONT)
        y -= HEAD
        ends = y, y - BAR * len(pair) - 0.03
        axes.plot([1, 1], ends, color=theme.ink, linewidth=2.2, zorder=4, solid_capstyle="butt")
        for step in pair:
            middle = y - BAR / 2
            _draw(axes, step, middle, styles, point)
            label = "compiled" if step.compiled == "yes" else "as it is"
            cells = label, f"{step.total / step.floor:.2f}", f"{step.kernels:,}", in_ms(step.total / 1e3)
            for (column, right), text in zip(COLUMNS.items(), cells, strict=True):
                weight = "bold" if column == HEAVY else "normal"
                write(right, FOOT + middle, text, ha="right", weight=weight)
            y -= BAR
        y -= SPACE
    return figure


def _draw(axes, step: Step, middle: float, styles: dict[str, tuple[dict, str]], point: float) -> None:
    """A bar, part by part, each with its ms where there is room for them beside the line of the floor."""
    start = 0.0
    for part in PARTS:
        style, ink = styles[part]
        width = max(step.ms[part], 0.0) / step.floor
        gid = f"{step.case[0]}, {step.case[2]}, {step.compiled}: {part}"
        corner = start, middle - 0.38 * BAR
        axes.add_patch(Rectangle(corner, width, 0.76 * BAR, gid=gid, zorder=2, **legible(style, width / point)))
        text, (low, high) = in_ms(step.ms[part] / 1e3), (start, start + width)
        room = [(low, min(high, 1 - 3 * point)), (max(low, 1 + 3 * point), high)]  # left and right of the line
        low, high = max(room, key=lambda side: side[1] - side[0])
        if ink and high - low > (text_width(text) + 4) * point:
            axes.text((low + high) / 2, middle, text, color=ink, size=FONT, ha="center", va="center_baseline", zorder=3)
        start += width


def _length(step: Step) -> float:
    """Of its bar, in floors."""
    return sum(max(ms, 0.0) for ms in step.ms.values()) / step.floor


def _styles(theme: Theme) -> dict[str, tuple[dict, str]]:
    """How each part is drawn, and the colour of text on it; none is written where nothing runs."""
    attention, gemms = theme.slots
    return {
        "attention": ({"facecolor": attention.fill, "linewidth": 0}, attention.text),
        "GEMMs": ({"facecolor": gemms.fill, "linewidth": 0}, gemms.text),
        "rest": ({"facecolor": theme.kernels, "linewidth": 0}, theme.page),
        "between kernels": (theme.styles()["launch gaps"], ""),
    }


def _read(found: ResultTable) -> Iterator[Step]:
    """The steps of the table, in its order."""
    ms: dict[str, float] = {}
    for values in found.rows:
        row = dict(zip(found.columns, values, strict=True))
        if row["kernels of"] != WHOLE:
            ms[row["kernels of"]] = row["ms"]
            continue
        case = row["workload"], row["rows"], row["context"]
        yield Step(case, row["compiled"], ms, row["ms"], row["floor, ms"], row["kernels"])
        ms = {}
