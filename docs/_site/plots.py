"""Plots of stored tables: the law of overlap, and whom asynchrony helps."""

from itertools import groupby

import numpy as np
from matplotlib.figure import Figure

from acb_minimal.measure.result_table import ResultTable
from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes

LARGEST = 3.0  # H / K at the right end


def gains(found: ResultTable, published: tuple[float, float], *, theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """Speedup against H / K: the curve of the law where launching is short, and what was measured.

    Points of engines that launch kernel by kernel lie on the curve of their own L, drawn faintly for each workload.

    Args:
        found: the table of docs/results/law.json.
        published: H / K and speedup of somebody else's run.
    """
    wide = width == WIDTH
    foot, side = (0.6, 2.6) if wide else (1.75, 0.15)
    figure = Figure((width, foot + 3.2), facecolor=theme.page)
    axes = bare_axes(figure, theme, 0.75, foot, width - 0.75 - side, 3.1)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    axes.set_xlim(0, LARGEST)
    axes.set_ylim(min(row["gain"] for row in rows) - 0.05, 2.08)
    axes.set_yticks([1.0, 1.25, 1.5, 1.75, 2.0])
    axes.grid(color=theme.lane, linewidth=1)
    axes.set_xlabel("H / K: bookkeeping as a fraction of GPU time", color=theme.ink, size=FONT + 1)
    axes.set_ylabel("speedup", color=theme.ink, size=FONT + 1)
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
        style = {"linestyle": "none", "marker": "osD^"[number % 4], "markersize": 6, "color": color, "zorder": 4}
        style |= {"markerfacecolor": color if filled else theme.page, "clip_on": False}
        axes.plot(*zip(*points, strict=True), label=f"{name}, {'graphs' if filled else 'kernel by kernel'}", **style)
    style = {"marker": "*", "markersize": 13, "color": theme.bubbles, "linestyle": "none", "zorder": 5}
    axes.plot(*([value] for value in published), label="published: Hugging Face, 8B", **style)
    style = {"frameon": False, "fontsize": FONT, "labelcolor": theme.ink, "handletextpad": 0.4, "labelspacing": 0.7}
    place = {"bbox_to_anchor": (1.02, 1.0) if wide else (-0.2, -0.18), "ncols": 1 if wide else 2}
    axes.legend(loc="upper left", columnspacing=0.8, **place, **style)
    return figure
