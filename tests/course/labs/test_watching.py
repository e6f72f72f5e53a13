"""`acb lab watch`: what it does with saves, answers and keys. One test has a terminal, and a judge in its process."""

import os
import re
import time
from io import StringIO

import pytest
from rich.console import Console

from acb_minimal.course.labs import watching
from acb_minimal.course.labs.answering import Answer
from acb_minimal.course.labs.lab import LABS
from acb_minimal.course.labs.started import furthest, start


class Judge:
    """Answers at once: what is solved has "RIGHT" in it."""

    pipe = None

    def __init__(self):
        self.judged, self.answers = [], []

    def begin(self, each, console) -> None:
        text = each.engine.read_text()
        self.judged.append((each.lab.name, text))
        right, copied = "RIGHT" in text, "copied" in text
        last = Answer("7 of 7" if right else "6 of 7", "solved" if right else "a race", True, right, copied, 0.25)
        self.answers = [Answer("so far", "more schedules"), last]

    def read(self):
        return self.answers.pop(0) if self.answers else None

    def end(self) -> None:
        self.answers = []


class Learner:
    """Somebody at a terminal of made-up size, whose keys come through a pipe."""

    def __init__(self, home, monkeypatch):
        monkeypatch.setattr(watching, "Judge", Judge)
        monkeypatch.setattr(watching, "EVERY", 0.0)
        self.console = Console(file=StringIO(), width=100)
        keys, self.pipe = os.pipe()
        self.home, self.watch = home, watching.LabWatch(home, self.console, keys)
        self.live = watching.Live(console=self.console, auto_refresh=False, transient=True)
        self.watch.live = self.live

    def begin(self, name: str) -> None:
        self.watch.go_to(LABS[name])
        self.looks()

    def looks(self, count: int = 4) -> bool:
        return [self.watch.look() for _ in range(count)][-1]

    def saves(self, text: str) -> None:
        self.watch.each.engine.write_text(text)
        self.looks()

    def presses(self, key: str) -> str:
        before = len(self.text)
        os.write(self.pipe, key.encode())
        self.looks(1)
        return self.text[before:]

    @property
    def text(self) -> str:
        return self.console.file.getvalue()


@pytest.fixture
def learner(tmp_path, monkeypatch):
    return Learner(tmp_path, monkeypatch)


def test_a_lab_is_started_and_its_starter_judged(learner):
    learner.begin("events")
    assert LABS["events"].task in " ".join(learner.text.split())
    assert learner.watch.judge.judged == [("events", LABS["events"].starter)]
    assert furthest(learner.home)["events"].progress.checks == 1
    assert furthest(learner.home)["events"].progress.bubbles == [0.25]


def test_every_save_is_judged_once_it_does_not_change_any_more(learner):
    learner.begin("events")
    engine, look = learner.watch.each.engine, learner.watch.look
    for text in ("half", "half of it", "the whole"):
        engine.write_text(text)
        look()
    engine.unlink()  # as some editors do
    look()
    engine.write_text("the whole ")
    learner.looks()
    assert [text for _, text in learner.watch.judge.judged[1:]] == ["the whole "]


def test_a_solved_lab_leads_to_the_next_that_is_not(learner):
    start(LABS["marks"], learner.home / "mine").checked("solved", True)
    learner.begin("events")
    learner.saves("RIGHT")
    assert learner.watch.each.lab.name == "swap"
    assert "events is solved, with 2 checks and no hints." in learner.text
    assert (learner.home / "events" / "other_1.py").read_text() == LABS["events"].others[0].source
    assert f"swap: {LABS['swap'].title}" in learner.text


def test_what_is_copied_is_told_so(learner):
    learner.begin("events")
    learner.saves("RIGHT but copied")
    assert "events is listed as copied" in learner.text
    assert "events is solved" not in learner.text
    assert furthest(learner.home)["events"].progress.copied


def test_a_lab_goes_on_where_it_was_left(learner):
    started = start(LABS["late"], learner.home / "anywhere")
    started.engine.write_text("mine")
    learner.begin("late")
    assert learner.watch.judge.judged == [("late", "mine")]


def test_the_last_one_ends_it(learner):
    for name in list(LABS)[1:]:
        start(LABS[name], learner.home / name).checked("solved", True)
    learner.begin("batch")
    learner.watch.each.engine.write_text("RIGHT")
    learner.looks(2)
    while learner.watch.each:
        learner.watch.look()
    assert "All labs are solved." in learner.text


@pytest.mark.slow  # it waits a second for a key that must not come
def test_keys(learner):
    learner.begin("events")
    assert f"1. {LABS['events'].hints[0]}" in " ".join(learner.presses("h").split())
    assert f"0 of {len(LABS)} are solved here" in learner.presses("l")
    assert "would give it away" in learner.presses("d")
    learner.watch.each.engine.write_text("mine")
    assert "What it was is" in " ".join(learner.presses("r").split())
    assert (learner.home / "events" / "engine.1.py").read_text() == "mine"
    assert LABS["marks"].title in learner.presses("n")
    assert learner.presses("x") == ""
    os.write(learner.pipe, b"q")
    assert not learner.looks(1)


def test_the_diff_is_of_what_was_solved_last(learner):
    learner.begin("events")
    learner.saves(LABS["events"].solution.replace("h2d", "RIGHT"))
    assert "is that of ch3_events, but for names and comments" in " ".join(learner.presses("d").split())


def test_who_is_told_the_same_again_and_again_is_told_of_the_key(learner):
    learner.begin("events")
    learner.saves("a")
    assert "A hint: h" not in learner.text
    learner.saves("ab")
    assert "That is the same 3 times in a row. A hint: h" in learner.text


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process for each version")
@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os._exit(0)", "the engine calls os._exit"),
        ("sum(iter(int, 1))", "the engine has not come to an end in 10 s"),
        ("print('it is me')", "it is me"),
    ],
)
def test_whatever_an_engine_does_to_its_process_there_is_an_answer(does, said, tmp_path):
    """From the real judge, in the process that it has."""
    console = Console(file=StringIO(), width=100)
    judge, each = watching.Judge(), start(LABS["events"], tmp_path / "events")
    each.engine.write_text(
        f"import os\nclass Engine:\n    def run(self): ...\n    def __init__(self, *parts): {does}\n"
    )
    judge.begin(each, console)
    shown, until = "", time.monotonic() + 120
    while judge.pipe is not None and time.monotonic() < until:
        if found := judge.read():
            shown += found.shown
        time.sleep(0.05)
    judge.end()
    assert said in re.sub(r"\x1b\[[\d;]*m", "", shown)
