"""Charts of results: where the time of a step goes, and whom asynchrony helps.

Every function returns a Figure to save or to show. This file draws results; it measures nothing. Timelines are in
timeline.py.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..errors import InputError
from ..measure.metrics import Breakdown
from ..measure.regimes import Regime
from .theme import DARK, FONT, LIGHT, LINE, WIDTH, bare_axes, in_ms, legible, text_width, write_title


def breakdown(rows: Mapping[str, Breakdown], *, dark: bool = False, title: str = "") -> Figure:
    """Where the time of a decode step goes: a bar for each label, and beside it what it stands for, in ms.

    The total is `step`, as measured. A part that came out below zero is written, not drawn.

    Args:
        rows: by label, from top to bottom.
        dark: whether for a dark page.
        title: of the figure.

    Raises:
        InputError: there are no rows.
    """
    if not rows:
        raise InputError("there is no breakdown to draw: it needs at least one row")
    theme = DARK if dark else LIGHT
    left, foot, table, row = 0.4 + max(map(text_width, rows)) / 72, 0.5, 3.75, 0.32  # inches
    columns = dict(zip(("kernels", "launch gaps", "bubbles", "total"), (2.86, 1.76, 0.84, 0.2), strict=True))
    height = row * len(rows)
    figure = Figure((WIDTH, foot + height + 0.3 + 0.32 * bool(title)), facecolor=theme.page)
    write_title(figure, theme, title)
    axes = bare_axes(figure, theme, left, foot, WIDTH - left - table, height)
    longest = 1e3 * max(each.kernels + each.launch_gaps + each.bubbles for each in rows.values())
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

    for column, style in list(theme.styles().items())[:3]:
        x, y = write(column, -0.95, column, size=FONT)
        size = 0.11 / WIDTH, 0.11 / figure.get_figheight()
        corner = (x - text_width(column) / 72 - 0.14) / WIDTH, (y - 0.055) / figure.get_figheight()
        figure.add_artist(Rectangle(corner, *size, **style))
    write("total", -0.95, "total", size=FONT, weight="bold")
    for line, (label, each) in enumerate(rows.items()):
        start = 0.0
        for part, seconds in ("kernels", each.kernels), ("launch gaps", each.launch_gaps), ("bubbles", each.bubbles):
            width = 1e3 * max(seconds, 0.0)
            style = legible(theme.styles()[part], width / point)
            axes.add_patch(Rectangle((start, line - 0.34), width, 0.68, gid=f"{label} {part}", **style))
            start += width
            write(part, line, in_ms(seconds))
        write("total", line, in_ms(each.step), weight="bold")
    return figure


def regimes(points: Sequence[Regime], *, dark: bool = False, title: str = "") -> Figure:
    """Share of time without a batch on the GPU against batch size: a line for each model and context.

    Args:
        points: in any order.
        dark: whether for a dark page.
        title: of the figure.

    Raises:
        InputError: there are no points.
    """
    if not points:
        raise InputError("there is no regime map to draw: it needs at least one point")
    theme = DARK if dark else LIGHT
    lines: dict[tuple[int, str, int], list[Regime]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.rows):
        lines[point.weight_bytes, point.model, point.context].append(point)
    contexts, sizes = {point.context for point in points}, sorted({point.rows for point in points})
    positions = f", {points[0].context:,} positions each" if len(contexts) == 1 else ""
    ends = []  # of the lines: share in %, rows, what to write there, number of the line
    for number, ((weights, model, context), line) in enumerate(sorted(lines.items())):
        text = f"{model}, {weights / 1e9:.1f} GB" + f", {context:,} positions" * (not positions)
        ends.append((100 * line[-1].bubble_share, line[-1].rows, text, number))

    margin = 0.55 + max(text_width(text) for _, _, text, _ in ends) / 72
    figure = Figure((WIDTH, 3.4), facecolor=theme.page)
    write_title(figure, theme, title)
    height = 2.65 - 0.2 * bool(title)
    axes = bare_axes(figure, theme, 0.75, 0.55, WIDTH - 0.75 - margin, height)
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_xticks([], minor=True)
    top = 110 * max(point.bubble_share for point in points) or 1.0
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    axes.grid(axis="y", color=theme.lane, linewidth=1)
    axes.set_xlabel(f"sequences in a batch{positions}", color=theme.ink, size=FONT + 1)
    axes.set_ylabel("bubbles, share of a step", color=theme.ink, size=FONT + 1)

    for number, (_, line) in enumerate(sorted(lines.items())):
        dashes = ("-", "--", "-.", ":")[number % 4]
        style = {"color": theme.series[number % 4], "marker": "osD^"[number % 4], "linestyle": dashes, "linewidth": 1.8}
        shares = [100 * point.bubble_share for point in line]
        axes.plot([point.rows for point in line], shares, clip_on=False, zorder=3, **style)
    heights = _apart([share for share, *_ in sorted(ends)], 1.2 * LINE / 72 * top / height, top)
    for y, (share, size, text, number) in zip(heights, sorted(ends), strict=True):
        color = theme.series[number % 4]
        pointer = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5, "relpos": (0, 0.5)}
        style = {"color": color, "size": FONT + 1, "va": "center", "arrowprops": pointer, "annotation_clip": False}
        axes.annotate(text, (size, share), (1.04, y), textcoords=("axes fraction", "data"), **style)
    return figure


def _apart(heights: list[float], least: float, top: float) -> list[float]:
    """The heights, in ascending order, moved so that they are `least` apart and none is above `top`."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    return [min(height, top - least * (len(moved) - 1 - index)) for index, height in enumerate(moved)]
