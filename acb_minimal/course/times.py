"""Where the time goes: chapters profiled on a workload, and the tables and pictures of it."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from IPython.display import Image, Markdown
from rich.table import Table

from ..errors import InputError
from ..measure import compare, tables
from ..measure.profile import Profile
from ..pictures import charts
from ..pictures.timeline import timeline as draw
from ..run.workload import Workload
from ..run.workload import workload as find_workload
from .notebook import milliseconds, picture, plain_table


@dataclass(frozen=True)
class Profiles:
    """Chapters on one workload; `[...]` is a chapter's Profile.

    Attributes:
        workload: what all of them served.
        comparisons: by the names that the chapters were asked for.
    """

    workload: Workload
    comparisons: dict[str, compare.Comparison]

    def __getitem__(self, chapter: str) -> Profile:
        return self.comparisons[chapter].profile

    @property
    def device(self) -> str:
        """What it was measured on."""
        return next(iter(self.comparisons.values())).profile.device.name

    @property
    def title(self) -> str:
        """The workload, its model and the device."""
        return f"{self.workload.name} ({self.workload.model}) on {self.device}"


def measure(name: str, *chapters: str) -> Profiles:
    """Profiles a workload in these chapters, on this machine.

    Raises:
        InputError: no chapter is named; there is no such workload or chapter, or it cannot be served here.
    """
    workload = find_workload(name)
    if not chapters:
        raise InputError(f"measure({name!r}) has no chapter; it takes one or more, as in measure({name!r}, 'ch1')")
    comparisons = compare.compare(workload, chapters=chapters)
    return Profiles(workload, dict(zip(chapters, comparisons, strict=True)))


def table(profiles: Profiles) -> Table:
    """Where the time of a decode step goes, a row for each chapter."""
    made = tables.comparison(tables.entry(profiles.workload, profiles.comparisons.values()))
    if not next(iter(profiles.comparisons.values())).profile.device.arithmetic:
        made.caption = f"{made.caption} The simulator only keeps time for this model: its tokens are placeholders."
    return made


def timeline(profiles: Profiles, chapter: str, batches: int = 2) -> Image:
    """What host and device did for a few batches of the run (Profile.shown).

    Args:
        batches: for how many batches.
    """
    done = profiles[chapter]
    figure = draw(done.trace, *done.shown(batches), title=f"{profiles.workload.name}, {chapter}")
    return picture(figure, f"Timeline of {chapter}: {profiles.title}")


def bars(*profiles: Profiles) -> Image:
    """The parts of a decode step as bars, for every chapter on every workload."""
    rows = {f"{each.workload.name}, {name}": each[name].breakdown for each in profiles for name in each.comparisons}
    title = f"where a decode step goes on {profiles[0].device}"
    return picture(charts.breakdown(rows, title=title), f"Bars: {title}")


def left_to_gain(profiles: Profiles) -> Markdown:
    """A sentence on the last chapter measured: what it still loses, and what it took off the one before."""
    *before, (name, last) = ((name, profiles[name].breakdown) for name in profiles.comparisons)
    text = (
        f"**{profiles.title}:** a decode step of {name} takes {milliseconds(last.step)}, of which a kernel runs for "
        f"{milliseconds(last.kernels)}. Launch gaps are {_share(last.launch_gaps, last.step)} of the step and bubbles "
        f"{_share(last.bubbles, last.step)}. Without any bubbles it would be "
        f"{last.step / (last.step - last.bubbles):.2f} times as fast, without launch gaps as well "
        f"{last.step / last.kernels:.2f} times."
    )
    for old, parts in before:
        less = parts.step - last.step
        text += f" Beside {old}, that is {milliseconds(abs(less))} {'less' if less >= 0 else 'more'} for a step."
    return Markdown(text)


def host_work(profiles: Profiles) -> Table:
    """Host time of a batch by what it was for, waits left out, and the bubble before the batch; medians."""
    made = plain_table(f"host work for a batch, ms: {profiles.title}", "", *profiles.comparisons)
    medians = {name: host_seconds(profiles[name]) for name in profiles.comparisons}
    for what in dict.fromkeys(what for median in medians.values() for what in median):
        made.add_row(what, *(f"{1e3 * median[what]:.3f}" if what in median else "" for median in medians.values()))
    made.add_section()
    bubbles = (profiles[name].breakdown.bubbles for name in profiles.comparisons)
    made.add_row("bubble", *(f"{1e3 * seconds:.3f}" for seconds in bubbles))
    return made


def host_seconds(done: Profile) -> dict[str, float]:
    """Seconds of host work for a batch by name: medians, since a host can be slow for tens of batches on end, over the
    middle half of a run, in which all requests decode."""
    steps = done.trace.steps()
    steps = middle(steps, max(len(steps) // 2, 1))
    names = [name for name in steps[0] if name not in ("batch", "compute", "bubble")]
    return {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}


def middle(values: Iterable, count: int) -> list:
    """`count` of the values from their middle: of those that come once a batch, the ones where all requests decode."""
    values = list(values)
    first = max(len(values) - count, 0) // 2
    return values[first : first + count]


def _share(part: float, whole: float) -> str:
    return f"{max(part, 0.0) / whole:.2%}"
