"""Runs every kind of batch once, so that first-call costs stay out of what is measured, and out of graph capture."""

from collections.abc import Callable

from ..model import Model
from ..request import Batch, Request, Row


def warm_up(model: Model, progress: Callable[[str], None] = lambda text: None) -> None:
    """Runs the largest batch of prompts, and a batch of decodes of every size; `progress` is told what comes next. Call
    it before any request holds a page: it writes to many of them."""
    pages = list(range(min(model.size.pages, model.cache.scratch_page)))
    chunk = min(model.size.tokens, len(pages) * model.cache.page_size)
    request = Request("warm-up", [0] * chunk, 1)
    request.pages = pages
    rows = min(model.size.tokens // chunk, model.size.rows)
    batches = [Batch([Row(request, 0, chunk)] * rows), *(Batch([], padding=rows) for rows in model.decode_sizes)]
    slot = model.make_slot("warm-up")
    for number, batch in enumerate(batches, start=1):
        progress(f"{number} of {len(batches)} kinds of batches")
        slot.write(batch)
        slot.upload()
        model.carry_over(slot, slot)
        model.forward(slot)
        slot.download()
