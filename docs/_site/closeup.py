"""A stretch of a trace about as long as a bubble: what the host does there, which a timeline of whole steps is too
coarse to show."""

from matplotlib.figure import Figure

from acb_minimal.pictures.theme import LIGHT, WIDTH, Theme, bare_axes, write_title
from acb_minimal.pictures.timeline import LANES_HEIGHT, Lanes
from acb_minimal.trace.spans import LANES, Trace

BEFORE, AFTER = 0.3e-3, 1.7e-3  # seconds shown before and after the end of a batch; the same for all, to compare them


def closeup(trace: Trace, number: int, *, before: float = BEFORE, theme: Theme = LIGHT) -> Figure:
    """The end of one batch and the start of batch `number`, with the bubble between the two.

    before  seconds shown before the end of the one
    """
    start, bubble = trace.batches()[number][0], trace.bubbles()[number]
    end = start - bubble
    figure = Figure((WIDTH, LANES_HEIGHT + 0.85), facecolor=theme.page)
    write_title(figure, theme, trace.device)
    axes = bare_axes(figure, theme, 0.78, 0.52, WIDTH - 0.78 - 0.3, LANES_HEIGHT)
    lanes = Lanes(axes, theme, end - before, end + AFTER)
    for lane in LANES:
        lanes.draw(lane, trace.lane(lane))
    lanes.draw_bubbles({number: (end, start)})
    lanes.finish(figure)
    return figure
