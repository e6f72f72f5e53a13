"""What the judge of the labs says: of starters, of solutions, of other right ways, and of what is no engine."""

import re
from io import StringIO

import pytest
from rich.console import Console

from acb_minimal.check import judge
from acb_minimal.course.labs import answering, judging
from acb_minimal.course.labs.lab import LABS, edited
from acb_minimal.errors import InputError
from acb_minimal.run.engines import chapter_path, code_lines


def slow_but(*quick: str):
    """A parameter for each lab; all but some are slow tests."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in LABS]


# What each starter lacks, as its ticks say, and in words.
STARTERS = {
    "batch": ("one pass, waits, step", "a step has 16 forward passes, and one is enough"),
    "streams": ("streams", "upload, forward pass and download are in 1 of 3 streams"),
    "events": ("waits", "the host waits 3 times in a step, and once is enough"),
    "marks": ("order, tokens", "finds nothing that was recorded"),
    "swap": ("slots", "the batches do not take turns with 2 slots"),
    "ahead": ("ahead, step", "it is too late for `schedule` of the next batch"),
    "slots": ("ahead, step", "it is too late for `schedule` and `write` of the next batch"),
    "carry": ("step", "a step takes longer than that of ch5_carry_over"),
    "graphs": ("step", "a step takes longer than that of ch6_cuda_graphs"),
    "masks": ("tokens", "its grammar forbids it"),
    "held": ("step", "a step takes longer than that of ch7_grammar"),
    "counts": ("tokens", "request 0 was drawn with token 0 counted not at all in its prompt; right is once"),
    "halves": ("tokens", "request 1 was drawn with token 7 counted not at all in its prompt; right is once"),
    "berths": ("order, tokens", "nothing makes swap wait for compute"),
    "place": ("tokens", "was not back from host memory"),
    "truth": ("tokens", "request 0 starts from 0, the placeholder: nothing carried its token over"),
    "reserve": ("tokens", "batch 5 writes position 12 of request 1 to page 0, which it has not been given"),
    "ready": ("first tokens", "a first token lies on the host for 13.7 ms before anybody has it"),
    "glance": ("first tokens", "In ch11_arrivals it is 1.3 ms"),
    "haste": ("order, tokens", "the host (fill, batch 1) writes slot B's pinned inputs; the upload of batch 1 reads"),
    "idle": ("step", "for the download of batch N; N + 1 is not launched yet, so the GPU runs dry"),
    "late": ("step", "for the download of batch N + 1, and takes in the tokens of N; N + 2 is not launched yet"),
    "lucky": ("order, tokens", "reads slot A's pinned outputs; the download of batch 0 writes them"),
    "scramble": ("order, tokens", "the upload of batch 2 writes slot A's inputs; the forward pass of batch 0 reads"),
    "scarce": ("tokens", "batch 1 gave request 0 token"),
    "stutter": ("tokens", "batch 1 gave request 0 token"),
    "loop": ("to the end, order", "writes slot B's inputs; the graph replay of batch 1 reads them"),
    "early": ("tokens", "its grammar forbids it"),
    "unseen": ("order, tokens", "the upload of batch 0 writes them"),
    "blank": ("tokens", "request 0 was drawn with 0, the placeholder, counted once in its answer; right is not at all"),
    "squared": ("tokens", "request 1 was drawn with token 3 counted twice in its answer; right is once"),
    "vault": ("order", "the forward pass of batch 0 writes them; nothing makes swap wait for compute"),
    "hurry": ("order", "the swap-in writes the keys of layer 0, page 0; the forward pass of batch 4 writes"),
    "behind": ("tokens", "request 0 was given drafts 0, 0; behind the same tokens there were 4, 5"),
    "beyond": ("tokens", "batch 9 writes position 16 of request 0 to page 0, which is request 2's"),
    "asked": ("order, tokens", "reads slot A's pinned outputs; the download of batch 0 writes them"),
    "gone": ("to the end", "page 4 was freed while request 2 had it; now 3 has it too"),
}


def test_every_starter_is_here():
    assert list(STARTERS) == list(LABS)


@pytest.mark.parametrize("name", slow_but("batch", "marks", "late"))
def test_a_starter_is_told_what_it_lacks(name, ruled):
    ruling, said = ruled(LABS[name], LABS[name].starter)
    lacks, words = STARTERS[name]
    assert ", ".join(what for what, right in ruling.judged.items() if right is False) == lacks
    assert words in said
    assert not ruling.so_far


@pytest.mark.parametrize("name", slow_but("slots", "haste"))
def test_a_solution_passes(name, ruled):
    ruling, said = ruled(LABS[name], LABS[name].solution)
    assert ruling.so_far, said
    assert not ruling.passed
    assert str(ruling.ticks).endswith("schedules ·")


WAYS = [(name, number) for name, lab in LABS.items() for number, way in enumerate(lab.others) if way.source]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), WAYS)
def test_another_right_way_passes(name, number, ruled):
    ruling, said = ruled(LABS[name], LABS[name].others[number].source)
    assert ruling.so_far, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("reserve", "2 * drafts ", "drafts + 1 ", "batch 10 writes position 8 of request 2 to page 10"),
        ("reserve", "2 * drafts ", "2 * drafts + 1 ", "with 8 drafts it reserves 17 positions, and fewer are enough"),
        ("ready", "self.downloaded[slot].query()", "self.downloaded[self.slot].query()", "makes the host wait for d2h"),
        ("ready", "self.in_flight = None                         # or", "pass  # or", "was retired before"),
        ("glance", "        yield from self.hand_out()                    # N, if", "        # N, if", "for 2.2 ms"),
        ("glance", "        yield from self.hand_out()                    # or if", "        # or if", "for 8.2 ms"),
    ],
)
def test_a_wrong_turn_in_part_two_is_told(name, old, new, said, ruled):
    ruling, told = ruled(LABS[name], edited(LABS[name].solution, [(old, new)]))
    assert said in told
    assert not ruling.so_far


@pytest.mark.slow
def test_who_does_without_a_slot_s_idea_is_told_so(ruled):
    """One slot, nothing to fill: as fast as chapter 4 to a hundredth, and not what was asked for."""
    (one_slot,) = LABS["ahead"].others
    ruling, said = ruled(LABS["slots"], one_slot.source)
    assert "it is too late for `write` of the next batch" in said
    assert ruling.judged["step"]


# --- engines that cannot be judged, rewrites, and the last word ---


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Engine(", "SyntaxError"),
        ("x = 1\n", "AttributeError"),
        ("Engine = 1\n", "its Engine has to be a class"),
        ("exit()\n", "importing it calls exit"),
        ("class Engine:\n    pass\n", "its Engine has to be a class with a method `run`"),
    ],
)
def test_what_is_no_engine_is_told_why(source, said, ruled):
    ruling, told = ruled(LABS["events"], source)
    assert ruling.judged["to the end"] is False
    assert set(ruling.judged.values()) == {False, None}
    assert said in told


def test_an_engine_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="acb lab reset"):
        judging.load(tmp_path / "engine.py")


@pytest.mark.slow
def test_another_right_engine_is_no_repair(ruled):
    ruling, said = ruled(LABS["haste"], chapter_path("ch6").read_text())
    assert ruling.judged["small change"] is False
    assert "it is another engine now" in said


def test_a_version_is_judged_as_it_is_however_fast_it_is_saved(tmp_path):
    file = tmp_path / "engine.py"
    names = []
    for name in ("aaa", "bbb", "ccc"):
        file.write_text(f"class Engine:\n    name = {name!r}\n    def run(self): ...\n")
        names.append(judging.load(file).name)
    assert names == ["aaa", "bbb", "ccc"]
    assert [path.name for path in tmp_path.iterdir()] == ["engine.py"]


@pytest.mark.slow
def test_the_lines_that_are_told_are_those_of_the_version_that_is_judged(ruled):
    lab, wait = LABS["events"], "self.compute.wait_event(self.uploaded)"
    source = chapter_path("ch3").read_text()
    ruled(lab, source.replace(wait, "pass"))
    _, said = ruled(lab, "\n\n\n" + source.replace(wait, "pass").replace("self.model.forward(", "self.model.forward ("))
    assert "line 37: self.model.forward (self.slot)" in said


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """All that is answered of a source in a lab, as bits, with a last word that is short."""
    monkeypatch.setattr(judging, "SECONDS", 0.1)

    def ask(name: str, source: str, bubbles=()) -> tuple[list[answering.Answer], str]:
        file = tmp_path / "my engine.py"
        file.write_text(source)
        found = list(answering.answers(LABS[name], file, list(bubbles), lambda text: None))
        console = Console(width=200, file=StringIO())
        console.print(*(answer.shown for answer in found), sep="\n")
        return found, console.file.getvalue()

    return ask


@pytest.mark.slow
def test_what_is_right_has_a_picture_at_once_and_then_the_last_word(answered):
    (first, last), text = answered("slots", "\n".join(code_lines(LABS["slots"].solution).values()), [0.19])
    assert (first.said, first.last) == ("more schedules", False)
    assert (last.said, last.last, last.passed, last.copied) == ("solved", True, True, True)
    assert round(last.bubble, 2) == 0
    assert "6 of 6: to the end ✓  order ✓  tokens ✓  ahead ✓  step ✓  schedules ✓" in text
    assert "Your bubbles so far: 19%, 0%" in text
    assert re.search(r"No hazard, no wrong token: \d+ schedules are covered.", text)


@pytest.mark.slow
def test_the_last_word_finds_what_comes_seldom(answered):
    wait = "self.compute.wait_event(self.uploaded)"
    source = chapter_path("ch3").read_text().replace(wait, f"batch.number % 16 == 15 or {wait}")
    (first, second, last), text = answered("events", source)
    assert first.said == "more schedules"
    assert (last.passed, last.said) == (False, "nothing makes compute wait for h2d")
    assert re.search(r"acb check '.*my engine.py' --replay long:", text)


def test_what_can_be_said_at_once_names_the_schedule_with_a_wrong_token(answered):
    (first, last), text = answered("haste", LABS["haste"].starter)
    assert first.said == "looking for a wrong token"
    assert "What it can do: batch 1 gave request" in text
    assert re.search(r"acb check '.*my engine.py' --replay \d+$", text, re.M)


def test_the_picture_has_a_step_of_yours_above_the_goal_s(answered):
    (last,), text = answered("slots", LABS["slots"].starter)
    lines = text[text.index("A decode step") :].splitlines()[2:6]
    yours, goal = ([line.partition("CPU")[2], under.partition("GPU")[2]] for line, under in (lines[:2], lines[2:]))
    assert lines[0].startswith("yours ")
    assert lines[2].startswith("ch4_dual_slots ")
    assert yours[1].strip().startswith("░")  # the GPU has nothing to do
    assert yours[0].strip()[0] == "▄"  # while the host keeps its books
    assert "░" not in goal[1]
    assert re.search(r"ms, bubble 19%", yours[1])
    assert re.search(r"ms, bubble 0%", goal[1])
    assert round(last.bubble, 2) == 0.19


@pytest.mark.slow
def test_the_judge_has_no_patience_with_what_hangs(monkeypatch, ruled):
    monkeypatch.setattr(judge, "PATIENCE", 2.0)
    ruling, said = ruled(LABS["events"], "class Engine:\n    def __init__(self, *parts): ...\n"
                                         "    def run(self):\n        while True: pass\n")  # fmt: skip
    assert ruling.judged["to the end"] is False
    assert "it is in line 4: while True: pass" in said
