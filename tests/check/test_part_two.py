"""Part two before the judge: what each chapter is for, the trap beside it, and mistakes that no hazard shows."""

from dataclasses import replace

import pytest

from acb_minimal.check import judge
from acb_minimal.check.cases import (
    CASES,
    GRAMMAR_CASES,
    READER_CASES,
    SAMPLING_CASES,
    SPECULATION_CASES,
    SWAP_CASES,
    Case,
)
from acb_minimal.check.judge import serve
from acb_minimal.check.mutations import find, mutants
from acb_minimal.check.network import NETWORK, REPEATING
from acb_minimal.check.oracle import guesses, steps
from acb_minimal.check.schedules import cases_of, replay
from acb_minimal.errors import InputError
from acb_minimal.preemption import PreemptingScheduler, SwappingScheduler
from acb_minimal.run.engines import changed, chapter_paths, hands_out, load_chapter
from acb_minimal.run.mistakes import ForgettingScheduler, StaleDrafts
from acb_minimal.run.parts import MODES
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.policies import Lazy

AWAY, BACK, LAST, ONTO = SWAP_CASES
LEAVES, FIRSTS = READER_CASES
DRAFTS, PIECES = SPECULATION_CASES
SMALL = replace(DRAFTS, reserve=DRAFTS.drafts, pages=13)  # enough for an engine that retires each batch first
SLOW = pytest.mark.slow


# --- what each chapter gets, and what the others make of it ---


def test_cases_for_readers_are_for_who_asks():
    assert [name for name in chapter_paths(None) if hands_out(load_chapter(name))] == ["ch11_arrivals"]
    assert cases_of(load_chapter("ch11")) == (*READER_CASES, *CASES)


@pytest.mark.parametrize(
    ("chapters", "case"),
    [
        (["ch1", "ch4", "ch5", "ch6"], SAMPLING_CASES[0]),
        (["ch1", "ch4", "ch5", "ch6"], SAMPLING_CASES[1]),
        (list(chapter_paths()), AWAY),
        *(pytest.param(list(chapter_paths()), case, marks=SLOW) for case in (BACK, LAST, ONTO)),
        (list(chapter_paths()), LEAVES),
        (["ch1", "ch4", "ch5", "ch6", "ch9", "ch10"], DRAFTS),
        (["ch1", "ch4", "ch5", "ch6", "ch9", "ch10"], PIECES),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_other_chapters_do_it_with_the_parts_that_they_are_given(chapters, case):
    for chapter in chapters:
        outcome = serve(load_chapter(chapter), case, Lazy())
        assert outcome.clean, (chapter, outcome.hazards, outcome.failure)


@pytest.mark.parametrize(("chapter", "case"), [("ch7", SAMPLING_CASES[0]), ("ch8", GRAMMAR_CASES[0])])
def test_a_case_that_asks_for_what_an_engine_has_not_is_refused(chapter, case):
    with pytest.raises(InputError, match=f"case '{case.name}' is not for this engine"):
        serve(load_chapter(chapter), case)


def test_the_likeliest_token_is_told_where_nothing_may_change_it():
    """Of the first case only request 2 has no grammar."""
    told = "; ".join(replay(load_chapter("ch7"), "0").notes.values()).split("; ")
    assert {note[0] for note in told if " -> " in note} == {"2"}


@pytest.mark.parametrize("chapter", chapter_paths(2))
def test_all_that_the_host_does_has_a_name(chapter):
    """What a slot writes beside the rest would have none if it were not in the time of its write."""
    actions = [action for _, action in replay(load_chapter(chapter), "1").events]
    assert all(action.what for action in actions if not action.actor)


def test_which_drafts_are_right_is_found_one_step_at_a_time():
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
    assert (case.network, NETWORK.pull) == (REPEATING, 0)
    assert {0, 1, 2} <= set(counts)


# --- a line of the chapter gone or moved: the hazard, or what no hazard shows ---

COUNT, STATE = "self.model.count(self.slot, self.state)", "self.model.sample(self.slot, self.state)"
CARRY = "self.model.carry_over(self.slot, self.other)"
NEW = "self.state = model.new_state()"
SWAP = "self.slot, self.other = self.other, self.slot"
ASKED = "self.downloaded[slot].query()"
TOO_EARLY = (
    "the host (update, batch 0) reads slot A's pinned outputs; the download of batch 0 writes them; nothing makes the "
    "host wait for d2h"
)
# The chapter, the changes, the seed, the first hazard, and why the first token that is wrong is wrong.
TRAPS = {
    "sampling does not wait for the masks": (
        "ch7", [("self.compute.wait_event(self.masked)", "pass")], "2",
        "the sampling of batch 0 reads slot A's masks; the upload of batch 0 writes them; nothing makes compute wait "
        "for h2d", None,
    ),
    "nothing is counted": (
        "ch8", [(COUNT, "pass")], "0", None,
        "request 0 was drawn with token 0 counted not at all in its prompt; right is once",
    ),
    "counted before the carry-over": (
        "ch8", [(CARRY, "pass"), (COUNT, f"{COUNT}; {CARRY}")], "0", None,
        "request 0 was drawn with 0, the placeholder, counted once in its answer; right is not at all",
    ),
    "counted behind the draw": (
        "ch8", [(COUNT, "pass"), (STATE, f"{STATE}; {COUNT}")], "0", None,
        "request 0 was drawn with token 3 counted not at all in its answer; right is once",
    ),
    "a state for each slot": (
        "ch8", [(NEW, f"{NEW}; self.another = model.new_state()"),
                (SWAP, f"{SWAP}; self.state, self.another = self.another, self.state")], "0", None,
        "request 1 was drawn with token 7 counted not at all in its prompt; right is once",
    ),
    "counted on another stream": (
        "ch8", [("            " + COUNT, f"            with self.cuda.stream(self.d2h): {COUNT}")], "0",
        "the counting of batch 0 reads slot A's inputs; the upload of batch 0 writes them; nothing makes d2h wait for "
        "h2d", None,
    ),
    "copies do not wait for the batch in flight": (
        "ch9", [("self.swap.wait_event(self.computed)", "pass")], "4",
        "the swap-out reads the keys of layer 0, page 1; the forward pass of batch 0 writes them; nothing makes swap "
        "wait for compute", None,
    ),
    "the batch after next does not wait for the copies": (
        "ch9", [("self.compute.wait_event(self.swapped)", "pass")], "4",
        "the forward pass of batch 4 writes the keys of layer 0, page 1; the swap-out reads them; nothing makes "
        "compute wait for swap", None,
    ),
    "copies go with a batch alone": (
        "ch9", [("        self.move()   ", "        "),
                ("        if batch:\n", "        if batch:\n            self.move()\n")], "5", None,
        "page 0 of request 2 was not back from host memory",
    ),
    "no drafts": (
        "ch10", [("self.model.draft(self.slot)", "pass")], "0", None,
        "request 0 was given drafts 0, 0; behind the same tokens there were 4, 5",
    ),
    "rows are not corrected": (
        "ch10", [("self.model.correct(self.slot)", "pass")], "0", None,
        "request 0 starts from 0, the placeholder: nothing carried its token over",
    ),
    "it asks the other slot's event": ("ch11", [(ASKED, "self.downloaded[self.slot].query()")], "0", TOO_EARLY, None),
    "it does not ask": ("ch11", [(f" and {ASKED}", "")], "0", TOO_EARLY, None),
    "a batch is retired twice": (
        "ch11", [("        self.in_flight = None                         # or N would", "        pass  # N would")],
        "4", None, "the batch was retired before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_shows_as_a_hazard_or_comes_with_its_cause(name):
    chapter, changes, seed, hazard, why = TRAPS[name]
    outcome = replay(changed(chapter, *changes), seed)
    assert (str(outcome.hazards[0]) if outcome.hazards else None) == hazard
    assert hazard or outcome.why == why


@SLOW
@pytest.mark.parametrize("mutant", list(mutants("ch9")), ids=lambda mutant: f"line {mutant.line}")
def test_every_line_of_chapter_9_that_orders_is_missed(mutant):
    assert find(mutant).caught


# --- mistakes of the parts: right where no batch is in flight, and no hazard where one is ---


def freed_twice(self, id: str):
    """Ends a request as `cancel` does, but leaves its row in flight to end it once more."""
    request = next(each for each in self.running if each.id == id)
    self.running.remove(request)
    self.pool.free(request.pages)
    self._ids.discard(id)
    request.stop_tokens = frozenset(range(99))
    return request


# What is put where, the case, chapters in which that is right, others, and what is said of these.
MISTAKES: dict[str, tuple[tuple, Case, tuple[str, ...], tuple[str, ...], str]] = {
    "masks are written too early": (
        (), GRAMMAR_CASES[0], ("ch1", "ch4"), ("ch5", "ch6"),
        "batch 1: request '0' got token 18 as its number 1: its grammar forbids it",
    ),
    "a reserve too small": (
        (), SMALL, ("ch1", "ch3"), ("ch5", "ch10"),
        "batch 8 writes position 14 of request 0 to page 0, which is request 2's",
    ),
    "drafts from what the host knows": (
        (judge, "SpeculatingModel", StaleDrafts), DRAFTS, ("ch1",), ("ch4", "ch5", "ch10"),
        " has accepted 0 of 2 drafts of request ",
    ),
    "the token in flight is forgotten": (
        (MODES, "recompute", ForgettingScheduler), LAST, ("ch1",), ("ch4", "ch5"),
        "it is token number 3 of request 4 once more: that was in flight when it gave way, and was computed again all "
        "the same",
    ),
    "pages are freed on cancel and by the row in flight": (
        (Scheduler, "cancel", freed_twice), LEAVES, ("ch1",), ("ch5", "ch11"), " a token when its reader had left",
    ),
    "a request that ends while it waits goes on waiting": (
        (PreemptingScheduler, "update"), AWAY, (), ("ch5", "ch9"), " has a row for request ",
    ),
    "a berth is not given back": (
        (SwappingScheduler, "_release"), AWAY, (), ("ch9",),
        "all requests have ended, and 1 of 2 places in host memory are not free",
    ),
    "pages on their way are forgotten": (
        (SwappingScheduler, "has_work"), AWAY, (), ("ch9",),
        "all requests have ended, and 2 of 4 places in the KV cache are not free",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_where_a_batch_is_in_flight_and_is_no_hazard(name, monkeypatch):
    put, case, right, wrong, said = MISTAKES[name]
    if put:
        where, what, *instead = put
        change = monkeypatch.setitem if where is MODES else monkeypatch.setattr if instead else monkeypatch.delattr
        change(where, what, *instead)
    for chapter in (*right, *wrong):
        outcome = serve(load_chapter(chapter), case, Lazy())
        assert not outcome.hazards
        assert outcome.clean is (chapter in right), chapter
        assert outcome.clean or said in f"{outcome.failure}; {outcome.why}"
