"""Where the time goes: chapters profiled on a workload, and the tables and pictures of it."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from IPython.display import Image, Markdown
from rich.table import Table

from ..measure import result_table
from ..measure.compare import Method, Profile, compare, entry, profile
from ..pictures.breakdown import breakdown
from ..pictures.timeline import timeline as draw
from ..run.checkpoint import Checkpoint
from ..run.engines import synchronous
from ..run.workload import Workload
from ..run.workload import workload as find_workload
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..trace import formatting
from ..trace.formatting import in_ms, ms, share
from ..trace.law import Breakdown
from ..trace.steps import typical_decodes
from .notebook import machine, picture


@dataclass(frozen=True)
class Profiles:
    """Chapters on one workload; `[...]` is a chapter's Profile, by the name that it was asked for."""

    workload: Workload
    of: dict[str, Profile]

    def __getitem__(self, chapter: str) -> Profile:
        return self.of[chapter]

    @property
    def title(self) -> str:
        """The workload, its model and the device."""
        return f"{self.workload.name} ({self.workload.model}) on {next(iter(self.of.values())).device.name}"


def measure(name: str, chapter: str, *more: str) -> Profiles:
    """Profiles a workload in these chapters, on this machine."""
    workload, chapters = find_workload(name), [chapter, *more]
    return Profiles(workload, dict(zip(chapters, compare(workload, chapters=chapters), strict=True)))


def table(profiles: Profiles) -> Table:
    """Where the time of a decode step goes, a row for each chapter."""
    stored = entry(profiles.workload, list(profiles.of.values()))
    made = result_table.comparison(stored)
    made.title = result_table.title(stored)
    if not next(iter(profiles.of.values())).device.arithmetic:
        made.caption = f"{made.caption} The simulator only keeps time for this model: its tokens are placeholders."
    return made


def timeline(profiles: Profiles, chapter: str, batches: int = 2) -> Image:
    """What host and device did for so many batches of the run (Profile.shown)."""
    done = profiles[chapter]
    figure = draw(done.trace, *done.shown(batches), title=f"{profiles.workload.name}, {chapter}")
    return picture(figure, f"Timeline of {chapter}: {profiles.title}")


def bars(*profiles: Profiles) -> Image:
    """The parts of a decode step as bars, for every chapter on every workload."""
    rows = {f"{each.workload.name}, {name}": done.breakdown for each in profiles for name, done in each.of.items()}
    (device, *_) = (done.device.name for done in profiles[0].of.values())
    return _bars(rows, f"where a decode step goes on {device}")


def _bars(rows: dict[str, Breakdown], title: str) -> Image:
    return picture(breakdown(rows, title=title), f"Bars: {title}")


def left_to_gain(profiles: Profiles) -> Markdown:
    """A sentence on the last chapter measured: what it still loses, and what it took off the one before."""
    *before, (name, last) = ((name, profiles[name].breakdown) for name in profiles.of)
    text = (
        f"**{profiles.title}:** a decode step of {name} takes {ms(last.step)}, of which the GPU needs "
        f"{ms(last.on_gpu)}. Launch gaps are {share(last.launch_gaps, last.step)} of the step and bubbles "
        f"{share(last.bubbles, last.step)}. Without any bubbles it would be "
        f"{last.step / (last.step - last.bubbles):.2f} times as fast, without launch gaps as well "
        f"{last.step / last.on_gpu:.2f} times."
    )
    for old, parts in before:
        less = parts.step - last.step
        text += f" Beside {old}, that is {ms(abs(less))} {'less' if less >= 0 else 'more'} for a step."
    return Markdown(text)


def host_work(profiles: Profiles) -> Table:
    """Host time of a batch by what it was for, waits left out, and the bubble before the batch; medians."""
    made = formatting.table(f"host work for a batch, ms: {profiles.title}", "", *profiles.of)
    medians = [host_seconds(done) for done in profiles.of.values()]
    for what in dict.fromkeys(what for median in medians for what in median):
        made.add_row(what, *(in_ms(median[what], 3) if what in median else "" for median in medians))
    made.add_section()
    made.add_row("bubble", *(in_ms(done.breakdown.bubbles, 3) for done in profiles.of.values()))
    return made


def host_seconds(done: Profile) -> dict[str, float]:
    """Seconds of host work for a batch by name: medians over the typical decodes, or over all batches if there are no
    such; for a host can be slow for tens of them on end."""
    chosen = typical_decodes(done.done) or range(len(done.done))
    steps = [step for step in done.trace.steps() if step["batch"] in chosen]
    names = [name for name in steps[0] if name not in ("batch", "compute", "bubble")]
    return {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}


def slower_hosts(chapter: str, name: str, factors: Iterable[float]) -> Image:
    """Where the time of a decode step of a workload goes on the simulated GPU, with hosts that take so many times as
    long to schedule, write, fill and update, as bars."""
    workload = find_workload(name)
    checkpoint, costs = Checkpoint(workload.model), Costs.of(workload.model)
    rows = {}
    for factor in factors:
        slow = {
            what: {part: factor * value for part, value in costs.figures[what].items()}
            for what in ("schedule", "write", "fill", "update")
        }
        device = SimulatedDevice(replace(costs, figures=costs.figures | slow), arithmetic=False, trace=True)
        rows[f"host work x {factor:g}"] = profile(chapter, workload, device, checkpoint).breakdown
    return _bars(rows, f"{name}, {chapter} on {costs.gpu}")


def two_by_two(name: str, new_tokens: int, runs: int = 1) -> Table:
    """A workload in all four: synchronous or asynchronous, launched kernel by kernel or as graphs; typical decodes.

    Args:
        new_tokens: for each request, to keep it short; there must be steps in which all requests decode.
        runs: of each on a GPU, in turns, an odd number; the one whose step is in the middle counts. A host can be slow
            for as long as one of them takes.
    """
    device, workload = machine(), find_workload(name).override(new_tokens=new_tokens)
    engines = {
        "synchronous, eager": synchronous("ch5"),
        "asynchronous, eager (ch5)": "ch5",
        "synchronous, graphs": synchronous("ch6"),
        "asynchronous, graphs (ch6)": "ch6",
    }
    said = f"Of {runs} runs each, in turns, the one in the middle." if runs > 1 and device.kind == "cuda" else ""
    title = f"{name} ({workload.model}) on {device.name}"
    made = formatting.table(title, "engine", "ms per decode step", "bubbles", "time saved", caption=said)
    found = list(compare(workload, chapters=list(engines.values()), method=Method(runs, kernels=False)))
    for label, typical in zip(engines, (done.typical for done in found), strict=True):
        saved = found[0].typical.step - typical.step
        shares = share(typical.bubbles, typical.step), share(saved, found[0].typical.step)
        made.add_row(label, in_ms(typical.step), *shares)
    return made
