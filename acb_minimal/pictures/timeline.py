"""A timeline of a trace: what host and device did for a few batches, a lane each, waits hatched and bubbles shaded."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch, Rectangle

from ..errors import InputError
from ..trace.formatting import in_ms
from ..trace.spans import LANES, SWAPS, Lane, Span, Trace
from .theme import (
    FONT,
    LIGHT,
    LINE,
    PAD,
    THINNEST,
    WIDTH,
    Theme,
    bare_axes,
    legible,
    text_width,
    write_title,
)

# Where the bars of each lane lie, in inches from the bottom of the axes: lower end and height. Above the compute lane
# there is room for how long its bubbles are, above the CPU's for what a bar without a slot is too narrow to say.
BARS: dict[Lane, tuple[float, float]] = {
    "CPU": (1.42, 0.40), "H2D": (1.12, 0.20), "compute": (0.36, 0.50), "D2H": (0.06, 0.20),
}  # fmt: skip
LANES_HEIGHT = 2.00


def timeline(
    trace: Trace, first: int, last: int, *, theme: Theme = LIGHT, title: str = "", width: float = WIDTH
) -> Figure:
    """What host and device did for batches `first` to `last`, from the first span of any of them to the last one.

    Whatever else happens in that time is drawn too. What is too short to be seen is drawn a little wider, to the right.
    Where it is known how long kernels run inside a compute span, that share of its height is filled; when in the span
    they run is not known.

    Args:
        trace: what to draw from.
        first: number of the first batch.
        last: number of the last batch.
        theme: its colours.
        title: of the figure; what the trace was recorded on follows it.
        width: inches.

    Raises:
        InputError: the trace does not have the batches.
    """
    known = trace.batches()
    if not known:
        raise InputError("the trace has no batches to draw")
    for number in (first, last):
        if number not in known:
            raise InputError(f"batch {number} is not in the trace: it has batches {min(known)} to {max(known)}")
    if first > last:
        raise InputError(f"the first batch is {first}; it must not come after the last, {last}")

    axes = empty(theme, f"{title} ({trace.device})" if title and trace.device else title or trace.device, width)
    bubbles = {number: (known[number][0] - seconds, known[number][0]) for number, seconds in trace.bubbles().items()}
    shown = (span for span in trace.spans if span.batch_number is not None and first <= span.batch_number <= last)
    times = [(span.start, span.end) for span in shown]
    times += [bubbles[first]] if first in bubbles else []
    lanes = Lanes(axes, theme, min(start for start, _ in times), max(end for _, end in times))
    for lane in LANES:
        lanes.draw(lane, trace.lane(lane))
    lanes.draw_bubbles(bubbles)
    return lanes.finish()


def empty(theme: Theme, title: str, width: float = WIDTH) -> Axes:
    """Axes for lanes, in a figure of their own."""
    foot = 0.52 if width == WIDTH else 0.52 + 2 * LINE / 72  # for more lines of the legend
    figure = Figure((width, foot + LANES_HEIGHT + (0.33 if title else 0.1)), facecolor=theme.page)
    write_title(figure, theme, title)
    return bare_axes(figure, theme, 0.78, foot, width - 0.78 - 0.3, LANES_HEIGHT)


class Lanes:
    """Draws spans of a trace, from one moment of it to another, into axes.

    Attributes:
        axes: to draw into; what is drawn there is in ms from `begin`.
        theme: the colours.
        begin: seconds on the trace's clock.
        legend: what has been drawn, by what it is called.
        kernels_known: whether a compute span says how long kernels run in it.
        point: ms that a point of the page is wide.
        left: where the axes begin, in ms.
        right: where the axes end, in ms.
        taken: how far to the right the lane that is being drawn has been written in, in ms.
        taken_above: likewise, above the CPU's lane.
    """

    def __init__(self, axes: Axes, theme: Theme, begin: float, end: float):
        self.axes, self.theme, self.begin = axes, theme, begin
        self.legend: dict[str, Patch] = {}
        self.kernels_known = False
        points = 72 * axes.figure.get_figwidth() * axes.get_position().width
        self.point = 1e3 * (end - begin) / (points - 8)  # ms; four points are left free at either end
        self.left, self.right = -4 * self.point, 1e3 * (end - begin) + 4 * self.point
        self.taken = self.taken_above = self.left

    def place(self, start: float, end: float) -> tuple[float, float]:
        """From where to where on the axes, in ms, something is drawn that took from `start` to `end`, in seconds."""
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
        what = f"{span.lane} {span.name} {span.batch_number} {span.slot}"
        if span.name == "wait":
            self.bar(start, end, low, height, "wait", what, **self.theme.styles()["wait"])
            return
        if span.name in SWAPS.values():
            style = {"facecolor": self.theme.faint, "edgecolor": self.theme.page, "linewidth": 0.5}
            self.bar(start, end, low, height, "KV pages", what, **style)
            return
        ink, share = self.theme.slot(span.slot), _busy_share(span)
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
        middle, share, ink = low + height / 2, _busy_share(span), self.theme.slot(span.slot)
        start, end = self.place(span.start, span.end)
        inside = max(start, self.left), min(end, self.right)
        whose = f"{span.batch_number} {span.slot}" if span.slot else f"{span.batch_number}"
        if span.name == "wait":
            self.write(*inside, middle, ["wait"], self.theme.ink, page=self.theme.page)
        elif span.name in SWAPS.values():  # for no batch
            self.write(*inside, middle, [span.name.replace("_", " ")], self.theme.page)
        elif span.lane == "CPU":
            if not self.write(*inside, middle, [f"{span.name} {whose}"], ink.text):
                self.write(*inside, middle, [whose], ink.text)
                if not span.slot:
                    self.write_above(sum(inside) / 2, low + height, span.name)
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
        """Writes the first of the texts that has room from `start` to `end`, in ms; whether there is one."""
        pad = PAD * self.point
        x = {"left": start + pad, "center": (start + end) / 2, "right": end - pad}[at]
        box = {"facecolor": page, "edgecolor": "none", "pad": 1} if page else None
        for text in texts:
            width = text_width(text) * self.point + 2 * pad
            if width <= end - start:
                self.axes.text(x, y, text, color=color, size=FONT, ha=at, va="center_baseline", bbox=box, zorder=4)
                self.taken = start + width if at == "left" else end
                return True
        return False

    def write_above(self, middle: float, y: float, text: str) -> None:
        """Writes over a bar what it is too narrow for, if there is room."""
        half = (text_width(text) / 2 + PAD) * self.point
        if middle - half >= self.taken_above and middle + half <= self.right:
            self.axes.text(middle, y + 0.03, text, color=self.theme.faint, size=FONT, ha="center", va="bottom")
            self.taken_above = middle + half

    def draw_bubbles(self, bubbles: Mapping[int, tuple[float, float]]) -> None:
        """Shades the bubble before each batch, given in seconds, and writes above it how long it is."""
        low, height = BARS["compute"]
        style, free = self.theme.styles()["bubbles"], self.left
        for number, (start, end) in sorted(bubbles.items(), key=lambda bubble: bubble[1]):
            text, long_enough = f"{in_ms(end - start)} ms", end - start > 5e-7  # what timing events can resolve
            start, end = self.place(start, end)
            if not long_enough or not self.shows(start, end):
                continue
            shown = legible(style, (end - start) / self.point)
            where = (start, low - 0.03), end - start, height + 0.06
            self.axes.add_patch(Rectangle(*where, gid=f"bubble {number}", zorder=3, **shown))
            self.legend["bubbles"] = Patch(**style)
            half = text_width(text) / 2 * self.point
            x = min(max((start + end) / 2, self.left + half), self.right - half)
            if start >= self.left and end <= self.right and x - half >= free:
                y = low + height + 0.04
                self.axes.text(x, y, text, color=self.theme.bubbles, size=FONT, ha="center", va="bottom")
                free = x + half + PAD * self.point

    def finish(self) -> Figure:
        """Scales and names the axes, and puts the legend at the foot of the figure, which is done then."""
        figure = self.axes.figure
        wide = figure.get_figwidth() == WIDTH
        self.axes.set_xlim(self.left, self.right)
        self.axes.set_ylim(0, LANES_HEIGHT)
        self.axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms")
        self.axes.set_yticks([low + height / 2 for low, height in BARS.values()], BARS, size=FONT + 1)
        slots = sorted(name for name in self.legend if name.startswith("slot"))
        names = *slots, "schedule, update", "KV pages", "wait"
        entries = {name: self.legend[name] for name in names if name in self.legend}
        tints = tuple(patch for name, patch in sorted(self.legend.items()) if name.startswith("launch gaps"))
        if tints:
            entries["launch gaps (share of the height)"] = tints
        if "bubbles" in self.legend:
            entries["bubbles"] = self.legend["bubbles"]
        if not self.kernels_known:
            entries["(a batch: from its first kernel to its last)"] = Patch(visible=False)
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="lower left",
            bbox_to_anchor=(self.axes.get_position().x0 if wide else 0, 0),
            ncols=len(entries) if wide else 2,
            frameon=False,
            fontsize=FONT,
            labelcolor=self.theme.ink,
            handlelength=1.6,
            columnspacing=1.6,
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
        )
        return figure


def _busy_share(span: Span) -> float:
    """The share of a compute span in which the GPU does not wait for launches; 1 where that is not known, or as good as
    all of it."""
    on_gpu = span.on_gpu
    return 1.0 if on_gpu is None or on_gpu > 0.995 * span.seconds else on_gpu / span.seconds
