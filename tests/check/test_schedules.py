"""Schedules: that a seed is one, that all of them are found, and that the chapters hold under all."""

import pytest

from acb_minimal.check import schedules as module
from acb_minimal.check.cases import CASES, Case, Prompt
from acb_minimal.check.explorer import ScheduleExplorer, Script
from acb_minimal.check.judge import serve
from acb_minimal.check.schedules import cases_of, replay, search
from acb_minimal.errors import InputError
from acb_minimal.run.engines import changed, chapter_paths, load_chapter
from acb_minimal.sim.policies import Lazy

TINY = Case("tiny", (Prompt(1, 2),), 4, 1, 1)


# All cases of all chapters are a few minutes' work, for `acb check`. "rows" has the fewest batches.
def _mark(chapter: str, case: Case) -> tuple | pytest.MarkDecorator:
    if case.name != "rows" or chapter not in list(chapter_paths())[:5]:
        return pytest.mark.exhaustive
    return () if chapter < "ch3" else pytest.mark.slow


EXPLORED = [
    pytest.param(chapter, case, marks=_mark(chapter, case))
    for chapter in chapter_paths(None)
    for case in cases_of(load_chapter(chapter))
    if case not in CASES or case.name == "rows" or chapter in ("ch1_sync", "ch2_streams", "ch3_events")
]


@pytest.mark.parametrize(("chapter", "case"), EXPLORED, ids=lambda value: getattr(value, "name", value))
def test_a_chapter_is_clean_under_every_schedule(chapter, case):
    """Or under ten thousand, where there are more."""
    explorer = ScheduleExplorer(load_chapter(chapter), case)
    assert explorer.follow({"ch9_preemption": 300, "ch11_arrivals": 1000}.get(chapter, 5000)) is None
    assert explorer.complete or explorer.schedules() > 10_000
    # In chapter 2 the host waits for everything it queues: there is one schedule.
    assert explorer.schedules() == 1 if chapter == "ch2_streams" else explorer.schedules() > 60


@pytest.mark.parametrize("chapter", [
    *(pytest.param(chapter, marks=pytest.mark.slow) for chapter in ("ch1", "ch2", "ch3", "ch5")),
    "ch4", "ch6", "ch7", "ch8", "ch9", "ch10", "ch11",
])  # fmt: skip
def test_a_chapter_is_clean_under_all_policies(chapter):
    for seed in range(4 * len(cases_of(load_chapter(chapter)))):
        assert replay(load_chapter(chapter), str(seed)).clean


def one_by_one(engine_class: type, case: Case) -> set[tuple]:
    """Every schedule, found without a thought: each choice of each run is tried, states are not compared."""

    class Counting(Script):
        def __init__(self, choices):
            super().__init__(choices)
            self.options = []

        def pick(self, options, must):
            self.options.append(options)
            return super().pick(options, must)

    found, choices = set(), []
    while True:
        script = Counting(choices)
        outcome = serve(engine_class, case, script)
        assert outcome.clean
        found.add(tuple((kind, action.number) for kind, action in outcome.events))
        choices = script.made
        while choices and choices[-1] + 1 == script.options[len(choices) - 1]:
            choices = choices[:-1]
        if not choices:
            return found
        choices = [*choices[:-1], choices[-1] + 1]


@pytest.mark.parametrize(
    "chapter", ["ch2", "ch4", pytest.param("ch1", marks=pytest.mark.slow), pytest.param("ch3", marks=pytest.mark.slow)]
)
def test_an_exploration_counts_the_schedules_that_trying_everything_finds(chapter):
    case = Case("tiny", (Prompt(1, 1 if chapter in ("ch3", "ch4") else 2),), 4, 1, 1)
    explorer = ScheduleExplorer(load_chapter(chapter), case)
    assert explorer.follow(10_000) is None
    assert explorer.complete
    found = one_by_one(load_chapter(chapter), case)
    assert explorer.schedules() == len(found)
    assert len(found) > 1 or chapter == "ch2"


def test_two_streams_that_do_not_wait_for_each_other_can_take_turns_in_any_order():
    """Chapter 5 without its waits: from here on anything goes, and wrong tokens are found with their schedule."""
    without = changed("ch5", ("self.compute.wait_event(self.uploaded)", "pass"))
    seed, outcome = ScheduleExplorer(without, CASES[1]).follow(100)
    assert not outcome.clean
    again = replay(without, seed)
    assert again.schedule == outcome.schedule
    assert again.failure == outcome.failure


HASTY = (
    "        self.downloaded.synchronize()                 # or update would read tokens that have not arrived\n",
    "        if not self.computed.query():\n            self.downloaded.synchronize()\n",
)


def test_an_engine_that_asks_and_goes_on_is_found_in_a_schedule_where_it_is_told_yes():
    """What the host does depends on the schedule here, and so does the hazard."""
    hasty = changed("ch3", HASTY)
    assert serve(hasty, CASES[1], Lazy()).clean
    seed, outcome = ScheduleExplorer(hasty, CASES[1]).follow(1000)
    assert "nothing makes the host wait for d2h" in str(outcome.hazards[0])
    assert [str(hazard) for hazard in replay(hasty, seed).hazards] == [str(hazard) for hazard in outcome.hazards]


def test_an_engine_that_rolls_dice_cannot_be_explored():
    roll = "        import random; random.random() < 0.5 and self.h2d.query()\n"
    dice = changed("ch5", ("        if batch:\n", f"{roll}        if batch:\n"))
    with pytest.raises(InputError, match="did not do the same thing twice"):
        ScheduleExplorer(dice, CASES[0]).follow(1000)


@pytest.mark.parametrize("seed", ["x", "1.5", "rows:x", "nothing:1", "rows:7"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(InputError, match="unknown seed|choice 7 of a seed"):
        replay(load_chapter("ch2"), seed)


def test_a_search_ends_when_there_are_no_more_schedules(monkeypatch):
    monkeypatch.setattr(module, "CASES", (TINY,))
    verdict = search(load_chapter("ch2"), 1000)
    assert [(case.schedules, case.complete) for case in verdict.explored] == [(1, True)]
    assert verdict.schedules == 3  # of this case, the wide one and the long one


def test_what_comes_with_many_rows_alone_is_found():
    """No other case has more than 6 rows; the verdict says how many it has seen."""
    wait = "self.compute.wait_event(self.uploaded)"
    careless = changed("ch5", (f"        {wait}", f"        len(batch.rows) > 8 or {wait}"))
    found = search(careless, 0.01)
    assert found.seed.startswith("wide:")
    for seed in ("wide:lazy", "wide:timed"):
        assert "nothing makes compute wait for h2d" in str(replay(careless, seed).hazards[0])
    assert (found.rows, found.batches) == (16, 14)
    assert found.harm[1].wrong_batch_number == 0
