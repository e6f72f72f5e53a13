"""Chapters with few KV pages: what is answered, how fast that is, and what runs beside what."""

from IPython.display import Image
from rich.table import Table

from ..measure.compare import Run
from ..models import counter
from ..run.workload import workload
from ..trace.formatting import table
from .counting import ask
from .notebook import in_time, machine, timed

PAIRS = [(3, 11), (40, 54), (100, 103), (250, 262), (7, 16)]
WAYS = {"reserve": ("ch5", None), "recompute": ("ch5", "recompute"), "swap": ("ch9", "swap")}
LOAD = workload("small").override(requests=48, prompt_tokens=256, new_tokens=256, max_running=48)
WHOLE = 48 * 8  # pages that these can need


def answered(pages: int, *chapters: tuple[str, str | None]) -> Table:
    """What five prompts are answered in a pool of so many pages, four positions each, on this machine; by chapters,
    each with what becomes of a request that gives way, or None: no page is given on demand."""
    asked, right = ([text(*pair) for pair in PAIRS] for text in (counter.prompt, counter.answer))
    limits = {"max_running": 4, "max_batch_tokens": 8, "page_size": 4, "pages": pages}
    made = table(f"{pages} pages, on {machine().name}", "chapter", "batches", "all right", left=1)
    for chapter, preempt in chapters:
        session, done = ask(asked, chapter, 16, preempt=preempt, **limits)
        told = "yes" if [one.text for one in done] == right else "WRONG"
        made.add_row(f"{chapter}, {preempt or 'reserved'}", f"{len(session.done)}", told)
    return made


def _served(way: str, share: int) -> Run:
    chapter, preempt = WAYS[way]
    return timed(LOAD, chapter, graphs=True, pages=WHOLE * share // 100, preempt=preempt)


def beside(*shares: int) -> Table:
    """Tokens a second of 48 requests with prompts of 256 tokens, 256 new ones each, in three ways of spending pages, by
    their number in percent of what all of them can need."""
    made = table("", "pages", *(f"{way}, tokens/s" for way in WAYS))
    for share in shares:
        runs = [_served(way, share) for way in WAYS]
        made.title = f"{LOAD.model} on {runs[0].device.name}"
        made.add_row(f"{share} %", *(f"{run.metrics.tokens_per_second:,.0f}" for run in runs))
    return made


def closely(share: int, what: str = "swap_out", steps: int = 3) -> Image:
    """A few steps of chapter 9 around the first copy of that kind, in time."""
    trace = _served("swap", share).trace
    copy = next(span for span in trace.spans if span.name == what and span.lane != "CPU")
    first = next(number for number, (_, end) in sorted(trace.batches().items()) if end > copy.start)
    last = min(first + steps - 1, max(trace.batches()))
    return in_time(trace, first, last, f"ch9, a {what.replace('_', ' ')}")
