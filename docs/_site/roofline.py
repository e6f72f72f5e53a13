"""How far a decode step is from the floor that memory sets: what its time goes to, as it is and compiled."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes, legible, text_width
from acb_minimal.trace.formatting import in_ms

PARTS = ("attention", "GEMMs", "rest", "between kernels")
LEFT, RIGHT, LINE = 1.5, 1.6, 0.26  # inches: before the bars, after them, from line to line
# Where each column ends, in inches from where the bars begin. What a reader wants first is first: a phone shows that.
COLUMNS = {"": -0.75, "times floor": -0.15, "kernels": WIDTH - LEFT - 0.75, "ms": WIDTH - LEFT - 0.15}


def steps(rows: list[dict], *, theme: Theme = LIGHT) -> Figure:
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
    for (workload, count, context), pair in pairs.items():
        write(0, line, f"{workload}: {count} rows of {context:,} positions", weight="bold")
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
