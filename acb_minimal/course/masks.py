"""Grammars in chapters: what requests say that are held to one, and what the masks take beside the forward pass."""

from collections.abc import Iterable, Sequence

from IPython.display import Image
from rich.table import Table

from ..errors import EngineError
from ..models import counter
from ..run.engines import load_chapter, retiring_first
from ..run.workload import workload
from ..trace.formatting import in_ms, table
from ..trace.idle import typical_of
from ..trace.spans import Trace
from .counting import ask
from .notebook import in_time, machine, timed

PAIRS = [(3, 9), (10, 14), (40, 46), (7, 11)]


def held(grammars: str | Sequence[str | None], *chapters: str) -> Table:
    """What four prompts are answered that are held to a grammar each, or all to one, on this machine."""
    asked = [counter.prompt(*pair) for pair in PAIRS]
    made = table(f"held to a grammar, on {machine().name}", "chapter", "; ".join(asked), left=2)
    for chapter in chapters:
        try:
            _, done = ask(asked, chapter, 20, max_running=3, max_batch_tokens=8, page_size=8, grammar=grammars)
            ends = {"grammar": ", and no more"}
            said = "; ".join(f"{each.text}{ends.get(each.finish_reason, '')}" for each in done)
        except EngineError as error:
            said = str(error)
        made.add_row(chapter, said)
    return made


def _trace(engine: str | type, name: str, seconds: float) -> Trace:
    load = workload(name).override(new_tokens=40)
    return timed(load, engine, graphs=True, grammar="any", mask_work=seconds).trace


def beside(name: str, mask_work: Iterable[float]) -> Table:
    """The decode step of chapter 7, and of the same engine if it retires first, for masks that take so many seconds;
    decodes are launched as graphs."""
    made = table("", "masks, ms", "chapter 7, ms per step", "retired first, ms per step")
    for seconds in mask_work:
        traces = [_trace(engine, name, seconds) for engine in (load_chapter("ch7"), retiring_first("ch7"))]
        made.title = f"{name} on {traces[0].device}"
        made.add_row(f"{1e3 * seconds:g}", *(in_ms(typical_of(trace).step) for trace in traces))
    return made


def closely(name: str, seconds: float) -> Image:
    """A few steps of chapter 7 with masks that take so many seconds, in time."""
    trace = _trace("ch7", name, seconds)
    return in_time(trace, *trace.middle(3), f"{name}, ch7, masks of {1e3 * seconds:g} ms")
