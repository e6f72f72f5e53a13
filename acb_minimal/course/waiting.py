"""Requests that arrive over time: what they wait in one chapter and another, and a first token on its way, in time."""

from IPython.display import Image
from rich.table import Table

from ..measure.latency import of_session
from ..models import counter
from ..pictures.timeline import timeline
from ..run.arrivals import Arrivals
from ..run.checkpoint import Checkpoint
from ..run.options import Options
from ..run.session import Session
from ..run.streams import Stream, Token
from ..run.workload import Job, workload
from ..trace.formatting import in_ms, table
from .notebook import machine, picture

LOAD = workload("small").override(requests=40, prompt_tokens=64, new_tokens=40, max_running=32)


def _served(chapter: str, arrivals: Arrivals, graphs: bool, requests: int, trace: bool = False) -> Session:
    checkpoint, load = Checkpoint(LOAD.model), LOAD.override(requests=requests)
    options = Options(graphs=graphs, arrivals=arrivals)
    session = Session(load.job(checkpoint.vocab_size), chapter, checkpoint, machine().kind, options, trace)
    session.serve()
    return session


def waited(rate: float, *chapters: str, graphs: bool = False) -> Table:
    """What 40 requests waited in some chapters, in ms.

    Args:
        rate: at which they arrive, requests a second.
        graphs: whether decodes are launched as graphs; else kernel by kernel.
    """
    columns = "TTFT, median", "TTFT, p99", "TPOT, median", "ITL, p99", "E2EL, median"
    made = table("", "ms", *columns)
    for chapter in chapters:
        session = _served(chapter, Arrivals(rate=rate), graphs, LOAD.requests)
        found = of_session(session)
        spreads = found.ttft.median, found.ttft.p99, found.tpot.median, found.itl.p99, found.e2el.median
        made.add_row(chapter, *(in_ms(each, 1) for each in spreads))
        made.title = f"{LOAD.model} on {session.device.name}, {rate:g} requests a second"
    return made


def closely(chapter: str) -> Image:
    """One request that comes to an idle engine, in time: its first two batches, kernel by kernel."""
    trace = _served(chapter, Arrivals(times=(0.0,)), False, 1, trace=True).trace
    title = f"{chapter}, a first token"
    return picture(timeline(trace, 0, 1, title=title), f"Timeline: {title}, on {trace.device}")


def left(chapter: str, after: int) -> list[str]:
    """A reader who counts along, and leaves after so many tokens; and another one, who stays."""
    job = Job([counter.prompt(3, 12), counter.prompt(40, 46)], arrivals=Arrivals(times=(0.0, 0.0)))
    session = Session(job, chapter, Checkpoint("counter"), machine(), stream=True)
    stream, told, heard = Stream(session), [], 0
    for item in stream:
        if not isinstance(item, Token):
            told.append(f"{item.text} ({item.finish_reason})")
        elif item.id == "0":
            heard += 1
            if heard == after:
                stream.cancel("0")
    free = session.pool.num_free == session.pool.num_pages
    return [*told, "all pages are free" if free else "pages are LOST"]
