"""Schedules: that a seed is one, that all of them are found, and that the chapters hold under all."""

import pytest

from acb_minimal.check import schedules as module
from acb_minimal.check.cases import CASES, GRAMMAR_CASES, SAMPLING_CASES, Case, Prompt
from acb_minimal.check.explorer import ScheduleExplorer, Script
from acb_minimal.check.judge import serve
from acb_minimal.check.schedules import replay, search
from acb_minimal.errors import InputError
from acb_minimal.run.engines import changed, chapter_paths, engine, load_chapter, without
from acb_minimal.sim.policies import Lazy

TINY = Case("tiny", (Prompt(1, 2),), 4, 1, 1)


# All cases of all chapters are a few minutes' work, for `acb check`. "rows" has the fewest batches.
def _mark(chapter: str, case) -> tuple | pytest.MarkDecorator:
    if case.name != "rows" or chapter > "ch5":
        return pytest.mark.exhaustive
    return () if chapter < "ch3" else pytest.mark.slow


EXPLORED = [
    pytest.param(chapter, case, marks=_mark(chapter, case))
    for chapter in chapter_paths()
    for case in CASES
    if chapter < "ch4" or case.name == "rows"
]


@pytest.mark.parametrize(("chapter", "case"), EXPLORED, ids=lambda value: getattr(value, "name", value))
def test_a_chapter_is_clean_under_every_schedule(chapter, case):
    explorer = ScheduleExplorer(load_chapter(chapter), case)
    assert explorer.follow(5000) is None
    assert explorer.complete
    print(explorer.explored())
    # In chapter 2 the host waits for everything it queues: there is one schedule.
    assert explorer.schedules() == 1 if chapter == "ch2_streams" else explorer.schedules() > 60


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", GRAMMAR_CASES, ids=lambda case: case.name)
def test_chapter_7_is_clean_under_every_schedule(case):
    explorer = ScheduleExplorer(load_chapter("ch7"), case)
    assert explorer.follow(5000) is None
    assert explorer.complete


def test_sampling_has_to_wait_for_the_masks():
    outcome = replay(without("ch7", "self.compute.wait_event(self.masked)"), "2")
    assert str(outcome.hazards[0]).startswith("the sampling of batch 0 reads slot A's masks; the upload of batch 0 ")
    assert outcome.hazards[0].edge == ("compute", "h2d")


@pytest.mark.parametrize(("chapter", "clean"), [("ch1", True), ("ch4", True), ("ch5", False), ("ch6", False)])
def test_masks_that_are_written_too_early_are_no_hazard_but_an_illegal_token(chapter, clean):
    outcome = replay(load_chapter(chapter), "masks:")
    assert outcome.clean is clean
    assert not outcome.hazards
    if not clean:
        assert outcome.failure == "batch 1: request '0' got token 18 as its number 1: its grammar forbids it"
        assert outcome.wrong_batch_number == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", SAMPLING_CASES, ids=lambda case: case.name)
def test_chapter_8_is_clean_under_every_schedule(case):
    explorer = ScheduleExplorer(load_chapter("ch8"), case)
    assert explorer.follow(5000) is None
    assert explorer.complete


COUNT, STATE = "self.model.count(self.slot, self.state)", "self.model.sample(self.slot, self.state)"
CARRY = "self.model.carry_over(self.slot, self.other)"
NEW = "self.state = model.new_state()"


@pytest.mark.parametrize(
    ("changes", "hazard", "why"),
    [
        ([(COUNT, "pass")], None, "request 0 was drawn with token 0 counted not at all in its prompt; right is once"),
        ([(CARRY, "pass"), (COUNT, f"{COUNT}; {CARRY}")], None,
         "request 0 was drawn with 0, the placeholder, counted once in its answer; right is not at all"),
        ([(COUNT, "pass"), (STATE, f"{STATE}; {COUNT}")], None,
         "request 0 was drawn with token 3 counted not at all in its answer; right is once"),
        ([(NEW, f"{NEW}; self.another = model.new_state()"),
          ("self.slot, self.other = self.other, self.slot", "self.slot, self.other = self.other, self.slot; "
                                                            "self.state, self.another = self.another, self.state")],
         None, "request 1 was drawn with token 7 counted not at all in its prompt; right is once"),
        ([("            " + COUNT, f"            with self.cuda.stream(self.d2h): {COUNT}")],
         "the counting of batch 0 reads slot A's inputs; the upload of batch 0 writes them; nothing makes d2h wait for "
         "h2d", None),
    ],
    ids=["none", "before the carry-over", "behind the draw", "a state for each slot", "on another stream"],
)  # fmt: skip
def test_what_is_counted_when_and_where_is_needed(changes, hazard, why):
    outcome = replay(changed("ch8", *changes), "0")
    assert (str(outcome.hazards[0]) if outcome.hazards else None) == hazard
    assert outcome.why == why


@pytest.mark.parametrize("chapter", ["ch1", "ch4", "ch5", "ch6"])
def test_other_chapters_draw_the_same_by_the_parts_they_are_given(chapter):
    for case in SAMPLING_CASES:
        assert replay(load_chapter(chapter), f"{case.name}:").clean


@pytest.mark.parametrize(("chapter", "case"), [("ch7", "draws"), ("ch8", "masks")])
def test_a_case_that_asks_for_what_an_engine_has_not_is_refused(chapter, case):
    with pytest.raises(InputError, match=f"case '{case}' is not for this engine"):
        replay(load_chapter(chapter), f"{case}:")


@pytest.mark.parametrize(("chapter", "seeds"), [("ch4", 16), ("ch6", 20), ("ch7", 6), ("ch8", 6)])
def test_a_chapter_is_clean_under_all_policies(chapter, seeds):
    for seed in range(seeds):
        assert replay(load_chapter(chapter), str(seed)).clean


@pytest.mark.slow
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_chapter_is_clean_under_all_policies_and_schedules_at_random(chapter):
    seen = set()
    for seed in range(30):
        outcome = replay(load_chapter(chapter), str(seed))
        assert outcome.clean, (seed, outcome.hazards, outcome.failure)
        seen.add((seed % len(CASES), outcome.schedule))
    assert len(seen) == len(CASES) if chapter == "ch2_streams" else len(seen) > 20


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


AHEAD = """
class Engine:
    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.ahead = cuda.Stream(), cuda.Stream()
    def run(self):
        self.other.pad(1)
        batch = self.scheduler.schedule()
        self.slot.write(batch)
        with self.cuda.stream(self.ahead):
            self.other.upload(non_blocking=True)
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)
        while not self.h2d.query():
            pass
        self.h2d.synchronize()
        self.model.forward(self.slot)
        tokens = self.slot.download()
        yield from self.scheduler.update(batch, tokens)
"""


def test_what_the_host_does_not_wait_for_can_come_at_any_time():
    """An upload runs from its launch to the end beside everything else, and the host asks before it waits."""
    ahead, case = engine(AHEAD, "ahead"), Case("tiny", (Prompt(1, 1),), 4, 1, 1)
    explorer = ScheduleExplorer(ahead, case)
    assert explorer.follow(10_000) is None
    found = one_by_one(ahead, case)
    assert explorer.schedules() == len(found) > 10


OWN = """
class Engine:
    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.h2d = model.new_slot(), cuda.Stream()
    def run(self):
        while self.scheduler.has_work():
            batch = self.scheduler.schedule()
            self.slot.write(batch)
            with self.cuda.stream(self.h2d):
                self.slot.upload(non_blocking=True)
            self.slot.host_inputs.input_ids[:] = 0
            self.h2d.synchronize()
            self.model.forward(self.slot)
            yield from self.scheduler.update(batch, self.slot.download())
"""


def test_what_an_engine_does_to_memory_by_itself_is_seen():
    _, outcome = ScheduleExplorer(engine(OWN, "own"), TINY).follow(100)
    (hazard,) = outcome.hazards
    assert str(hazard).startswith("the host (its own code) writes slot A's pinned inputs; the upload of batch 0 read")
    assert "input_ids[:] = 0" in hazard.second.line.text


def test_two_streams_that_do_not_wait_for_each_other_can_take_turns_in_any_order():
    """Chapter 5 without its waits: from here on anything goes, and wrong tokens are found with their schedule."""
    without = changed("ch5", ("self.compute.wait_event(self.uploaded)", "pass"))
    seed, outcome = ScheduleExplorer(without, CASES[1]).follow(100)
    assert not outcome.clean
    again = replay(without, seed)
    assert again.schedule == outcome.schedule
    assert again.failure == outcome.failure


@pytest.mark.slow
def test_a_run_that_is_cut_off_is_not_complete():
    explorer = ScheduleExplorer(load_chapter("ch5"), TINY)
    explorer.follow(5)
    assert (explorer.runs, explorer.complete) == (5, False)
    few = explorer.schedules()
    explorer.follow(10_000)
    assert explorer.complete
    assert 0 < few < explorer.schedules()


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


def test_a_seed_is_a_schedule():
    schedules = {}
    for seed in map(str, range(12, 18)):
        outcome = replay(load_chapter("ch5"), seed)
        assert outcome.clean
        schedules[seed] = outcome.schedule
        assert replay(load_chapter("ch5"), seed).schedule == outcome.schedule
    assert len(set(schedules.values())) == len(schedules)


@pytest.mark.parametrize("seed", ["x", "-1", "", "1.5", "rows:x", "rows:1.", "nothing:1", "rows:7"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(InputError, match="unknown seed|choice 7 of a seed"):
        replay(load_chapter("ch2"), seed)


def test_a_search_stops_where_it_goes_wrong():
    """At the first schedule, if there is a hazard: no luck is needed."""
    verdict = search(changed("ch4", ("self.d2h.wait_event(self.computed)", "pass")))
    assert (verdict.seed, verdict.schedules, verdict.explored) == ("0", 0, [])
    assert verdict.outcome.hazards


@pytest.mark.slow
def test_a_search_explores_while_there_is_time(monkeypatch):
    monkeypatch.setattr(module, "CASES", (TINY,))
    verdict = search(load_chapter("ch5"), 0.01)
    assert verdict.outcome is None
    assert [case.runs for case in verdict.explored] == [module.SLICE]
    assert not all(case.complete for case in verdict.explored)
    assert search(load_chapter("ch5"), 60).explored[0].complete


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
