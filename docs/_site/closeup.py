"""A stretch of a trace about as long as a bubble: what the host does there, which a timeline of whole steps is too
coarse to show."""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from acb_minimal.pictures.theme import LIGHT, WIDTH, Theme
from acb_minimal.pictures.timeline import BARS, Lanes, empty
from acb_minimal.trace.spans import LANES, Trace

BEFORE, AFTER = 0.3e-3, 1.7e-3  # seconds shown before and after the end of a batch; the same for all, to compare them


def closeup(
    trace: Trace, number: int, *, before: float = BEFORE, theme: Theme = LIGHT, width: float = WIDTH, wrong: str = ""
) -> Figure:
    """The end of one batch and the start of batch `number`, with the bubble between the two.

    before  seconds shown before the end of the one
    wrong   a lane whose work for the one batch comes too early, to be marked
    """
    start, bubble = trace.batches()[number][0], trace.bubbles()[number]
    end = start - bubble
    lanes = Lanes(empty(theme, "", width), theme, end - before, end + AFTER)
    for lane in LANES:
        lanes.draw(lane, trace.lane(lane))
    lanes.draw_bubbles({number: (end, start)})
    for span in trace.lane(wrong) if wrong else ():
        if span.batch_number == number - 1:
            (left, right), (low, height) = lanes.place(span.start, span.end), BARS[wrong]
            pad = 3 * lanes.point
            place = (left - pad, low - 0.03), right - left + 2 * pad, height + 0.06
            lanes.axes.add_patch(Rectangle(*place, fill=False, edgecolor=theme.bubbles, linewidth=2, zorder=5))
            lanes.write(right + 8 * pad, lanes.right, low + height / 2, ["too early", "!"], theme.bubbles, "left")
    return lanes.finish()
