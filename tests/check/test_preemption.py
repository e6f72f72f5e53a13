"""Pages that run out, before the judge: chapter 9's two waits, and the mistakes that a scheduler can make."""

import pytest

from acb_minimal.check.cases import SWAP_CASES
from acb_minimal.check.explorer import ScheduleExplorer
from acb_minimal.check.judge import serve
from acb_minimal.check.mutations import find, mutants
from acb_minimal.check.schedules import replay
from acb_minimal.preemption import PreemptingScheduler, SwappingScheduler
from acb_minimal.run.engines import changed, chapter_paths, load_chapter, without
from acb_minimal.run.mistakes import ForgettingScheduler
from acb_minimal.run.preempting import MODES
from acb_minimal.sim.policies import Lazy

AWAY, BACK, LAST, ONTO = SWAP_CASES
SLOW = pytest.mark.slow


@pytest.mark.parametrize("chapter", chapter_paths())
@pytest.mark.parametrize("case", [AWAY, *(pytest.param(case, marks=SLOW) for case in (BACK, LAST, ONTO))])
def test_what_is_computed_again_is_clean_in_every_chapter(chapter, case):
    outcome = serve(load_chapter(chapter), case, Lazy())
    assert outcome.clean, (outcome.hazards, outcome.failure)


def test_chapter_9_is_clean_under_all_policies():
    for seed in range(8):
        assert replay(load_chapter("ch9"), str(seed)).clean


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", SWAP_CASES, ids=lambda case: case.name)
def test_chapter_9_is_clean_under_ten_thousand_schedules(case):
    explorer = ScheduleExplorer(load_chapter("ch9"), case)
    assert explorer.follow(300) is None
    print(explorer.explored())
    assert explorer.schedules() > 10_000


def test_copies_have_to_wait_for_the_batch_in_flight():
    outcome = replay(without("ch9", "self.swap.wait_event(self.computed)"), "4")
    assert str(outcome.hazards[0]) == (
        "the swap-out reads the keys of layer 0, page 1; the forward pass of batch 0 writes them; nothing makes swap "
        "wait for compute"
    )


def test_the_batch_after_next_has_to_wait_for_the_copies():
    outcome = replay(without("ch9", "self.compute.wait_event(self.swapped)"), "4")
    assert str(outcome.hazards[0]) == (
        "the forward pass of batch 4 writes the keys of layer 0, page 1; the swap-out reads them; nothing makes "
        "compute wait for swap"
    )


@SLOW
@pytest.mark.parametrize("mutant", list(mutants("ch9")), ids=lambda mutant: f"line {mutant.line}")
def test_every_line_that_orders_is_missed(mutant):
    assert find(mutant).caught


BESIDE = "        self.move()   ", "        "
WITH_BATCH = "        if batch:\n", "        if batch:\n            self.move()\n"


def test_copies_that_go_with_a_batch_alone_are_lost_without_one():
    outcome = replay(changed("ch9", BESIDE, WITH_BATCH), "5")
    assert outcome.failure is not None
    assert outcome.why == "page 0 of request 2 was not back from host memory"


@pytest.mark.parametrize(("chapter", "right"), [("ch1", True), ("ch4", False), ("ch5", False)])
def test_a_token_in_flight_that_is_forgotten_comes_twice(chapter, right, monkeypatch):
    monkeypatch.setitem(MODES, "recompute", ForgettingScheduler)
    outcome = serve(load_chapter(chapter), LAST, Lazy())
    assert not outcome.hazards
    assert outcome.clean is right
    if not right:
        assert outcome.why == (
            "it is token number 3 of request 4 once more: that was in flight when it gave way, and was computed again "
            "all the same"
        )


@pytest.mark.parametrize(("chapter", "batch", "request_"), [("ch5", 4, 1), ("ch9", 10, 4)])
def test_a_request_that_ends_while_it_waits_must_not_wait_on(chapter, batch, request_, monkeypatch):
    monkeypatch.delattr(PreemptingScheduler, "update")
    outcome = serve(load_chapter(chapter), AWAY, Lazy())
    assert outcome.failure == f"batch {batch} has a row for request {request_}, which has ended"


def test_a_berth_of_a_request_that_ends_while_it_is_away_is_missed(monkeypatch):
    monkeypatch.delattr(SwappingScheduler, "_release")
    outcome = serve(load_chapter("ch9"), AWAY, Lazy())
    assert outcome.failure == "all requests have ended, and 1 of 2 places in host memory are not free"


def test_pages_on_their_way_when_all_have_ended_are_missed(monkeypatch):
    monkeypatch.delattr(SwappingScheduler, "has_work")
    outcome = serve(load_chapter("ch9"), AWAY, Lazy())
    assert outcome.failure == "all requests have ended, and 2 of 4 places in the KV cache are not free"
