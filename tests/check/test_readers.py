"""Tokens that are handed out early, and readers who leave, before the judge: chapter 11, and what goes wrong in it."""

import pytest

from acb_minimal.check.cases import CASES, READER_CASES
from acb_minimal.check.explorer import ScheduleExplorer
from acb_minimal.check.judge import serve
from acb_minimal.check.mutations import find, mutants
from acb_minimal.check.schedules import cases_of, replay
from acb_minimal.request import Request
from acb_minimal.run.engines import changed, chapter_paths, hands_out, load_chapter
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.policies import Eager, Lazy

SLOW = pytest.mark.slow
LEAVES, FIRSTS = READER_CASES
ASKED = "self.downloaded[slot].query()"
TOO_EARLY = (
    "the host (update, batch 0) reads slot A's pinned outputs; the download of batch 0 writes them; nothing makes the "
    "host wait for d2h"
)


def test_these_cases_are_for_who_asks():
    assert [name for name in chapter_paths(None) if hands_out(load_chapter(name))] == ["ch11_arrivals"]
    assert cases_of(load_chapter("ch11")) == (*READER_CASES, *CASES)


@pytest.mark.parametrize("chapter", chapter_paths())
def test_readers_may_leave_every_chapter(chapter):
    outcome = serve(load_chapter(chapter), LEAVES, Lazy())
    assert outcome.clean, (outcome.hazards, outcome.failure)


def test_chapter_11_is_clean_under_all_policies():
    for seed in range(18):
        assert replay(load_chapter("ch11"), str(seed)).clean


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [*READER_CASES, CASES[0]], ids=lambda case: case.name)
def test_chapter_11_is_clean_under_ten_thousand_schedules(case):
    explorer = ScheduleExplorer(load_chapter("ch11"), case)
    assert explorer.follow(1000) is None
    assert explorer.complete or explorer.schedules() > 10_000


@pytest.mark.parametrize(
    "event",
    ["self.downloaded[self.slot]", *(pytest.param(each, marks=SLOW) for each in ("self.computed", "self.uploaded"))],
)
def test_who_asks_the_wrong_event_takes_tokens_that_are_not_there(event):
    outcome = replay(changed("ch11", (ASKED, f"{event}.query()")), "0")
    assert str(outcome.hazards[0]) == TOO_EARLY
    assert outcome.failure.startswith("batch 0 gave request 0 token 0 as its 1st token")


def test_who_does_not_ask_takes_tokens_that_are_not_there():
    assert str(replay(changed("ch11", (f" and {ASKED}", "")), "0").hazards[0]) == TOO_EARLY


def test_a_batch_that_is_retired_twice_is_missed():
    forgets = "        self.in_flight = None                         # or N would"
    kept = changed("ch11", (forgets, "        pass  # N would"))
    outcome = serve(kept, LEAVES, Eager())
    assert not outcome.hazards
    assert outcome.why == "the batch was retired before"


def freed_twice(self, id: str) -> Request:
    """Ends a request as `cancel` does, but leaves its row in flight to end it once more."""
    request = next(each for each in self.running if each.id == id)
    self.running.remove(request)
    self.pool.free(request.pages)
    self._ids.discard(id)
    request.stop_tokens = frozenset(range(99))
    return request


@pytest.mark.parametrize(("chapter", "right"), [("ch1", True), ("ch5", False), ("ch11", False)])
def test_pages_that_are_freed_on_cancel_and_by_the_row_in_flight_are_freed_twice(chapter, right, monkeypatch):
    """In chapter 1 there is no such row: the mistake shows only where a batch is in flight."""
    monkeypatch.setattr(Scheduler, "cancel", freed_twice)
    outcome = serve(load_chapter(chapter), LEAVES, Lazy())
    assert outcome.clean is right
    if not right:
        assert not outcome.hazards


TAKEN_AWAY = list(mutants("ch11"))


@SLOW
@pytest.mark.parametrize("mutant", TAKEN_AWAY, ids=lambda mutant: f"line {mutant.line}")
def test_every_line_that_orders_is_missed(mutant):
    assert find(mutant).caught
