"""Drafts: that the judge sees who writes to whose pages, and how many drafts are right, where no token says so."""

from dataclasses import replace

import pytest

from acb_minimal.check import judge
from acb_minimal.check.cases import SPECULATION_CASES
from acb_minimal.check.explorer import ScheduleExplorer
from acb_minimal.check.judge import serve
from acb_minimal.check.mutations import find, mutants
from acb_minimal.check.network import NETWORK, REPEATING
from acb_minimal.check.oracle import guesses, steps
from acb_minimal.check.schedules import replay
from acb_minimal.run.engines import load_chapter, without
from acb_minimal.run.mistakes import StaleDrafts

DRAFTS, PIECES = SPECULATION_CASES
SMALL = replace(DRAFTS, reserve=DRAFTS.drafts, pages=13)  # enough for an engine that retires each batch first


def test_what_is_right_is_found_one_step_at_a_time():
    assert guesses([5, 6, 7, 5, 6], 4) == [7, 5, 6, 7]
    assert guesses([5, 6, 7], 2) == [7, 7]
    assert guesses([5], 2) == [5, 5]
    assert guesses([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 1) == [9]  # more of them are the same there than the last time
    found = steps([5, 6], [7, 5, 6, 7, 5, 6, 4, 4], 2)
    assert {place: (step.drafts, step.accepted) for place, step in found.items()} == {
        1: ([7, 7], 0), 2: ([6, 7], 2), 5: ([6, 7], 1)
    }  # fmt: skip


@pytest.mark.parametrize("case", SPECULATION_CASES, ids=lambda case: case.name)
def test_cases_have_drafts_that_are_right_and_others(case):
    counts = [step.accepted for request in case.steps(case.drafts) for step in request.values()]
    assert case.network is REPEATING
    assert NETWORK.pull == 0
    assert {0, 1, 2} <= set(counts)


@pytest.mark.parametrize("chapter", ["ch1", "ch4", "ch5", "ch6", "ch9", "ch10"])
def test_chapters_are_clean(chapter):
    for case in SPECULATION_CASES:
        outcome = serve(load_chapter(chapter), case)
        assert outcome.clean, outcome.failure


@pytest.mark.exhaustive
def test_chapter_10_is_clean_under_every_schedule():
    explorer = ScheduleExplorer(load_chapter("ch10"), DRAFTS)
    assert explorer.follow(5000) is None
    assert explorer.complete


@pytest.mark.parametrize(("chapter", "clean"), [("ch1", True), ("ch3", True), ("ch5", False), ("ch10", False)])
def test_a_reserve_too_small_is_no_hazard_but_somebody_elses_page(chapter, clean):
    outcome = serve(load_chapter(chapter), SMALL)
    assert outcome.clean is clean
    assert not outcome.hazards
    if not clean:
        assert outcome.failure == "batch 8 writes position 14 of request 0 to page 0, which is request 2's"


def test_drafts_that_are_not_made_leave_tokens_right_and_are_noticed():
    outcome = replay(without("ch10", "self.model.draft(self.slot)"), "0")
    assert not outcome.hazards
    assert outcome.failure == "batch 3 has accepted 0 of 2 drafts of request 0; right are 1"
    assert outcome.why == "request 0 was given drafts 0, 0; behind the same tokens there were 4, 5"


@pytest.mark.parametrize(("chapter", "clean"), [("ch1", True), ("ch4", False), ("ch5", False), ("ch10", False)])
def test_drafts_from_what_the_host_knows_are_noticed_where_it_is_a_batch_behind(chapter, clean, monkeypatch):
    monkeypatch.setattr(judge, "SpeculatingModel", StaleDrafts)
    outcome = serve(load_chapter(chapter), DRAFTS)
    assert outcome.clean is clean
    assert not outcome.hazards
    assert clean or "has accepted 0 of 2 drafts" in outcome.failure


def test_a_row_that_is_not_corrected_starts_from_the_placeholder():
    outcome = replay(without("ch10", "self.model.correct(self.slot)"), "0")
    assert outcome.why == "request 0 starts from 0, the placeholder: nothing carried its token over"


@pytest.mark.exhaustive  # test_mutations.py has them one by one, in every case of the judge
def test_each_line_that_orders_is_needed():
    found = {mutant.text: find(mutant).caught for mutant in mutants("ch10")}
    print(found)
    assert None not in found.values()
    assert found["self.model.draft(self.slot)"] == found["self.model.correct(self.slot)"] == "tokens"
