"""The regime map: whom asynchrony helps.

Returns a Figure to save or to show. This file draws results; it measures nothing.
"""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.figure import Figure

from ..errors import InputError
from ..measure.regimes import Regime
from .theme import FONT, LIGHT, LINE, WIDTH, Theme, bare_axes, text_width, write_title


def regimes(points: Sequence[Regime], *, theme: Theme = LIGHT, title: str = "") -> Figure:
    """Share of time without a batch on the GPU against batch size: a line for each model and context.

    Args:
        points: in any order.
        theme: its colours.
        title: of the figure.

    Raises:
        InputError: there are no points.
    """
    if not points:
        raise InputError("there is no regime map to draw: it needs at least one point")
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
