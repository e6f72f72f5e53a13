"""What the notebooks of the course share: run a chapter, or a broken one, and show what came of it.

Every function returns what Jupyter shows: Markdown, a table or a picture. Whatever has times in it names the machine
they are from. This file knows how to present; what it presents is computed elsewhere.
"""

import io
import linecache
import multiprocessing
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from IPython.display import HTML, Image, Markdown
from matplotlib.figure import Figure
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from rich import box
from rich.table import Table

from ..device import Device
from ..measure import compare, tables
from ..measure.figures import environment
from ..measure.profile import Profile
from ..models import counter
from ..pictures import charts
from ..pictures.timeline import timeline as draw
from ..run import engines as variants
from ..run.checkpoint import Checkpoint
from ..run.devices import open_device
from ..run.engines import chapter_path
from ..run.session import Session
from ..run.workload import Job, Workload, workload
from ..sim import policies
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice

# What the counter is asked. So few run at once, in batches so small, that requests join and leave all the time.
PAIRS = [(3, 7), (98, 104), (10, 12), (500, 511), (41, 41), (250, 259), (7, 15), (990, 999), (60, 66), (123, 128)]
SERVING = {"max_new_tokens": 16, "max_running": 4, "max_batch_tokens": 8, "page_size": 8}
SCHEDULES = {
    "timed": [("timed", 0)],
    "eager": [("eager", 0)],
    "lazy": [("lazy", 0)],
    "random": [("random", seed) for seed in range(2)],
}
PATIENCE = 120  # seconds given to a broken engine on the machine's own device


def where() -> Markdown:
    """The machine and its versions; where there is no CUDA GPU, that everything is simulated."""
    facts = environment(machine())
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("device", "date"))
    text = f"**This ran on: {facts['device']}**, {facts['date']} ({versions})"
    if torch.cuda.is_available():
        return Markdown(text)
    return Markdown(
        f"## Every time below is SIMULATED\n\n{text}\n\ntorch finds no CUDA GPU here. A simulated one runs this "
        "notebook in virtual time, by costs that were measured on an H200. Its order of events is real; its "
        "milliseconds are a model's."
    )


def machine(trace: bool = False) -> Device:
    """This machine's device as the counter model sees it: the CUDA GPU, or else the simulated one."""
    return open_device("auto", Checkpoint("counter"), trace)


def source(chapter: str) -> HTML:
    """A chapter's text."""
    return _code(chapter_path(chapter).read_text(), "python")


def changes(old: str, new: str) -> HTML:
    """What one chapter changes in the one before."""
    return _code(compare.diff(old, new), "diff")


# --- tokens: the counter ---


def serve(chapter: str) -> Table:
    """A few counter prompts, served on this machine."""
    device = machine()
    made = plain_table(f"{chapter} on {device.name}", "prompt", "answer", "")
    for pair, text in zip(PAIRS, answers(chapter, device), strict=True):
        made.add_row(counter.prompt(*pair), text, "right" if text == counter.answer(*pair) else "WRONG")
    return made


def counted(engine: str | type, device: Device, model: str | Checkpoint = "counter", **options) -> Session:
    """PAIRS served to the end: the Session that did it, its requests in order. `options` go before SERVING."""
    job = Job([counter.prompt(*pair) for pair in PAIRS], **SERVING | options)
    session = Session(job, engine, model, device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a CPU, the counter is so small that a second thread only gets in the way
    try:
        session.serve()
    finally:
        torch.set_num_threads(threads)
    return session


def answers(engine: str | type, device: Device, model: str | Checkpoint = "counter") -> list[str] | str:
    """What an engine answers to "count a to b" for each of PAIRS; its error, as one line, if it raises one."""
    try:
        session = counted(engine, device, model)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return [session.checkpoint.decode(request.generated) for request in session.requests]


def right(said: list[str] | str) -> int:
    """How many of the answers are right; none of an error."""
    if isinstance(said, str):
        return 0
    return sum(text == counter.answer(*pair) for pair, text in zip(PAIRS, said, strict=True))


def simulate(engines: Mapping[str, str | type]) -> Table:
    """How many answers each engine gets right on a simulated GPU, under every schedule, and one that is wrong."""
    checkpoint = Checkpoint("counter")
    made = plain_table("right answers on a simulated GPU, by schedule", "engine", *SCHEDULES, "for example")
    for name, engine in engines.items():
        cells, wrong = [], ""
        for schedules in SCHEDULES.values():
            said = [answers(engine, simulated(*schedule), checkpoint) for schedule in schedules]
            cells.append(f"{sum(map(right, said))} of {len(PAIRS) * len(said)}")
            wrong = wrong or next(filter(None, map(_wrong, said)), "")
        made.add_row(name, *cells, wrong)
    return made


def simulated(policy: str, seed: int = 0) -> SimulatedDevice:
    """A simulated GPU for the counter model, with a trace."""
    return SimulatedDevice(Costs.of("counter"), policies.named(policy, seed), trace=True)


def try_here(name: str, engine: type) -> Table:
    """The same on this machine's own device, in a process of its own: an error on a GPU ends the process it is in."""
    made = plain_table(f"right answers on {machine().name}", "engine", "right", "for example")
    with multiprocessing.get_context("spawn").Pool(1, _silent) as pool:
        try:
            said = pool.apply_async(_answers_here, (_source_of(engine),)).get(PATIENCE)
        except multiprocessing.TimeoutError:
            said = f"nothing for {PATIENCE} s: it hung, or took its process down"
    made.add_row(name, f"{right(said)} of {len(PAIRS)}", _wrong(said))
    return made


def _answers_here(source: str) -> list[str] | str:
    return answers(variants.engine(source, "a variant"), machine())


def _source_of(engine: type) -> str:
    return "".join(linecache.getlines(engine.run.__code__.co_filename))


def _silent() -> None:
    """What a GPU prints about an error, once for every thread, is not part of the answer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _wrong(said: list[str] | str) -> str:
    """The first wrong answer beside what was asked, or the error; empty if all are right."""
    if isinstance(said, str):
        return _short(said)
    for pair, text in zip(PAIRS, said, strict=True):
        if text != counter.answer(*pair):
            return _short(f"{counter.prompt(*pair)}: {text}")
    return ""


def _short(text: str) -> str:
    return f"{text[:35]}…" if len(text) > 36 else text


# --- times: workloads ---


@dataclass(frozen=True)
class Profiles:
    """Chapters on one workload: `comparisons` by the names they were asked for, `[...]` is a chapter's Profile."""

    workload: Workload
    comparisons: dict[str, compare.Comparison]

    def __getitem__(self, chapter: str) -> Profile:
        return self.comparisons[chapter].profile

    @property
    def device(self) -> str:
        return next(iter(self.comparisons.values())).profile.device.name

    @property
    def title(self) -> str:
        return f"{self.workload.name} ({self.workload.model}) on {self.device}"


def measure(name: str, *chapters: str) -> Profiles:
    """Profiles a workload in these chapters, on this machine."""
    load = workload(name)
    return Profiles(load, dict(zip(chapters, compare.compare(load, chapters=chapters), strict=True)))


def table(profiles: Profiles) -> Table:
    """Where the time of a decode step goes, a row for each chapter."""
    made = tables.comparison(tables.entry(profiles.workload, profiles.comparisons.values()))
    if not next(iter(profiles.comparisons.values())).profile.device.arithmetic:
        made.caption = f"{made.caption} The simulator only keeps time for this model: its tokens are placeholders."
    return made


def timeline(profiles: Profiles, chapter: str, batches: int = 2) -> Image:
    """What host and device did for a few batches in the middle of the run."""
    trace = profiles[chapter].trace
    first = middle(trace.batches(), batches)[0]
    figure = draw(trace, first, first + batches - 1, title=f"{profiles.workload.name}, {chapter}")
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
    """Mean host time of a batch by what it was for, waits left out, and the bubble before the batch."""
    made = plain_table(f"host work for a batch, ms: {profiles.title}", "", *profiles.comparisons)
    means = {name: host_seconds(profiles[name]) for name in profiles.comparisons}
    for what in dict.fromkeys(what for mean in means.values() for what in mean):
        made.add_row(what, *(f"{1e3 * mean[what]:.3f}" if what in mean else "" for mean in means.values()))
    made.add_section()
    bubbles = (profiles[name].breakdown.bubbles for name in profiles.comparisons)
    made.add_row("bubble", *(f"{1e3 * seconds:.3f}" for seconds in bubbles))
    return made


def host_seconds(done: Profile) -> dict[str, float]:
    """Mean seconds of host work by name, for the batches in the middle of a run."""
    steps = middle(done.trace.steps(), 16)
    names = [name for name in steps[0] if name not in ("batch", "compute", "bubble")]
    return {name: statistics.fmean(step.get(name, 0.0) for step in steps) for name in names}


def middle(batches: Iterable, count: int) -> list:
    """`count` batches from the middle of a run, where all requests decode."""
    batches = list(batches)
    first = max(len(batches) - count, 0) // 2
    return batches[first : first + count]


# --- presentation ---


def plain_table(title: str, *columns: str) -> Table:
    """A table without rows, for Jupyter: no frame, no line broken."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    made.min_width = len(title)  # or the title would be broken to the width of a narrow table
    for column in columns:
        made.add_column(column, no_wrap=True)
    return made


def _code(text: str, language: str) -> HTML:
    style = "font: 13px/1.35 monospace; white-space: pre; overflow-x: auto"
    made = HtmlFormatter(noclasses=True, nobackground=True, prestyles=style)
    return HTML(highlight(text, get_lexer_by_name(language), made))


def picture(figure: Figure, what: str) -> Image:
    """A figure for Jupyter; `what` is said to those who do not see it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return Image(file.getvalue(), width=int(100 * figure.get_figwidth()), alt=what)


def milliseconds(seconds: float) -> str:
    """In ms, to three digits."""
    return f"{1e3 * seconds:.3g} ms"


def _share(part: float, whole: float) -> str:
    return f"{max(part, 0.0) / whole:.2%}"
