"""Charts of stored tables: what asynchrony wins, how large bubbles are, what requests wait, how far from the floor."""

from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes, legible, text_width
from acb_minimal.trace.formatting import in_ms

LARGEST = 3.0  # H / K at the right end


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
        style = {"linestyle": "none", "marker": "osD^"[number % 4], "markersize": 6, "color": color, "zorder": 4}
        style |= {"markerfacecolor": color if filled else theme.page, "clip_on": False}
        axes.plot(*zip(*points, strict=True), label=f"{name}, {'graphs' if filled else 'kernel by kernel'}", **style)
    style = {"marker": "*", "markersize": 13, "color": theme.bubbles, "linestyle": "none", "zorder": 5}
    axes.plot(*([value] for value in published), label="published: Hugging Face, 8B", **style)
    style = {"frameon": False, "fontsize": FONT, "labelcolor": theme.ink, "handletextpad": 0.4, "labelspacing": 0.7}
    place = {"bbox_to_anchor": (1.02, 1.0) if wide else (-0.2, -0.18), "ncols": 1 if wide else 2}
    axes.legend(loc="upper left", columnspacing=0.8, **place, **style)
    return figure


def regimes(rows: list[dict], *, theme: Theme = LIGHT) -> Figure:
    """A line for each model, with the size of its weights, from the rows of the table in regimes.json."""
    figure = Figure((WIDTH, 3.2), facecolor=theme.page)
    across = f"sequences in a batch, {rows[0]['context']} positions each"
    axes = chart(figure, theme, (0.75, 0.55, WIDTH - 2.85, 2.5), across, "bubbles, share of a step", grid="y")
    sizes = sorted({row["rows"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
    axes.set_ylim(0, 110 * max(row["bubbles"] for row in rows))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    for number, name in enumerate(dict.fromkeys(row["model"] for row in rows)):
        line = [row for row in rows if row["model"] == name]
        points = [row["rows"] for row in line], [100 * row["bubbles"] for row in line]
        color = theme.series[number]
        axes.plot(*points, color=color, marker="osD^"[number], linewidth=1.8, clip_on=False, zorder=3)
        style = {"color": color, "size": FONT + 1, "va": "center", "annotation_clip": False}
        end = points[0][-1], points[1][-1]
        axes.annotate(f"{name}, {line[0]['weights, GB']:.1f} GB", end, (9, 0), textcoords="offset points", **style)
    return figure


PANELS = {"TTFT": "first token, median, ms", "E2EL": "last token, median, ms"}


def rates(rows: list[dict], *, theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """What requests wait, by the rate at which they arrive: two panels, first and last tokens, with a line for each
    chapter, from the rows of the table in latency.json. On a phone one is above the other."""
    wide = width == WIDTH
    across, tall = ((width - 0.75 - 0.95 - 0.2) / 2, 2.5) if wide else (width - 0.75 - 0.2, 2.1)
    figure = Figure((width, 3.5 if wide else 2 * tall + 1.9), facecolor=theme.page)
    chapters = list(dict.fromkeys(row["chapter"] for row in rows))
    for number, (measure, title) in enumerate(PANELS.items()):
        left = 0.75 + number * (across + 0.95) if wide else 0.75
        place = left, 0.95 if wide or number else tall + 1.65, across, tall
        axes = chart(figure, theme, place, "requests a second", title, grid="y")
        for index, chapter in enumerate(chapters):
            line = [row for row in rows if row["chapter"] == chapter]
            points = [row["requests/s"] for row in line], [row[measure] for row in line]
            style = {"marker": "osD^"[index % 4], "linewidth": 1.8, "markersize": 5, "clip_on": False, "zorder": 3}
            axes.plot(*points, color=theme.series[index % 4], label=f"chapter {chapter[2:]}", **style)
        axes.set_xlim(0, 1.03 * max(row["requests/s"] for row in rows))
        axes.set_ylim(0, 1.08 * max(row[measure] for row in rows))
    handles = axes.get_lines()
    style = {"frameon": False, "fontsize": FONT + 1, "labelcolor": theme.ink, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="lower center", ncols=len(chapters) if wide else 2, **style)
    return figure


PARTS = ("attention", "GEMMs", "rest", "between kernels")
LEFT, RIGHT, LINE = 1.5, 1.6, 0.26  # inches: before the bars, after them, from line to line
# Where each column ends, in inches from where the bars begin. What a reader wants first is first: a phone shows that.
COLUMNS = {"": -0.75, "times floor": -0.15, "kernels": WIDTH - LEFT - 0.75, "ms": WIDTH - LEFT - 0.15}


def roofline(rows: list[dict], *, theme: Theme = LIGHT) -> Figure:
    """A pair of bars for each workload and context against its own floor, so that all are on one scale, short or long.

    The total is as measured. What came out below zero, as time between kernels can, is not drawn.

    Args:
        rows: of the table in roofline.json: PARTS and the step itself, step after step.
        theme: its colours.
    """
    pairs: dict[tuple, list] = {}
    for first in range(0, len(rows), len(PARTS) + 1):
        *parts, step = rows[first : first + len(PARTS) + 1]
        pairs.setdefault((step["workload"], step["rows"], step["context"]), []).append((parts, step))
    drawn = [[max(part["ms"], 0) / step["floor, ms"] for part in parts] for p in pairs.values() for parts, step in p]
    longest, height = 1.02 * max(map(sum, drawn)), LINE * sum(1.5 + len(pair) for pair in pairs.values())
    figure = Figure((WIDTH, height + 0.95), facecolor=theme.page)
    axes = bare_axes(figure, theme, LEFT, 0.5, WIDTH - LEFT - RIGHT, height)
    inch = longest / (WIDTH - LEFT - RIGHT)  # in floors
    axes.set_xlim(0, longest)
    axes.set_ylim(height / LINE, 0)
    axes.set_yticks([])
    ticks = [tick / 2 for tick in range(int(2 * longest) + 1)]
    axes.set_xticks(ticks, ["floor" if tick == 1 else f"{tick:g}" for tick in ticks])
    axes.set_xlabel("times the floor: how long reading what must be read takes at the least", size=FONT)
    axes.xaxis.label.set_color(theme.faint)

    def write(inches: float, line: float, text: str, **style) -> None:
        style = {"color": theme.ink, "size": FONT + 1, "va": "center_baseline"} | style
        axes.text(inches * inch, line, text, **style)

    attention, gemms = theme.slots
    styles = dict(zip(PARTS, ({"facecolor": attention.fill}, {"facecolor": gemms.fill}, {"facecolor": theme.kernels},
                              theme.styles()["launch gaps"]), strict=True))  # fmt: skip
    inks = dict(zip(PARTS, (attention.text, gemms.text, theme.page, ""), strict=True))
    keys = [Patch(label=part, **style) for part, style in styles.items()]
    axes.legend(handles=keys, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderpad=0, frameon=False,
                fontsize=FONT, labelcolor=theme.ink, handlelength=1, handleheight=1)  # fmt: skip
    for name, right in COLUMNS.items():
        write(right, -0.5, name, size=FONT, ha="right", weight="bold" if name == "times floor" else "normal")
    line = 0.7
    for (load, count, context), pair in pairs.items():
        write(0, line, f"{load}: {count} rows of {context:,} positions", weight="bold")
        write(COLUMNS["ms"], line, f"floor {in_ms(pair[0][1]['floor, ms'] / 1e3)}", ha="right", size=FONT)
        axes.plot([1, 1], [line + 0.5, line + 0.6 + len(pair)], color=theme.ink, linewidth=2.2, zorder=4)
        for parts, step in pair:
            line, start = line + 1, 0.0
            for part in parts:
                name, length = part["kernels of"], max(part["ms"], 0) / step["floor, ms"]
                axes.barh(line, length, 0.76, start, **legible(styles[name], 72 * length / inch))
                end, text = start + length, in_ms(part["ms"] / 1e3)
                sides = (start, min(end, 1 - 0.04 * inch)), (max(start, 1 + 0.04 * inch), end)  # of the floor's line
                low, high = max(sides, key=lambda side: side[1] - side[0])
                if inks[name] and 72 * (high - low) / inch > text_width(text) + 4:
                    write((low + high) / 2 / inch, line, text, color=inks[name], size=FONT, ha="center")
                start = end
            label = "compiled" if step["compiled"] == "yes" else "as it is"
            cells = label, f"{step['ms'] / step['floor, ms']:.2f}", f"{step['kernels']:,}", in_ms(step["ms"] / 1e3)
            for (name, right), cell in zip(COLUMNS.items(), cells, strict=True):
                write(right, line, cell, ha="right", weight="bold" if name == "times floor" else "normal")
        line += 1.5
    return figure
