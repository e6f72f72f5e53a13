"""`acb lab`: from the list to the last screen."""

import os
import re
import subprocess
import sys

import pytest

from acb_minimal.course.labs import judging, watching
from acb_minimal.course.labs.catalog import LABS
from acb_minimal.course.labs.folder import Started

SLOW = ("torch", "transformers", "matplotlib")


@pytest.fixture
def lab(acb, tmp_path, monkeypatch):
    """`acb lab` in a folder that is empty at first, with a last word that is short: lab("start", "events") -> Done."""
    monkeypatch.setattr(judging, "SCHEDULES", 12)
    monkeypatch.setattr(judging, "RUNS", 2)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: acb("lab", *arguments)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_names_all_labs_and_says_how_far_one_is(lab, tmp_path):
    fresh = lab().stdout
    assert all(re.search(rf"^ +{name} .*{each.title}", fresh, re.M) for name, each in LABS.items())
    assert "0 of 14 are solved here. Next: acb lab start batch" in words(fresh)
    lab("start", "batch")
    lab("start", "events", "--into", "mine")
    Started(tmp_path / "mine").checked("solved", True)
    for folder in (tmp_path, tmp_path / "mine"):
        os.chdir(folder)
        shown = lab().stdout
        assert re.search(r"^✓ +events .*1 +0", shown, re.M)
        assert re.search(r"^… +batch .*0 +0", shown, re.M)
        assert "1 of 14 are solved here. Next: acb lab start streams" in words(shown)


@pytest.mark.parametrize("arguments", ["", "start events", "hint events", "reset events", "report ."])
def test_what_judges_nothing_does_not_wait_for_torch(arguments, tmp_path):
    code = (
        "import sys; from acb_minimal.cli.app import main\n"
        "try: main()\n"
        f"finally: print([name for name in {SLOW} if name in sys.modules])"
    )
    if arguments.startswith(("hint", "reset")):
        subprocess.run([sys.executable, "-c", code, "lab", "start", "events"], cwd=tmp_path, capture_output=True)
    command = [sys.executable, "-c", code, "lab", *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_builder_from_its_start_to_its_end(lab, tmp_path):
    started = lab("start", "streams")
    assert LABS["streams"].task in words(started.stdout)
    failed = lab("check", "streams")
    assert failed.returncode == 1
    assert "In order so far, but upload, forward pass and download are in 1 of 3 streams." in failed.stdout
    assert f"1. {LABS['streams'].hints[0]}" in words(lab("hint", "streams").stdout)
    assert f"2. {LABS['streams'].hints[1]}" in words(lab("hint", "streams").stdout)

    (tmp_path / "streams" / "engine.py").write_text(LABS["streams"].solution.replace("self.h2d", "self.up"))
    solved = lab("check", "streams")
    assert solved.returncode == 0, solved.stderr
    text = words(solved.stdout)
    assert "on a simulated H200 ms per decode step: █ kernels ▒ launch gaps ░ bubbles before" in text
    for name in ("before", "yours", "ch2_streams"):
        assert re.search(rf"^{name} +█+▒+░+ \d+\.\d\d ms$", solved.stdout, re.M)
    assert "The host waits in a step: before 2, yours 3, ch2_streams 3" in text
    assert "- with self.cuda.stream(self.up):" in text
    assert "+ with self.cuda.stream(self.h2d):" in text
    assert "streams is solved, with 2 checks and 2 hints." in text
    assert all(other in text for other in LABS["streams"].others)
    assert text.endswith("Next: acb lab start events")
    assert Started(tmp_path / "streams").progress.solved


def test_a_bug_hunt_says_what_races_and_in_the_end_what_it_was(lab, tmp_path):
    lab("start", "haste")
    failed = lab("check", "haste")
    assert failed.returncode == 1
    text = words(failed.stdout)
    assert "nothing makes the host wait for h2d" in text
    assert "self.slot.fill() # the token ids that N has produced" in text
    assert "What it can do: batch 1 gave request" in text
    assert "See this schedule: acb check haste/engine.py --replay" in text
    assert LABS["haste"].found not in text

    (tmp_path / "haste" / "engine.py").write_text(LABS["haste"].solution)
    text = words(lab("check", "haste").stdout)
    assert "Your engine is the chapter's, line by line." in text
    assert "haste is solved, with 2 checks and no hints. A pinned buffer is written again" in text
    assert "You changed 1 line; the smallest fix known changes 1." in text
    assert all(link in text for link in LABS["haste"].links)


class Saves:
    """Stands in for time.sleep: while somebody sleeps, the next version is saved, as some editors do it: the old file
    goes, the new one comes, first half of it. After the last version it presses Ctrl-C."""

    def __init__(self, file, *versions: str):
        self.steps = iter([step for text in versions for step in (None, text[:99], text, text)])
        self.file = file

    def __call__(self, seconds: float) -> None:
        try:
            text = next(self.steps)
        except StopIteration:
            raise KeyboardInterrupt from None
        if text is None:
            self.file.unlink()
        elif not self.file.exists() or self.file.read_text() != text:
            self.file.write_text(text)


def test_a_watched_engine_is_judged_on_every_save_until_it_is_solved(lab, tmp_path, monkeypatch):
    lab("start", "streams")
    right = LABS["streams"].solution
    racing = right.replace("self.h2d.synchronize()", "pass")
    saves = Saves(tmp_path / "streams" / "engine.py", "class Engine(", racing, right)
    monkeypatch.setattr(watching.time, "sleep", saves)
    done = lab("check", "streams", "--watch")
    assert done.returncode == 0, done.stderr
    said = ["1 of 3 streams", "SyntaxError", "nothing makes compute wait for h2d", "streams is solved, with 4 checks"]
    text = words(done.stdout)
    places = [text.index(part) for part in said]
    assert places == sorted(places)
    assert len(re.findall(r"streams/engine.py, \d\d:\d\d:\d\d", done.stdout)) == 4


def test_a_watch_ends_quietly_and_the_progress_stays(lab, tmp_path, monkeypatch):
    lab("start", "streams")
    monkeypatch.setattr(watching.time, "sleep", Saves(tmp_path / "streams" / "engine.py"))
    done = lab("check", "streams", "--watch")
    assert (done.returncode, done.stderr) == (0, "")
    assert Started(tmp_path / "streams").progress.checks == 1


def test_a_save_ends_the_judging_of_the_version_before(tmp_path):
    file = tmp_path / "engine.py"
    file.write_text("one")
    watch = watching.Watch(file)
    versions = watch.versions()
    next(versions)
    watch.check()
    file.write_text("two, longer")
    with pytest.raises(watching.Saved):
        watch.check()
    next(versions)
    watch.check()
    file.unlink()
    with pytest.raises(watching.Saved):
        watch.check()


def test_reset_says_where_the_old_engine_is(lab, tmp_path):
    lab("start", "events")
    (tmp_path / "events" / "engine.py").write_text("mine")
    said = words(lab("reset", "events").stdout)
    assert said == "events/engine.py is the starter again. What it was is events/engine.1.py now."
    assert (tmp_path / "events" / "engine.1.py").read_text() == "mine"


def test_a_report_over_several_folders(lab, tmp_path):
    for who in ("ada", "max"):
        lab("start", "events", "--into", f"class/{who}/events")
    lab("hint", "class/max/events")
    shown = words(lab("report", "class/ada", "class/max").stdout)
    assert "class/ada 0 of 14 events 0 0 nothing is checked yet" in shown
    assert "class/max 0 of 14 events 0 1 nothing is checked yet" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("start", "evnets"), "unknown lab 'evnets': the labs are batch, streams"),
        (("start", "events", "--into", "."), "'.' is there already"),
        (("check", "nothing"), "no lab 'nothing': give the folder of a started lab"),
        (("check",), "'.' is not the folder of a lab"),
        (("hint", "events"), "lab 'events' is not started here"),
        (("reset", "/no/such"), "no lab '/no/such'"),
        (("report", "/no/such"), "no folder '/no/such'"),
        (("check", "mine", "--device", "tpu"), "unknown device 'tpu'"),
        (("check", "mine", "--device", "cuda"), "device 'cuda' is not available here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(lab, arguments, message):
    lab("start", "events", "--into", "mine")
    done = lab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
