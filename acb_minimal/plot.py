"""Pictures of what was recorded: timelines of a trace, where the time of a step goes, and whom asynchrony helps.

Every function returns a Figure to save or to show. Nothing goes through pyplot, so nothing is left behind. Colours are
safe for colour-blind readers, and whatever they tell apart differs in lightness, hatch, marker or text as well. `dark`
makes an opaque figure for a dark page. This file draws spans and results; it measures nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import text_to_path

from .errors import InputError
from .trace import LANES, Lane, Span, Trace

if TYPE_CHECKING:
    from .regimes import Regime
    from .results import Breakdown

WIDTH = 9.0  # inches, of every figure
FONT = 8  # points: the smallest text
LINE = 11.0  # points that a line of text takes from top to bottom
PAD = 3.0  # points between a text and the ends of its bar
THINNEST = 1.5  # points: nothing is drawn narrower, however short it is

# Where the bars of each lane lie, in inches from the bottom of the axes: lower end and height. Above the compute lane
# there is room for how long its bubbles are.
BARS: dict[Lane, tuple[float, float]] = {
    "CPU": (1.42, 0.40), "H2D": (1.12, 0.20), "compute": (0.36, 0.50), "D2H": (0.06, 0.20),
}  # fmt: skip
LANES_HEIGHT = 1.88


class Ink(NamedTuple):
    """The colour of a slot's bars, of text on them, and of the part of them in which no kernel runs."""

    fill: str
    text: str
    tint: str


@dataclass(frozen=True)
class Theme:
    """The colours of a figure. Slots take turns with two; `host` is for work that involves no slot."""

    page: str
    ink: str
    faint: str
    lane: str
    host: Ink
    slots: tuple[Ink, Ink]
    kernels: str
    gaps: str
    bubbles: str
    series: tuple[str, str, str, str]

    def slot(self, letter: str | None) -> Ink:
        return self.host if letter is None else self.slots[(ord(letter) - ord("A")) % 2]

    def styles(self) -> dict[str, dict]:
        """How the parts of a step and the host's waits are drawn."""
        return {
            "kernels": {"facecolor": self.kernels, "linewidth": 0},
            "launch gaps": {"facecolor": self.gaps, "edgecolor": self.kernels, "hatch": "/////", "linewidth": 0.6},
            "bubbles": {"facecolor": self.page, "edgecolor": self.bubbles, "hatch": "xxxxx", "linewidth": 0.6},
            "wait": {"facecolor": self.page, "edgecolor": self.faint, "hatch": "/////", "linewidth": 0.4},
        }


LIGHT = Theme(
    page="#ffffff",
    ink="#1c2128",
    faint="#5b6470",
    lane="#f1f3f5",
    host=Ink("#1c2128", "#ffffff", "#e3e6ea"),
    slots=(Ink("#2b72bd", "#ffffff", "#dbe8f5"), Ink("#eda720", "#1c2128", "#fdf1d8")),
    kernels="#1b7f6b",
    gaps="#d9ede8",
    bubbles="#c2255c",
    series=("#2166ac", "#b35900", "#1b7f6b", "#a3216b"),
)
DARK = Theme(
    page="#1e2129",
    ink="#e6e9ef",
    faint="#a3abb8",
    lane="#292d38",
    host=Ink("#e6e9ef", "#1c2128", "#3a404c"),
    slots=(Ink("#2b72bd", "#ffffff", "#23374f"), Ink("#f2b53c", "#1c2128", "#463b24")),
    kernels="#3aa790",
    gaps="#21403d",
    bubbles="#ff6b9d",
    series=("#6db3f2", "#f2a65a", "#4fc3a8", "#f28ab8"),
)


def timeline(trace: Trace, first: int, last: int, *, dark: bool = False, title: str = "") -> Figure:
    """What host and device did for batches `first` to `last`, from the first span of any of them to the last one.

    Whatever else happens in that time is drawn too. What is too short to be seen is drawn a little wider, to the right.
    Where it is known how long kernels run inside a compute span, that share of its height is filled; when in the span
    they run is not known. Raises InputError for a batch that the trace does not have.
    """
    theme, known = DARK if dark else LIGHT, trace.batches()
    if not known:
        raise InputError("the trace has no batches to draw")
    for number in (first, last):
        if number not in known:
            raise InputError(f"batch {number} is not in the trace: it has batches {min(known)} to {max(known)}")
    if first > last:
        raise InputError(f"the first batch is {first}; it must not come after the last, {last}")

    figure = Figure((WIDTH, LANES_HEIGHT + 0.85), facecolor=theme.page)
    _title(figure, theme, f"{title} ({trace.device})" if title and trace.device else title or trace.device)
    axes = _axes(figure, theme, 0.78, 0.52, WIDTH - 0.78 - 0.3, LANES_HEIGHT)
    bubbles = {number: (known[number][0] - seconds, known[number][0]) for number, seconds in trace.bubbles().items()}
    times = [(span.start, span.end) for span in trace.spans if span.batch is not None and first <= span.batch <= last]
    times += [bubbles[first]] if first in bubbles else []
    lanes = Lanes(axes, theme, min(start for start, _ in times), max(end for _, end in times))
    for lane in LANES:
        lanes.draw(lane, trace.lane(lane))
    lanes.draw_bubbles(bubbles)
    lanes.finish(figure)
    return figure


class Lanes:
    """Draws spans into axes that show the seconds `begin` to `end` of a trace, in ms from `begin`.

    legend         what has been drawn, by what it is called
    kernels_known  whether a compute span says how long kernels run in it
    taken          how far to the right its lane has been written in
    """

    def __init__(self, axes: Axes, theme: Theme, begin: float, end: float):
        self.axes, self.theme, self.begin = axes, theme, begin
        self.legend: dict[str, Patch] = {}
        self.kernels_known = False
        points = 72 * WIDTH * axes.get_position().width
        self.point = 1e3 * (end - begin) / (points - 8)  # ms; four points are left free at either end
        self.left, self.right = -4 * self.point, 1e3 * (end - begin) + 4 * self.point
        self.taken = self.left

    def place(self, start: float, end: float) -> tuple[float, float]:
        """From where to where on the axes something is drawn that took from `start` to `end`."""
        start, end = 1e3 * (start - self.begin), 1e3 * (end - self.begin)
        return start, max(end, start + THINNEST * self.point)

    def shows(self, start: float, end: float) -> bool:
        return start < self.right and end > self.left

    def draw(self, lane: Lane, spans: Sequence[Span]) -> None:
        low, height = BARS[lane]
        self.axes.axhspan(low, low + height, color=self.theme.lane, linewidth=0)
        spans = [span for span in spans if self.shows(*self.place(span.start, span.end))]
        # What is drawn wider than it is covers its neighbours: what matters most comes last.
        for span in sorted(spans, key=lambda span: (span.name != "wait", span.slot is None, -span.seconds)):
            self.draw_span(span)
        free = [self.left, *(x for span in spans for x in self.place(span.start, span.end)), self.right]
        self.taken = self.left
        self.kernels_known |= any(span.kernels is not None for span in spans)
        for index, span in enumerate(spans):
            self.label(span, max(free[2 * index], self.taken), free[2 * index + 3])

    def draw_span(self, span: Span) -> None:
        low, height = BARS[span.lane]
        start, end = self.place(span.start, span.end)
        what = f"{span.lane} {span.name} {span.batch} {span.slot}"
        if span.name == "wait":
            self.bar(start, end, low, height, "wait", what, **self.theme.styles()["wait"])
            return
        ink, share = self.theme.slot(span.slot), _kernel_share(span)
        if share < 1:
            tank = {"facecolor": ink.tint, "edgecolor": ink.fill, "linewidth": 0.6}
            self.bar(start, end, low, height, f"launch gaps {span.slot}", f"gaps {what}", **tank)
        name = f"slot {span.slot}" if span.slot else "schedule, update"
        wide = {"edgecolor": self.theme.page, "linewidth": 0.5} if end - start > 4 * self.point else {"linewidth": 0}
        self.bar(start, end, low, share * height, name, what, facecolor=ink.fill, **wide)

    def bar(self, start: float, end: float, low: float, height: float, name: str, what: str, **style) -> None:
        self.axes.add_patch(Rectangle((start, low), end - start, height, gid=what, zorder=2, **style))
        self.legend.setdefault(name, Patch(**style))

    def label(self, span: Span, before: float, after: float) -> None:
        """Writes what a span is inside its bar, or beside it where nothing else is from `before` to `after`."""
        low, height = BARS[span.lane]
        middle, share, ink = low + height / 2, _kernel_share(span), self.theme.slot(span.slot)
        start, end = self.place(span.start, span.end)
        inside = max(start, self.left), min(end, self.right)
        whose = f"{span.batch} {span.slot}" if span.slot else f"{span.batch}"
        if span.name == "wait":
            self.write(*inside, middle, ["wait"], self.theme.ink, page=self.theme.page)
        elif span.lane == "CPU":
            self.write(*inside, middle, [f"{span.name} {whose}", whose], ink.text)
        elif share < 1:
            gaps, tall = f"launch gaps {100 * (1 - share):.0f} %", 72 * height * share > LINE
            if tall:
                self.write(*inside, low + height * share / 2, [whose], ink.text)
            if 72 * height * (1 - share) > LINE:
                texts = [gaps] if tall else [f"{whose}, {gaps}", whose]
                self.write(*inside, low + height * (1 + share) / 2, texts, self.theme.ink)
        elif not self.write(*inside, middle, [whose], ink.text) and span.lane != "compute":
            beside = self.write(end, after, middle, [whose], self.theme.faint, "left")
            beside or self.write(before, start, middle, [whose], self.theme.faint, "right")

    def write(self, start: float, end: float, y: float, texts: list[str], color: str, at="center", page="") -> bool:
        """Writes the first of the texts that has room from `start` to `end`; whether there is one."""
        pad = PAD * self.point
        x = {"left": start + pad, "center": (start + end) / 2, "right": end - pad}[at]
        box = {"facecolor": page, "edgecolor": "none", "pad": 1} if page else None
        for text in texts:
            width = _width(text) * self.point + 2 * pad
            if width <= end - start:
                self.axes.text(x, y, text, color=color, size=FONT, ha=at, va="center_baseline", bbox=box, zorder=4)
                self.taken = start + width if at == "left" else end
                return True
        return False

    def draw_bubbles(self, bubbles: Mapping[int, tuple[float, float]]) -> None:
        """Shades the bubble before each batch, given in seconds, and writes above it how long it is."""
        low, height = BARS["compute"]
        style, free = self.theme.styles()["bubbles"], self.left
        for number, (start, end) in sorted(bubbles.items(), key=lambda bubble: bubble[1]):
            text, long_enough = f"{_ms(end - start)} ms", end - start > 5e-7  # what timing events can resolve
            start, end = self.place(start, end)
            if not long_enough or not self.shows(start, end):
                continue
            shown = _legible(style, (end - start) / self.point)
            where = (start, low - 0.03), end - start, height + 0.06
            self.axes.add_patch(Rectangle(*where, gid=f"bubble {number}", zorder=3, **shown))
            self.legend["bubbles"] = Patch(**style)
            half = _width(text) / 2 * self.point
            x = min(max((start + end) / 2, self.left + half), self.right - half)
            if start >= self.left and end <= self.right and x - half >= free:
                y = low + height + 0.04
                self.axes.text(x, y, text, color=self.theme.bubbles, size=FONT, ha="center", va="bottom")
                free = x + half + PAD * self.point

    def finish(self, figure: Figure) -> None:
        """Scales and names the axes, and puts the legend at the foot of the figure."""
        self.axes.set_xlim(self.left, self.right)
        self.axes.set_ylim(0, LANES_HEIGHT)
        self.axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms")
        self.axes.set_yticks([low + height / 2 for low, height in BARS.values()], BARS, size=FONT + 1)
        slots = sorted(name for name in self.legend if name.startswith("slot"))
        entries = {name: self.legend[name] for name in (*slots, "schedule, update", "wait") if name in self.legend}
        tints = tuple(patch for name, patch in sorted(self.legend.items()) if name.startswith("launch gaps"))
        if tints:
            entries["launch gaps (share of the height)"] = tints
        if "bubbles" in self.legend:
            entries["bubbles"] = self.legend["bubbles"]
        if not self.kernels_known:
            entries["(when kernels run inside a batch: not recorded)"] = Patch(visible=False)
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="lower left",
            bbox_to_anchor=(self.axes.get_position().x0, 0),
            ncols=len(entries),
            frameon=False,
            fontsize=FONT,
            labelcolor=self.theme.ink,
            handlelength=1.6,
            columnspacing=1.6,
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
        )


def breakdown(rows: Mapping[str, "Breakdown"], *, dark: bool = False, title: str = "") -> Figure:
    """Where the time of a decode step goes: a bar for each label, and beside it what it stands for, in ms.

    The total is `step`, as measured. A part that came out below zero is written, not drawn. Raises InputError without
    any rows.
    """
    if not rows:
        raise InputError("there is no breakdown to draw: it needs at least one row")
    theme = DARK if dark else LIGHT
    left, foot, table, row = 0.4 + max(map(_width, rows)) / 72, 0.5, 3.75, 0.32  # inches
    columns = dict(zip(("kernels", "launch gaps", "bubbles", "total"), (2.86, 1.76, 0.84, 0.2), strict=True))
    height = row * len(rows)
    figure = Figure((WIDTH, foot + height + 0.3 + 0.32 * bool(title)), facecolor=theme.page)
    _title(figure, theme, title)
    axes = _axes(figure, theme, left, foot, WIDTH - left - table, height)
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
        corner = (x - _width(column) / 72 - 0.14) / WIDTH, (y - 0.055) / figure.get_figheight()
        figure.add_artist(Rectangle(corner, *size, **style))
    write("total", -0.95, "total", size=FONT, weight="bold")
    for line, (label, each) in enumerate(rows.items()):
        start = 0.0
        for part, seconds in ("kernels", each.kernels), ("launch gaps", each.launch_gaps), ("bubbles", each.bubbles):
            width = 1e3 * max(seconds, 0.0)
            style = _legible(theme.styles()[part], width / point)
            axes.add_patch(Rectangle((start, line - 0.34), width, 0.68, gid=f"{label} {part}", **style))
            start += width
            write(part, line, _ms(seconds))
        write("total", line, _ms(each.step), weight="bold")
    return figure


def regimes(points: Sequence["Regime"], *, dark: bool = False, title: str = "") -> Figure:
    """Share of time without a batch on the GPU against batch size: a line for each model and context.

    Raises InputError without any points.
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

    margin = 0.55 + max(_width(text) for _, _, text, _ in ends) / 72
    figure = Figure((WIDTH, 3.4), facecolor=theme.page)
    _title(figure, theme, title)
    height = 2.65 - 0.2 * bool(title)
    axes = _axes(figure, theme, 0.75, 0.55, WIDTH - 0.75 - margin, height)
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


def _title(figure: Figure, theme: Theme, title: str) -> None:
    place = 0.15 / WIDTH, 1 - 0.19 / figure.get_figheight()
    figure.text(*place, title, color=theme.ink, size=FONT + 2, weight="bold", va="center")


def _axes(figure: Figure, theme: Theme, left: float, bottom: float, width: float, height: float) -> Axes:
    """Bare axes, placed in inches."""
    tall = figure.get_figheight()
    axes = figure.add_axes((left / WIDTH, bottom / tall, width / WIDTH, height / tall), facecolor="none")
    axes.spines[:].set_visible(False)
    axes.tick_params("x", length=0, labelsize=FONT, labelcolor=theme.faint)
    axes.tick_params("y", length=0, labelsize=FONT, labelcolor=theme.ink)
    return axes


def _kernel_share(span: Span) -> float:
    """The share of a compute span in which a kernel runs; 1 where that is not known, or as good as all of it."""
    if span.kernels is None or span.kernels > 0.995 * span.seconds:
        return 1.0
    return span.kernels / span.seconds


def _width(text: str) -> float:
    """Points that a text of FONT or FONT + 1 takes at most."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=FONT + 1), ismath=False)[0]


def _ms(seconds: float) -> str:
    """In ms; what is more than nothing does not read as nothing."""
    return "<0.01" if 0 < seconds < 5e-6 else f"{round(1e3 * seconds, 2) + 0.0:.2f}"  # + 0.0: no -0.00


def _legible(style: dict, points: float) -> dict:
    """The style, or where it is too narrow for a hatch, the hatch's colour."""
    return style if points >= 4 or "hatch" not in style else {"facecolor": style["edgecolor"], "linewidth": 0}
