"""The law of overlap as a picture: what asynchrony wins, by how much work the host has beside the kernels."""

import numpy as np
from matplotlib.figure import Figure

from ..measure.result_table import ResultTable
from ..measure.tables import PUBLISHED
from .theme import FONT, LIGHT, WIDTH, Theme, bare_axes, write_title

LARGEST = 3.0  # H / K at the right end
# Published: name, H / K and gain. The share of time that the synchronous run was without work is taken for H, the rest
# for K; the gain is not what follows from them, but how much less time the asynchronous run took.
(_SYNCHRONOUS, _ACTIVE), (_ASYNCHRONOUS, _) = PUBLISHED.values()
POINTS = {"Hugging Face, 8B": (1 / _ACTIVE - 1, _SYNCHRONOUS / _ASYNCHRONOUS)}


def gains(found: ResultTable, *, theme: Theme = LIGHT, title: str = "") -> Figure:
    """Gain against H / K: the curve of the law where launching is short, and what was measured.

    Points of engines that launch kernel by kernel lie on the curve of their own L, which is drawn faintly for each
    workload: nothing is won until L + H is longer than neither.

    Args:
        found: what measure.law.law returned.
        theme: its colours.
        title: to write above it.
    """
    figure = Figure((WIDTH, 4.2), facecolor=theme.page)
    write_title(figure, theme, title)
    axes = bare_axes(figure, theme, 0.75, 0.6, WIDTH - 0.75 - 2.6, 3.3)
    axes.set_xlim(0, LARGEST)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    axes.set_ylim(min(row["gain"] for row in rows) - 0.05, 2.08)
    axes.set_xticks(np.arange(0, LARGEST + 0.1, 0.5))
    axes.set_yticks([1.0, 1.25, 1.5, 1.75, 2.0], ["1", "1.25", "1.5", "1.75", "2 times"])
    axes.grid(color=theme.lane, linewidth=1)
    axes.set_xlabel("H / K: the rest of the host's work over the kernels", color=theme.ink, size=FONT + 1)
    axes.set_ylabel("times as fast when asynchronous", color=theme.ink, size=FONT + 1)
    ratio = np.linspace(0, LARGEST, 601)
    axes.plot(ratio, (1 + ratio) / np.maximum(1, ratio), color=theme.ink, linewidth=2, zorder=2)
    for number, name in enumerate(dict.fromkeys(row["workload"] for row in rows)):
        for decodes, filled in (("as graphs", True), ("one by one", False)):
            here = [row for row in rows if row["workload"] == name and row["decodes"] == decodes]
            color = theme.series[number % 4]
            if not filled:
                k, ell = here[0]["K"], here[0]["L"]
                curve = (np.maximum(1, ell / k) + ratio) / np.maximum(1, ell / k + ratio)
                axes.plot(ratio, curve, color=color, linewidth=0.9, linestyle="--", zorder=1)
            points = [(row["H"] / row["K"], row["gain"]) for row in here if row["H"] / row["K"] <= LARGEST]
            axes.plot(
                *zip(*points, strict=True),
                linestyle="none",
                marker="osD^"[number % 4],
                markersize=6,
                color=color,
                markerfacecolor=color if filled else theme.page,
                label=f"{name}, {decodes}",
                clip_on=False,
                zorder=4,
            )
    for name, point in POINTS.items():
        style = {"marker": "*", "markersize": 13, "color": theme.bubbles, "linestyle": "none", "zorder": 5}
        axes.plot(*([value] for value in point), label=f"published: {name}", **style)
    style = {"frameon": False, "fontsize": FONT, "labelcolor": theme.ink, "handletextpad": 0.4, "labelspacing": 0.7}
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), **style)
    return figure
