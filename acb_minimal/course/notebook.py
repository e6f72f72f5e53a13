"""What the notebooks of the course share: the machine, runs on it, the chapters' texts, and how things look in Jupyter.

Every function that a notebook calls returns what Jupyter shows: Markdown, a table or a picture. Whatever has times in
it names the machine they are from. What engines answer is in counting.py, how long they take in profiles.py; the rest
is for a chapter of part two each.
"""

import io

import torch
from IPython.display import HTML, Image, Markdown
from matplotlib.figure import Figure
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from ..measure.compare import Run, serve
from ..measure.metrics import environment
from ..pictures import timeline
from ..run import engines
from ..run.checkpoint import Checkpoint
from ..run.devices import open_device
from ..run.options import Options
from ..run.timed import Machine
from ..run.workload import Workload
from ..trace.spans import Trace


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


def machine() -> Machine:
    """This machine's device as the counter model sees it: the CUDA GPU, or else the simulated one."""
    return open_device("auto", Checkpoint("counter"))


def timed(load: Workload, engine: str | type, **options) -> Run:
    """A workload served on this machine at full speed, with these Options."""
    return serve(load, engine, machine().kind, Checkpoint(load.model), Options(**options))


def source(chapter: str) -> HTML:
    """A chapter's text."""
    return _code(engines.chapter_path(chapter).read_text(), "python")


def changes(old: str, new: str) -> HTML:
    """What one chapter changes in another, docstrings left out."""
    return _code(engines.diff(old, new), "diff")


def _code(text: str, language: str) -> HTML:
    style = "font: 13px/1.35 monospace; white-space: pre; overflow-x: auto"
    made = HtmlFormatter(noclasses=True, nobackground=True, prestyles=style)
    return HTML(highlight(text, get_lexer_by_name(language), made))


def in_time(trace: Trace, first: int, last: int, title: str) -> Image:
    """What host and device did for a few batches."""
    return picture(timeline.timeline(trace, first, last, title=title), f"Timeline: {title}, on {trace.device}")


def picture(figure: Figure, what: str) -> Image:
    """A figure as Jupyter shows it; `what` is the text for those who do not see it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return Image(file.getvalue(), width=int(100 * figure.get_figwidth()), alt=what)
