"""The cases an engine is led through: that they are the temptations they say, and what an Outcome says of an engine."""

import pytest

from acb_minimal.check import judge
from acb_minimal.check.books import Books
from acb_minimal.check.cases import CASES
from acb_minimal.check.judge import serve
from acb_minimal.check.network import VOCAB
from acb_minimal.check.oracle import generate
from acb_minimal.errors import InputError
from acb_minimal.run.engines import changed, engine, load_chapter
from acb_minimal.sim.policies import Lazy

NAMED = {case.name: case for case in CASES}


def test_the_network_forgets_nothing():
    """Each token, wherever it is, has a say in the next three."""
    changes = same = 0
    for length in (1, 3, 6, 10):
        prompt = [(5 * place + length) % VOCAB for place in range(length)]
        for place in range(length):
            for token in range(VOCAB):
                if token != prompt[place]:
                    other = [*prompt[:place], token, *prompt[place + 1 :]]
                    changes += 1
                    same += generate(prompt, 3) == generate(other, 3)
    assert same <= changes / 200


@pytest.mark.parametrize("name", NAMED)
def test_a_stop_token_ends_a_request_where_the_case_says(name):
    for (_, tokens, stop), asked in zip(NAMED[name].served, NAMED[name].prompts, strict=True):
        assert len(tokens) == (asked.stops_after or asked.new_tokens)
        assert not set(stop) & set(tokens[:-1])
        assert asked.stops_after is None or asked.stops_after <= asked.new_tokens


def test_pages_of_a_row_in_flight_are_handed_on(monkeypatch):
    """For each batch the pages of requests that have ended when its tokens come, and all of the next batch's."""
    dead, pages, take = [], {}, Books.updated

    def updated(books, batch, requests, places):
        pages.update(books.evidence.pages)
        ended = [row for row, place in zip(batch.sampled, places, strict=True) if place is None]
        dead.append((batch.number, {page for row in ended for page in pages[batch.number][row]}))
        take(books, batch, requests, places)

    monkeypatch.setattr(Books, "updated", updated)
    assert serve(load_chapter("ch5"), NAMED["pages"]).clean
    assert sum(any(ended & set(row) for row in pages.get(number + 1, ())) for number, ended in dead) >= 2


def test_what_was_queued_when_the_run_was_cut_short_counts():
    """Lazily the upload never runs before the forward pass that needs it: it would not have been seen."""
    without = changed("ch5", ("self.compute.wait_event(self.uploaded)", "pass"))
    outcome = serve(without, NAMED["pages"], Lazy())
    assert "; right is " in outcome.failure
    assert outcome.wrong_batch_number == 0
    assert "nothing makes compute wait for h2d" in str(outcome.hazards[0])


ENGINE = """
class Engine:
    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.slot = model, scheduler, model.new_slot()
    def run(self):
        {}
        yield
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (line 6: 1 / 0)"),
        ("while self.scheduler.has_work(): pass", "has looked for work 2,000 times and is not done (line 6: while"),
        ("return iter(())", "run ended without yielding request 0, 1, 2, 3, 4; it has to"),
        ("yield 'all'", "run yielded 'all'; it has to yield each request exactly once, with its finish_reason"),
        ("yield self.scheduler.schedule().rows[0].request", "run yielded request 0 before it was finished; it has to"),
        ("self.slot.download()", "RuntimeError: slot A holds no batch: write one to it first (line 6: self.slot"),
    ],
)
def test_an_engine_that_breaks_down_is_a_failure_in_one_line(body, message):
    outcome = serve(engine(ENGINE.format(body), "mine"), NAMED["rows"])
    assert message in outcome.failure
    assert len(outcome.failure.splitlines()) == 1
    assert not outcome.clean


def test_an_engine_has_to_yield_each_request_exactly_once():
    for yields, said in (("self.step()", "ended without yielding request 0, 1, 2, 3, 4"),
                         ("yield from self.step() * 2", "yielded request 0 twice")):  # fmt: skip
        outcome = serve(changed("ch5", ("yield from self.step()", yields)), NAMED["rows"])
        assert outcome.failure == f"run {said}; it has to yield each request exactly once, with its finish_reason"


def test_an_engine_without_run_is_bad_input():
    with pytest.raises(InputError, match="the Engine has no method `run`"):
        serve(engine("class Engine: pass", "mine"), NAMED["rows"])


def test_a_network_serves_one_engine_after_another():
    """Its cache is let go even when the run breaks down."""
    serve(engine(ENGINE.format("1 / 0"), "mine"), NAMED["rows"])
    assert serve(load_chapter("ch1"), NAMED["rows"]).clean
    assert not hasattr(judge.NETWORK.attention, "key_cache")
