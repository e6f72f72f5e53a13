"""An engine in a process of its own: whatever it does there is a word, a line and an end."""

from contextlib import nullcontext

import pytest

from acb_minimal.check import checking, judge, watchdog
from acb_minimal.check.watchdog import Broken, apart
from acb_minimal.errors import InputError

ENGINE = """
class Engine:
    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.slot = model, scheduler, model.new_slot()

    def run(self):
        {}
        while self.scheduler.has_work():
            batch = self.scheduler.schedule()
            self.slot.write(batch)
            self.slot.upload()
            self.model.forward(self.slot)
            yield from self.scheduler.update(batch, self.slot.download())
"""


def replayed(tmp_path, source: str) -> judge.Outcome:
    """What becomes of an engine's file under a schedule, in a process of its own."""
    file = tmp_path / "mine.py"
    file.write_text(source)
    return apart(checking.replayed, str(file), "0", file=str(file))


def test_what_a_process_answers_comes_through(tmp_path):
    told = []
    outcome = replayed(tmp_path, ENGINE.format("pass"))
    assert outcome.clean
    assert outcome.names[0] == "the host"
    assert apart(lambda text, tell: tell(text) or [text], "a", file="", shown=nullcontext(told.append)) == ["a"]
    assert told == ["a"]


FAILS = {
    "import os; os._exit(0)": "the engine calls os._exit, and nothing of it may (line 7: import os; os._exit(0))",
    "raise SystemExit": "the engine calls exit, and nothing of it may: SystemExit: (line 7: raise SystemExit)",
    "raise BaseException('so')": "BaseException: so (line 7: raise BaseException('so'))",
    "import threading, time; threading.Thread(target=time.sleep, args=[3]).start()":
        "run ended and left a thread running, which keeps the process from ending",
    "import threading; threading.Thread(target=lambda: 1 / 0).start()":
        "ZeroDivisionError: division by zero (line 7: import threading; threading.Thread(target=lambda: 1 / 0).sta",
    "import torch; torch.cuda.Stream()":
        "torch.cuda.Stream: use the `cuda` that the engine is handed (line 7: import torch; torch.cuda.Stream())",
    "__import__('acb_' + 'minimal.check')":
        "an engine imports nothing of acb_minimal, which judges it (line 7: __import__('acb_' + 'minimal.check'))",
}  # fmt: skip


@pytest.mark.parametrize("body", FAILS)
def test_an_end_before_its_time_is_a_failure_with_its_line(body, tmp_path):
    assert replayed(tmp_path, ENGINE.format(body)).failure.startswith(FAILS[body])


ENDS = {
    "import itertools; sum(itertools.repeat(0))": "the engine has not come to an end in 0.5 s; it is in line 7: ",
    "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\n        while True: pass":
        "the engine has not come to an end in 0.5 s; it is in line 8: while True: pass",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)":
        "the engine: its process was ended by SIGKILL before there was a verdict",
    "import os, time; os.closerange(3, 256); time.sleep(9)":
        "the engine: its process was ended by SIGKILL before there was a verdict",
    "import ctypes; ctypes.CDLL(None)._exit(3)": "the engine: its process has ended with status 3 before there was a",
    "import ctypes; ctypes.string_at(0)":
        "was ended by SIGSEGV before there was a verdict; it was in line 7: import ctypes; ctypes.string_at(0)",
}  # fmt: skip


@pytest.mark.parametrize("body", ENDS)
def test_what_python_cannot_end_is_ended_and_told_with_its_line(body, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.5)
    monkeypatch.setattr(watchdog, "GRACE", 0.3)
    with pytest.raises(Broken) as ended:
        replayed(tmp_path, ENGINE.format(body))
    assert ENDS[body] in str(ended.value)


def test_a_second_thread_that_works_with_the_gpu_is_no_fault(tmp_path):
    """It may well be right: the simulator cannot follow it, and says so."""
    body = "import threading; threading.Thread(target=self.slot.upload).start()"
    write = "batch = self.scheduler.schedule()\n        self.slot.write(batch)\n        "
    with pytest.raises(InputError) as refused:
        replayed(tmp_path, ENGINE.format(write + body))
    assert "follows one thread of an engine, and a second one calls it; that is a limit" in str(refused.value)
    assert f"(line 9: {body})" in str(refused.value)


REACHES = [
    "import acb_minimal.check.pace",
    "from acb_minimal.run.engines import load_chapter\nEngine = load_chapter('ch5')",
    "from . import other",
    "import sys\nsys.modules['acb_minimal.check.judge'].PATIENCE = 0",
]


@pytest.mark.parametrize("source", REACHES)
def test_an_engine_that_reaches_for_the_judge_is_told_where(source, tmp_path):
    with pytest.raises(InputError, match=r"reaches for acb_minimal, which judges it, .* \(line \d+: "):
        replayed(tmp_path, ENGINE.format('"""It may name acb_minimal in prose."""') + source)


def test_an_engine_that_changes_what_judges_it_is_found_out(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(ENGINE.format("type(self.scheduler).__mro__[1].update = lambda self, batch, tokens: []"))
    with pytest.raises(Broken, match="the engine has changed `update` of acb_minimal.run.timed.TimedScheduler"):
        apart(checking.check, str(file), 0.01, None, file=str(file))


def test_an_engine_that_is_no_class_is_refused_in_every_command(tmp_path):
    with pytest.raises(InputError, match="its Engine has to be a class with a method `run`"):
        replayed(tmp_path, "def Engine(model, scheduler, cuda): pass")


def test_a_source_may_be_in_any_encoding_that_it_declares(tmp_path):
    file = tmp_path / "mine.py"
    file.write_bytes(b"# -*- coding: latin-1 -*-\n# caf\xe9" + ENGINE.format("1 / 0  # caf\xe9").encode("latin-1"))
    outcome = apart(checking.replayed, str(file), "0", file=str(file))
    assert outcome.failure == "ZeroDivisionError: division by zero (line 8: 1 / 0  # caf\xe9)"


def test_a_slow_engine_that_gets_on_is_let_go_on(tmp_path, monkeypatch):
    """A busy machine is no fault of the engine's."""
    monkeypatch.setattr(judge, "PATIENCE", 0.3)
    slow = ENGINE.format("import time").replace("self.slot.upload()", "self.slot.upload(); time.sleep(0.1)")
    assert replayed(tmp_path, slow).clean
