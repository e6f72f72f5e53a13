"""Engines of many kinds, most of them a chapter with a small change: what the judge says of each, and the words."""

import pytest

from acb_minimal.check import judge
from acb_minimal.check.cases import CASES
from acb_minimal.check.judge import serve
from acb_minimal.run.engines import changed, chapter_path

STEP = "        batch = self.scheduler.schedule()             # pick requests, assign KV pages\n"


def line_of(chapter: str, part: str) -> int:
    """The number of the only line of a chapter with this in it."""
    (number,) = (n for n, line in enumerate(chapter_path(chapter).read_text().splitlines(), start=1) if part in line)
    return number


def instead(chapter: str, *changes: tuple[str, str]) -> judge.Outcome:
    """What becomes of the chapter with other text in some places."""
    return serve(changed(chapter, *changes), CASES[1])


# --- engines that do not come to an end ---


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "import queue; queue.Queue().get()",
        "import time; time.sleep(1000)",
    ],
)
def test_an_engine_that_hangs_is_told_its_line(body, monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.3)
    outcome = instead("ch1", (STEP, f"        {body}\n"))
    line = line_of("ch1", "self.scheduler.schedule()")
    assert outcome.failure == f"the engine has not come to an end in 0.3 s; it is in line {line}: {body}"


def test_what_a_debugger_takes_does_not_count(monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.3)
    pause = "import bdb, time; exec('time.sleep(0.8)', vars(bdb) | {'time': time})"
    assert instead("ch1", (STEP, f"        {pause}\n{STEP}")).clean


STUBBORN = "            yield from self.step()", (
    "            try: yield from self.step()\n            except Exception: pass"
)


def test_an_engine_that_goes_on_after_an_error_is_stopped_all_the_same():
    early = "tokens = self.slot.download()", "tokens = self.slot.download() + 1"
    outcome = instead("ch1", STUBBORN, early)
    assert outcome.wrong_batch_number == 0
    assert "batch 0 gave request 0 token" in outcome.failure
    outcome = instead("ch1", STUBBORN, ("self.slot.write(batch)", "1 / 0"))
    assert "the engine has looked for work 2,000 times and is not done (line" in outcome.failure


def test_an_engine_that_catches_everything_is_told_what_it_has_caught():
    everything = STUBBORN[0], STUBBORN[1].replace("except Exception", "except BaseException")
    outcome = instead("ch1", everything, ("tokens = self.slot.download()", "tokens = self.slot.download() + 1"))
    assert outcome.wrong_batch_number == 0


@pytest.mark.parametrize("call", ["exit()", "raise SystemExit", "import sys; sys.exit(0)"])
@pytest.mark.parametrize("place", [STEP, "        self.slot = model.new_slot()\n"])
def test_an_engine_that_calls_exit_is_told_where(call, place):
    outcome = instead("ch1", (place, f"        {call}\n{place}"))
    assert outcome.failure.startswith("the engine calls exit, and nothing of it may: SystemExit: ")
    assert outcome.failure.endswith(f"(line {line_of('ch1', place.strip())}: {call})")
