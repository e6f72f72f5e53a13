"""Schedules: that a seed is one, that all of them are found, and that the chapters hold under all."""

import pytest

from acb_minimal import search as module
from acb_minimal.check import CASES, Case, Prompt, serve
from acb_minimal.errors import InputError
from acb_minimal.run import chapter_paths, load_chapter
from acb_minimal.search import Exploration, Script, replay, search
from acb_minimal.variants import changed

TINY = Case("tiny", (Prompt(1, 2),), 4, 1, 1)


@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_chapter_is_clean_under_every_schedule_of_every_case(chapter):
    verdict = search(load_chapter(chapter), schedules=30)
    assert verdict.outcome is None, verdict.outcome.hazards or verdict.outcome.failure
    assert [exploration.complete for exploration in verdict.explorations] == [True] * len(CASES)
    assert verdict.schedules >= 30 or chapter in ("ch1_sync", "ch2_streams")
    covered = sum(exploration.schedules() for exploration in verdict.explorations)
    print(f"{chapter}: {covered:,} schedules, {sum(e.states for e in verdict.explorations):,} states")
    # In chapter 2 the host waits for everything it queues: a case has one schedule.
    assert covered == len(CASES) if chapter == "ch2_streams" else covered > 900


def one_by_one(engine_class: type, case: Case) -> set[tuple]:
    """Every schedule, found without a thought: each choice of each run is tried, states are not compared."""

    class Counting(Script):
        def __init__(self, choices):
            super().__init__(choices)
            self.options = []

        def choose(self, options, must):
            self.options.append(options)
            return super().choose(options, must)

    found, choices = set(), []
    while True:
        script = Counting(choices)
        outcome = serve(engine_class, case, script)
        assert outcome.clean
        found.add(tuple((kind, action.number) for kind, action in outcome.checker.events))
        choices = script.made
        while choices and choices[-1] + 1 == script.options[len(choices) - 1]:
            choices = choices[:-1]
        if not choices:
            return found
        choices = [*choices[:-1], choices[-1] + 1]


@pytest.mark.parametrize("chapter", ["ch1", "ch2", "ch3", "ch4"])
def test_an_exploration_counts_the_schedules_that_trying_everything_finds(chapter):
    case = Case("tiny", (Prompt(1, 1 if chapter in ("ch3", "ch4") else 2),), 4, 1, 1)
    exploration = Exploration(load_chapter(chapter), case)
    assert exploration.follow(10_000) is None
    assert exploration.complete
    found = one_by_one(load_chapter(chapter), case)
    assert exploration.schedules() == len(found)
    assert len(found) > 1 or chapter == "ch2"


def test_two_streams_that_do_not_wait_for_each_other_can_take_turns_in_any_order():
    """Chapter 5 without its waits: from here on anything goes, and wrong tokens are found with their schedule."""
    without = changed("ch5", ("self.compute.wait_event(self.uploaded)", "pass"))
    seed, outcome = Exploration(without, CASES[1]).follow(100)
    assert not outcome.clean
    again = replay(without, seed)
    assert again.schedule == outcome.schedule
    assert again.failure == outcome.failure


def test_a_run_that_is_cut_off_is_not_complete():
    exploration = Exploration(load_chapter("ch5"), CASES[0])
    exploration.follow(5)
    assert (exploration.runs, exploration.complete) == (5, False)
    assert 0 < exploration.schedules() < 10**20
    exploration.follow(10_000)
    assert exploration.complete


HASTY = (
    "        self.downloaded.synchronize()                 # or update would read tokens that have not arrived\n",
    "        if not self.computed.query():\n            self.downloaded.synchronize()\n",
)


def test_an_engine_that_asks_and_goes_on_is_found_in_a_schedule_where_it_is_told_yes():
    """What the host does depends on the schedule here, and so does the hazard."""
    hasty = changed("ch3", HASTY)
    assert serve(hasty, CASES[1], "lazy").clean
    seed, outcome = Exploration(hasty, CASES[1]).follow(1000)
    assert "nothing makes the host wait for d2h" in str(outcome.hazards[0])
    assert [str(hazard) for hazard in replay(hasty, seed).hazards] == [str(hazard) for hazard in outcome.hazards]


def test_an_engine_that_rolls_dice_cannot_be_explored():
    roll = "        import random; random.random() < 0.5 and self.h2d.query()\n"
    dice = changed("ch5", ("        if batch:\n", f"{roll}        if batch:\n"))
    with pytest.raises(InputError, match="did not do the same thing twice"):
        Exploration(dice, CASES[0]).follow(1000)


def test_a_seed_is_a_schedule():
    schedules = {}
    for seed in map(str, range(12, 40)):
        outcome = replay(load_chapter("ch5"), seed)
        assert outcome.clean
        schedules[seed] = outcome.schedule
        assert replay(load_chapter("ch5"), seed).schedule == outcome.schedule
    assert len(set(schedules.values())) == len(schedules)


@pytest.mark.parametrize("seed", ["x", "-1", "", "1.5", "rows:x", "rows:1.", "nothing:1", "rows"])
def test_a_seed_that_is_none_is_refused(seed):
    if seed == "rows":
        assert replay(load_chapter("ch2"), seed).clean
        return
    with pytest.raises(InputError, match="unknown seed"):
        replay(load_chapter("ch2"), seed)


def test_a_search_stops_where_it_goes_wrong():
    """At the first schedule, if there is a hazard: no luck is needed."""
    verdict = search(changed("ch4", ("self.d2h.wait_event(self.computed)", "pass")))
    assert (verdict.seed, verdict.schedules, verdict.explorations) == ("0", 1, [])
    assert verdict.outcome.hazards


def test_a_search_runs_as_many_different_schedules_as_it_is_told(monkeypatch):
    monkeypatch.setattr(module, "CASES", (TINY,))
    verdict = search(load_chapter("ch5"), schedules=25)
    assert (verdict.outcome, verdict.schedules) == (None, 25)


def test_a_search_ends_when_there_are_no_more_schedules(monkeypatch):
    monkeypatch.setattr(module, "CASES", (TINY,))
    assert search(load_chapter("ch2"), schedules=50).schedules == 1
