"""What requests wait, by the rate at which they arrive: a line for each chapter."""

from matplotlib.figure import Figure

from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes

PANELS = {"TTFT": "first token, median, ms", "E2EL": "last token, median, ms"}


def rates(rows: list[dict], *, theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """Two panels, from the rows of a table in latency.json: first tokens, last ones. On a phone, one above the other.

    Args:
        rows: each of a chapter at a rate.
        theme: its colours.
        width: in inches.
    """
    wide = width == WIDTH
    across, tall = ((width - 0.75 - 0.95 - 0.2) / 2, 2.5) if wide else (width - 0.75 - 0.2, 2.1)
    figure = Figure((width, 3.5 if wide else 2 * tall + 1.9), facecolor=theme.page)
    chapters = list(dict.fromkeys(row["chapter"] for row in rows))
    for number, (measure, title) in enumerate(PANELS.items()):
        left = 0.75 + number * (across + 0.95) if wide else 0.75
        axes = bare_axes(figure, theme, left, 0.95 if wide or number else tall + 1.65, across, tall)
        for index, chapter in enumerate(chapters):
            line = [row for row in rows if row["chapter"] == chapter]
            points = [row["requests/s"] for row in line], [row[measure] for row in line]
            style = {"marker": "osD^"[index % 4], "linewidth": 1.8, "markersize": 5, "clip_on": False, "zorder": 3}
            axes.plot(*points, color=theme.series[index % 4], label=f"chapter {chapter[2:]}", **style)
        axes.set_xlim(0, 1.03 * max(row["requests/s"] for row in rows))
        axes.set_ylim(0, 1.08 * max(row[measure] for row in rows))
        axes.grid(axis="y", color=theme.lane, linewidth=1)
        axes.set_xlabel("requests a second", color=theme.ink, size=FONT + 1)
        axes.set_ylabel(title, color=theme.ink, size=FONT + 1)
    handles = axes.get_lines()
    style = {"frameon": False, "fontsize": FONT + 1, "labelcolor": theme.ink, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="lower center", ncols=len(chapters) if wide else 2, **style)
    return figure
