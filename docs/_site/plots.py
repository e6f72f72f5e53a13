"""What the site alone draws: close-ups of traces, and what a scheduler does."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import widgets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from acb_minimal.course.counting import PAIRS
from acb_minimal.kv_cache import PagePool
from acb_minimal.models import counter
from acb_minimal.pictures.theme import LIGHT, WIDTH, Theme
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
    """The end of one batch and the start of batch `number`, with the bubble between, and so many seconds before it. In
    the lane `wrong`, the work for the one batch is marked: it comes too early."""
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


def batching() -> str:
    """Two panels, a lane for each place in the batch: who has it in which steps."""
    numbers = range(len(PAIRS))
    fixed = served([numbers[first : first + PLACES] for first in numbers[::PLACES]])
    made = []
    for title, steps in {"Fixed batches": fixed, "Continuous batching": served([numbers])}.items():
        taken = [set(batch) for batch in steps]
        places: list[list[int | None]] = []  # of each step who has which place
        for batch in taken:
            before = [number if number in batch else None for number in (places[-1] if places else [None] * PLACES)]
            come = iter(sorted(batch - set(before)))
            places.append([next(come, None) if number is None else number for number in before])
        lanes = {}
        for place, held in enumerate(zip(*places, strict=True), 1):
            runs = [(number, len(list(group))) for number, group in groupby(held)]
            bars = [(f"kernels n{number % 2}", size, str(number + 1)) if number is not None else ("wait", size, "")
                    for number, size in runs]  # fmt: skip
            lanes[f"place {place}"] = bars
        full = sum(map(len, steps)) / (PLACES * len(steps))
        made.append(widgets.lanes(title, lanes, len(fixed), f"{len(steps)} steps, {full:.0%} full".replace("%", " %")))
    return "".join(made)


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
