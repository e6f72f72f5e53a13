"""Charts of stored tables: what asynchrony wins, how large bubbles are, what requests wait."""

from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes

LARGEST = 3.0  # H / K at the right end
MARKERS = "osD^"


def chart(figure: Figure, theme: Theme, place: tuple[float, ...], across: str, up: str, grid: str = "both") -> Axes:
    """Axes with a grid and names, at a place in inches: left, bottom, width, height."""
    axes = bare_axes(figure, theme, *place)
    axes.grid(axis=grid, color=theme.lane, linewidth=1)
    axes.set_xlabel(across, color=theme.ink, size=FONT + 1)
    axes.set_ylabel(up, color=theme.ink, size=FONT + 1)
    return axes


def gains(rows: list[dict], *, published: tuple[float, float], theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """Speedup against H / K: the curve of the law where launching is short, and what was measured.

    Points of engines that launch kernel by kernel lie on the curve of their own L, drawn faintly for each workload.

    Args:
        rows: of the table in law.json.
        published: H / K and speedup of somebody else's run.
    """
    wide = width == WIDTH
    foot, side = (0.6, 2.6) if wide else (1.75, 0.15)
    figure = Figure((width, foot + 3.2), facecolor=theme.page)
    place = 0.75, foot, width - 0.75 - side, 3.1
    axes = chart(figure, theme, place, "H / K: bookkeeping as a fraction of GPU time", "speedup")
    axes.set_xlim(0, LARGEST)
    axes.set_ylim(min(row["gain"] for row in rows) - 0.05, 2.08)
    axes.set_yticks([1.0, 1.25, 1.5, 1.75, 2.0])
    ratio = np.linspace(0, LARGEST, 601)
    axes.plot(ratio, (1 + ratio) / np.maximum(1, ratio), color=theme.ink, linewidth=2, zorder=2)
    names = list(dict.fromkeys(row["workload"] for row in rows))
    for (name, decodes), group in groupby(rows, lambda row: (row["workload"], row["decodes"])):
        here, number, filled = list(group), names.index(name), decodes == "as graphs"
        color = theme.series[number % 4]
        if not filled:
            k, ell = here[0]["K"], here[0]["L"]
            curve = (np.maximum(1, ell / k) + ratio) / np.maximum(1, ell / k + ratio)
            axes.plot(ratio, curve, color=color, linewidth=0.9, linestyle="--", zorder=1)
        points = [(row["H"] / row["K"], row["gain"]) for row in here if row["H"] / row["K"] <= LARGEST]
        style = {"linestyle": "none", "marker": MARKERS[number % 4], "markersize": 6, "color": color, "zorder": 4}
        style |= {"markerfacecolor": color if filled else theme.page, "clip_on": False}
        axes.plot(*zip(*points, strict=True), label=f"{name}, {'graphs' if filled else 'kernel by kernel'}", **style)
    style = {"marker": "*", "markersize": 13, "color": theme.bubbles, "linestyle": "none", "zorder": 5}
    axes.plot(*([value] for value in published), label="published: Hugging Face, 8B", **style)
    style = {"frameon": False, "fontsize": FONT, "labelcolor": theme.ink, "handletextpad": 0.4, "labelspacing": 0.7}
    place = {"bbox_to_anchor": (1.02, 1.0) if wide else (-0.2, -0.18), "ncols": 1 if wide else 2}
    axes.legend(loc="upper left", columnspacing=0.8, **place, **style)
    return figure


def regimes(rows: list[dict], *, theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """A curve for each model, with the size of its weights, from the rows of the table in regimes.json."""
    rows = [row | {"name": f"{row['model']}, {row['weights, GB']:.1f} GB"} for row in rows]
    across = "rows", f"sequences in a batch, {rows[0]['context']} positions each"
    figure = curves(rows, across, {"bubbles": "bubbles, share of a step"}, theme, width)
    sizes = sorted({row["rows"] for row in rows})
    (axes,) = figure.axes
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    return figure


def rates(rows: list[dict], *, theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """What requests wait, by the rate at which they arrive, from the rows of the table in latency.json."""
    rows = [row | {"name": f"chapter {row['chapter'][2:]}"} for row in rows]
    panels = {"TTFT": "first token, median, ms", "E2EL": "last token, median, ms"}
    return curves(rows, ("requests/s", "requests a second"), panels, theme, width)


def curves(rows: list[dict], across: tuple[str, str], panels: dict[str, str], theme: Theme, width: float) -> Figure:
    """Panels side by side, on a phone one above the other, with a curve for each `name` of the rows.

    Args:
        across: the column that goes to the right, and what to call it.
        panels: the columns that go up, and what to call them.
    """
    wide, count = width == WIDTH, len(panels)
    size, tall = ((width - 0.95 * count) / count, 2.5) if wide else (width - 0.95, 2.1)
    figure = Figure((width, 3.5 if wide else 1.4 + count * (tall + 0.7)), facecolor=theme.page)
    for number, (column, title) in enumerate(panels.items()):
        left, up = (0.75 + number * (size + 0.95), 0) if wide else (0.75, (count - 1 - number) * (tall + 0.7))
        axes = chart(figure, theme, (left, 0.95 + up, size, tall), across[1], title, grid="y")
        for index, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
            points = zip(*((row[across[0]], row[column]) for row in rows if row["name"] == name), strict=True)
            style = {"marker": MARKERS[index], "linewidth": 1.8, "markersize": 5, "clip_on": False, "zorder": 3}
            axes.plot(*points, color=theme.series[index], label=name, **style)
        axes.set_xlim(0, 1.03 * max(row[across[0]] for row in rows))
        axes.set_ylim(0, 1.08 * max(row[column] for row in rows))
    style = {"frameon": False, "fontsize": FONT + 1, "labelcolor": theme.ink, "columnspacing": 1.2}
    figure.legend(handles=axes.get_lines(), loc="lower center", ncols=4 if wide else 2, **style)
    return figure
