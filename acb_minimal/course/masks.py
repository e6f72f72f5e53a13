"""Grammars in chapters: what requests say that are held to one, and what the masks take beside the forward pass."""

from collections.abc import Iterable, Sequence

from IPython.display import Image
from rich.table import Table

from ..errors import EngineError
from ..measure.compare import serve
from ..models import counter
from ..pictures.timeline import timeline
from ..run.checkpoint import Checkpoint
from ..run.engines import load_chapter, retiring_first
from ..run.options import Options
from ..run.session import Session
from ..run.workload import Job, workload
from ..trace.formatting import in_ms, table
from ..trace.idle import typical_of
from .notebook import machine, picture

PAIRS = [(3, 9), (10, 14), (40, 46), (7, 11)]


def held(grammars: str | Sequence[str | None], *chapters: str | type) -> Table:
    """What four prompts are answered that are held to a grammar each, or all to one, on this machine."""
    checkpoint, asked = Checkpoint("counter"), [counter.prompt(*pair) for pair in PAIRS]
    made = table(f"held to a grammar, on {machine().name}", "chapter", "; ".join(asked), left=2)
    for chapter in chapters:
        job = Job(asked, 20, max_running=3, max_batch_tokens=8, page_size=8, grammar=grammars)
        name = chapter if isinstance(chapter, str) else "variant"
        try:
            done = Session(job, chapter, checkpoint, machine()).serve()
            ends = {"grammar": ", and no more"}
            made.add_row(name, "; ".join(f"{each.text}{ends.get(each.finish_reason, '')}" for each in done))
        except EngineError as error:
            made.add_row(name, str(error))
    return made


def _served(engine: str | type, name: str, seconds: float):
    load, options = workload(name).override(new_tokens=40), Options(graphs=True, grammar="any", mask_work=seconds)
    return serve(load, engine, machine().kind, Checkpoint(load.model), options)


def beside(name: str, mask_work: Iterable[float]) -> Table:
    """The decode step of chapter 7, and of the same engine if it retires first, for masks that take so long.

    Args:
        name: of the workload; decodes are launched as graphs.
        mask_work: in seconds.
    """
    made = table("", "masks, ms", "chapter 7, ms per step", "retired first, ms per step")
    for seconds in mask_work:
        runs = [_served(engine, name, seconds) for engine in (load_chapter("ch7"), retiring_first("ch7"))]
        made.title = f"{name} on {runs[0].trace.device}"
        made.add_row(f"{1e3 * seconds:g}", *(in_ms(typical_of(run.trace).step) for run in runs))
    return made


def closely(name: str, seconds: float) -> Image:
    """A few steps of chapter 7 with masks that take so many seconds, in time."""
    trace = _served("ch7", name, seconds).trace
    title = f"{name}, ch7, masks of {1e3 * seconds:g} ms"
    return picture(timeline(trace, *trace.middle(3), title=title), f"Timeline: {title}, on {trace.device}")
