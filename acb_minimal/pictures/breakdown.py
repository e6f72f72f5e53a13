"""Where the time of a step goes, as bars.

Returns a Figure to save or to show. This file draws results; it measures nothing. Timelines are in timeline.py.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..errors import InputError
from ..trace.formatting import in_ms
from ..trace.law import PARTS, Breakdown
from .theme import FONT, LIGHT, WIDTH, Theme, bare_axes, legible, text_width, write_title


def breakdown(rows: Mapping[str, Breakdown], *, theme: Theme = LIGHT, title: str = "") -> Figure:
    """Where the time of a decode step goes: a bar for each label, and beside it what it stands for, in ms.

    The total is `step`, as measured. A part that came out below zero is written, not drawn.

    Args:
        rows: by label, from top to bottom.
        theme: its colours.
        title: of the figure.

    Raises:
        InputError: there are no rows.
    """
    if not rows:
        raise InputError("there is no breakdown to draw: it needs at least one row")
    names = [part.replace("_", " ") for part in PARTS]
    left, foot, table, row = 0.4 + max(map(text_width, rows)) / 72, 0.5, 4.75, 0.32  # inches
    columns = dict(zip((*names, "total"), (3.86, 2.76, 1.66, 0.8, 0.2), strict=True))
    height = row * len(rows)
    figure = Figure((WIDTH, foot + height + 0.3 + 0.32 * bool(title)), facecolor=theme.page)
    write_title(figure, theme, title)
    axes = bare_axes(figure, theme, left, foot, WIDTH - left - table, height)
    longest = 1e3 * max(sum(max(getattr(each, part), 0.0) for part in PARTS) for each in rows.values())
    point = longest / (72 * (WIDTH - left - table))  # ms
    axes.set_xlim(0, longest)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), rows, size=FONT + 1)
    axes.set_xlabel("ms per decode step", color=theme.faint, size=FONT)

    def write(column: str, line: float, text: str, **style) -> tuple[float, float]:
        """Into the table: line 0 is the first bar's. Returns where, in inches."""
        x, y = WIDTH - columns[column], foot + height - row * (line + 0.5)
        style = {"color": theme.ink, "size": FONT + 1, "ha": "right", "va": "center_baseline"} | style
        figure.text(x / WIDTH, y / figure.get_figheight(), text, **style)
        return x, y

    for column in names:
        style = theme.styles()[column]
        x, y = write(column, -0.95, column, size=FONT)
        size = 0.11 / WIDTH, 0.11 / figure.get_figheight()
        corner = (x - text_width(column) / 72 - 0.14) / WIDTH, (y - 0.055) / figure.get_figheight()
        figure.add_artist(Rectangle(corner, *size, **style))
    write("total", -0.95, "total", size=FONT, weight="bold")
    for line, (label, each) in enumerate(rows.items()):
        start = 0.0
        for part, seconds in zip(names, (getattr(each, part) for part in PARTS), strict=True):
            width = 1e3 * max(seconds, 0.0)
            style = legible(theme.styles()[part], width / point)
            axes.add_patch(Rectangle((start, line - 0.34), width, 0.68, gid=f"{label} {part}", **style))
            start += width
            write(part, line, in_ms(seconds))
        write("total", line, in_ms(each.step), weight="bold")
    return figure
