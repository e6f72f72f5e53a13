"""The regime map: what a synchronous engine loses to bubbles, by model and batch size."""

from matplotlib.figure import Figure

from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes


def regimes(rows: list[dict], *, theme: Theme = LIGHT) -> Figure:
    """A line for each model, with the size of its weights, from the rows of the table in regimes.json."""
    figure = Figure((WIDTH, 3.2), facecolor=theme.page)
    axes = bare_axes(figure, theme, 0.75, 0.55, WIDTH - 2.85, 2.5)
    sizes = sorted({row["rows"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
    axes.set_ylim(0, 110 * max(row["bubbles"] for row in rows))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    axes.grid(axis="y", color=theme.lane, linewidth=1)
    axes.set_xlabel(f"sequences in a batch, {rows[0]['context']} positions each", color=theme.ink, size=FONT + 1)
    axes.set_ylabel("bubbles, share of a step", color=theme.ink, size=FONT + 1)
    for number, name in enumerate(dict.fromkeys(row["model"] for row in rows)):
        line = [row for row in rows if row["model"] == name]
        points = [row["rows"] for row in line], [100 * row["bubbles"] for row in line]
        color = theme.series[number]
        axes.plot(*points, color=color, marker="osD^"[number], linewidth=1.8, clip_on=False, zorder=3)
        style = {"color": color, "size": FONT + 1, "va": "center", "annotation_clip": False}
        end = points[0][-1], points[1][-1]
        axes.annotate(f"{name}, {line[0]['weights, GB']:.1f} GB", end, (9, 0), textcoords="offset points", **style)
    return figure
