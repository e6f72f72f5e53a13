"""Requests that arrive over time: what they wait in one chapter and another, and a first token on its way, in time."""

from IPython.display import Image
from rich.table import Table

from ..models import counter
from ..run.arrivals import Arrivals
from ..run.session import Session
from ..run.streams import Token
from ..run.workload import Job, workload
from ..trace.formatting import in_ms, table
from .notebook import in_time, machine, timed

LOAD = workload("small").override(requests=40, prompt_tokens=64, new_tokens=40, max_running=32)


def waited(rate: float, *chapters: str, graphs: bool = False) -> Table:
    """What 40 requests waited in some chapters, in ms, that arrive at this rate, in requests a second; decodes are
    launched as graphs, or kernel by kernel."""
    made = table("", "ms", "TTFT, median", "TTFT, p99", "TPOT, median", "ITL, p99", "E2EL, median")
    for chapter in chapters:
        run = timed(LOAD, chapter, graphs=graphs, arrivals=Arrivals(rate=rate))
        found = run.latency
        spreads = found.ttft.median, found.ttft.p99, found.tpot.median, found.itl.p99, found.e2el.median
        made.add_row(chapter, *(in_ms(each, 1) for each in spreads))
        made.title = f"{LOAD.model} on {run.device.name}, {rate:g} requests a second"
    return made


def closely(chapter: str) -> Image:
    """One request that comes to an idle engine, in time: its first two batches, kernel by kernel."""
    run = timed(LOAD.override(requests=1), chapter, arrivals=Arrivals(times=(0.0,)))
    return in_time(run.trace, 0, 1, f"{chapter}, a first token")


def left(chapter: str, after: int) -> list[str]:
    """A reader who counts along, and leaves after so many tokens; and another one, who stays."""
    job = Job([counter.prompt(3, 12), counter.prompt(40, 46)], arrivals=Arrivals(times=(0.0, 0.0)))
    session = Session(job, chapter, device=machine(), stream=True)
    told, heard = [], 0
    for item in session:
        if not isinstance(item, Token):
            told.append(f"{item.text} ({item.finish_reason})")
        elif item.id == "0":
            heard += 1
            if heard == after:
                session.cancel("0")
    free = session.pool.num_free == session.pool.num_pages
    return [*told, "all pages are free" if free else "pages are LOST"]
