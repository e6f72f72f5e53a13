"""The drawings that the site alone has: close-ups of traces, and what a scheduler does."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from acb_minimal.course.counting import PAIRS
from acb_minimal.kv_cache import PagePool
from acb_minimal.models import counter
from acb_minimal.pictures.theme import FONT, LIGHT, WIDTH, Theme, bare_axes
from acb_minimal.pictures.timeline import BARS, Lanes, empty
from acb_minimal.request import Request
from acb_minimal.run import engines
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.trace.spans import LANES, Trace

# --- close-ups of traces ---

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


def unordered() -> SimulatedDevice:
    """Chapter 2 with its host waits moved to the end of the step, as the simulated GPU has run it."""
    engine = engines.changed(
        "ch2",
        ("self.h2d.synchronize()", "pass"),
        ("self.compute.synchronize()", "pass"),
        ("self.d2h.synchronize()", "self.cuda.synchronize()"),
    )
    load = workload("wide").override(new_tokens=64)
    device = SimulatedDevice(Costs.of(load.model), arithmetic=False, trace=True)
    checkpoint = Checkpoint(load.model)
    Session(load.job(checkpoint.vocab_size), engine, checkpoint, device).serve()
    return device


def early(trace: Trace, number: int) -> float:
    """Seconds by which a batch's download begins before the batch has ended on the GPU."""
    download = next(span for span in trace.lane("D2H") if span.batch_number == number)
    return trace.batches()[number][1] - download.start


# --- continuous batching: steps are counted by the scheduler, nothing is timed ---

PLACES = 4  # requests in a batch at most
ROW = 0.21  # inches


def batching(*, theme: Theme = LIGHT, width: float = WIDTH) -> Figure:
    """Two panels, a line for each place in the batch: who has it in which step, and which are empty."""
    numbers = range(len(PAIRS))
    fixed = served([numbers[first : first + PLACES] for first in numbers[::PLACES]])
    panels = {"fixed batches": fixed, "continuous batching": served([numbers])}
    tall = PLACES * ROW
    figure = Figure((width, 2 * tall + 1.25), facecolor=theme.page)
    for bottom, (title, steps) in zip((tall + 0.95, 0.5), panels.items(), strict=True):
        axes = bare_axes(figure, theme, 0.78, bottom, width - 0.78 - 0.3, tall)
        axes.set_xlim(0, len(fixed))
        axes.set_ylim(PLACES, 0)
        axes.set_yticks([PLACES / 2], ["batch"], size=FONT + 1)
        axes.set_xticks([])
        taken = sum(map(len, steps)) / (PLACES * len(steps))
        text = f"{title}: {len(steps)} steps, {100 * taken:.0f} % full"
        axes.text(0, -0.25, text, color=theme.ink, size=FONT + 1, weight="bold", va="bottom")
        draw(axes, theme, steps)
    axes.set_xticks(range(0, len(fixed) + 1, 5))
    axes.set_xlabel("steps", color=theme.faint, size=FONT)
    return figure


def served(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The requests, by number, of every step; a group may start once the group before is finished."""
    scheduler = Scheduler(PagePool(len(PAIRS), 64), PLACES, 64, 1, 64)
    steps = []
    for group in groups:
        for number in group:
            a, b = PAIRS[number]
            prompt = [0] * len(counter.prompt(a, b).split())  # a token each
            scheduler.add(Request(str(number), prompt, b - a + 2))  # the numbers and the end token
        while scheduler.has_work():
            batch = scheduler.schedule()
            steps.append([int(row.request.id) for row in batch.rows])
            scheduler.update(batch, np.zeros(len(batch.sampled), dtype=int))
    return steps


def draw(axes: Axes, theme: Theme, steps: list[list[int]]) -> None:
    """A bar for each request, its number inside; the step that takes in its prompt is darker."""
    places: list[int | None] = [None] * PLACES
    axes.add_patch(Rectangle((0, 0), len(steps), PLACES, **theme.styles()["wait"]))
    for step, running in enumerate(steps):
        places = [number if number in running else None for number in places]
        for number in running:
            if number not in places:
                place = places.index(None)
                places[place] = number
                length = sum(number in batch for batch in steps)
                axes.add_patch(Rectangle((step, place), length, 1, facecolor=theme.kernels, edgecolor=theme.page))
                axes.add_patch(Rectangle((step, place), 1, 1, facecolor=theme.ink, edgecolor=theme.page))
                style = {"size": FONT, "ha": "center", "va": "center_baseline"}
                axes.text(step + 0.5, place + 0.5, str(number + 1), color=theme.page, **style)
