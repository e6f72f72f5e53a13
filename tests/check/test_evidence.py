"""What the judge says a wrong token comes from, where nothing races."""

import pytest
from rich.console import Console

from acb_minimal.check.cases import CASES
from acb_minimal.check.judge import serve
from acb_minimal.check.schedules import replay
from acb_minimal.check.tables import problem, timeline
from acb_minimal.run.engines import changed, engine, without

WRITE = "            self.slot.write(batch)                    # all but the token ids that N has not produced yet\n"
SCHEDULED = "        batch = self.scheduler.schedule()             # pick requests, assign KV pages\n"
LOOK_UP = "        graph = self.graphs.get((self.slot, batch.decode_size))\n"
PADDED = "            batch = batch.padded(self.model.decode_sizes)     # decodes: to a size that has a graph\n"
UPLOAD = "        self.slot.upload() "
TABLE = "self.slot.host_inputs.page_table"

# Engines in order, with a wrong token: the chapter, the changes, the seed that shows it, and why.
WRONG = {
    "no carry-over": (
        lambda: without("ch5", "self.model.carry_over"), "0",
        "request 0 starts from 0, the placeholder: nothing carried its token over",
    ),
    "no fill": (
        lambda: without("ch4", "self.slot.fill"), "0",
        "request 0 starts from 0, the placeholder: nothing carried its token over",
    ),
    "carried from the wrong row": (
        lambda: changed("ch5", (WRITE, f"{WRITE}            c = self.slot.host_inputs.carry_over; c[c >= 0] = 0\n")),
        "1",
        "request 1 starts from token 24, that of request 0 in batch 0; right is 25",
    ),
    "tokens of another row": (
        lambda: changed("ch1", ("self.scheduler.update(batch, tokens)", "self.scheduler.update(batch, tokens[::-1])")),
        "1", "the GPU has sampled 24 for it; what came to the host is another token",
    ),
    "pages of somebody else": (
        lambda: changed("ch1", (UPLOAD, f"        {TABLE}[1] = {TABLE}[0]\n{UPLOAD}")), "1",
        "request 1 has pages 14, and its row of the page table pages 15",
    ),
    "nothing was computed": (
        lambda: changed("ch1", ("self.model.forward(self.slot)", "batch.number and self.model.forward(self.slot)")),
        "0", "no forward pass of batch 0 had run by then",
    ),
    "a graph of more rows than were written": (
        lambda: changed(
            "ch6",
            (PADDED, ""),
            (LOOK_UP, "        sizes = [size for size in self.model.decode_sizes if size >= len(batch.rows)]\n"
                      "        graph = self.graphs.get((self.slot, batch.decodes and min(sizes)))\n"),
        ),
        "1", "by a row that the batch has not: what an older one had left in the slot",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_token_comes_with_what_it_comes_from(name):
    make, seed, why = WRONG[name]
    outcome = replay(make(), seed)
    assert (outcome.hazards, "; right is " in outcome.failure) == ([], True)
    assert why in outcome.why
    assert f"  Why: {outcome.why}." in str(problem(outcome))


def test_a_page_that_somebody_else_has_written():
    """Two requests are given the same page: the second one's keys lie where the first one's should."""
    steal = "        if len(batch.rows) > 1: batch.rows[1].request.pages[0] = batch.rows[0].request.pages[0]\n"
    outcome = replay(changed("ch1", (SCHEDULED, SCHEDULED + steal)), "1")
    assert outcome.why == "page 15 of request 0 was written by request 1 in batch 0"


OWN_BOOKS = """
class Engine:
    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.slot = model, scheduler, model.new_slot()
    def run(self):
        while self.scheduler.has_work():
            batch = self.scheduler.schedule()
            self.slot.write(batch); self.slot.upload(); self.model.forward(self.slot)
            for index, token in zip(batch.sampled, self.slot.download().tolist()):
                request = batch.rows[index].request
                request.tokens.append({token})
                ends = token in request.stop_tokens, len(request.generated) == request.max_new_tokens
                if any(ends):
                    request.finish_reason = {reason}
                    self.scheduler._release(request)
                    self.scheduler.running.remove(request)
                    yield request
"""
REASON = "'stop' if ends[0] else 'length'"


@pytest.mark.parametrize(
    ("token", "reason", "said"),
    [
        ("token", REASON, None),
        ("7", REASON, "with token 7 as its 1st token; right is 24, and scheduler.update was never called"),
        ("token if len(request.generated) < 4 else 0", REASON, "with token 0 as its 5th token; right is"),
        ("token", "'length' if ends[1] else 'stop'", "request 2 with finish_reason 'length'; right is 'stop'"),
    ],
)
def test_an_engine_with_books_of_its_own_is_judged_by_what_it_yields(token, reason, said):
    outcome = serve(engine(OWN_BOOKS.format(token=token, reason=reason), "mine"), CASES[1])
    assert outcome.clean if said is None else said in outcome.failure


def test_a_replay_shows_requests_pages_and_tokens():
    outcome = replay(without("ch5", "self.model.carry_over"), "0")
    console = Console(width=160)
    with console.capture() as capture:
        console.print(timeline("mine.py", "0", outcome))
    shown = " ".join(capture.get().split())
    for note in ("0: 2 at 0, pages ", "0: 0 3 -> 3", "0: 0 -> 6", "0: 6 (right: 18)"):
        assert note in shown, note
