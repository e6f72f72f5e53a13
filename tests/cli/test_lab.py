"""`acb lab`: from the list to the last screen."""

import os
import re
import shlex

import pytest
import typer

from acb_minimal.cli import app, console
from acb_minimal.course.labs import judging, telling
from acb_minimal.course.labs.lab import LABS
from acb_minimal.course.labs.started import Started, start


@pytest.fixture
def lab(acb, tmp_path, monkeypatch):
    """`acb lab` in a folder that is empty at first, with a last word that is short: lab("start", "events") -> Done."""
    monkeypatch.setattr(judging, "SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: acb("lab", *arguments)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_names_all_labs_and_says_how_far_one_is(lab, tmp_path):
    fresh = lab().stdout
    assert all(re.search(rf"^ +{name} .*{each.title}", fresh, re.M) for name, each in LABS.items())
    assert f"0 of {len(LABS)} are solved here. Next: acb lab watch batch" in words(fresh)
    lab("start", "batch")
    lab("start", "events", "--into", "mine")
    Started(tmp_path / "batch").checked("solved", True, copied=True)
    Started(tmp_path / "mine").checked("solved", True)
    lab("start", "slots")
    for folder in (tmp_path, tmp_path / "mine"):
        os.chdir(folder)
        shown = lab().stdout
        assert re.search(r"^✓ +events .*1 +0", shown, re.M)
        assert re.search(r"^= +batch .*1 +0", shown, re.M)
        assert re.search(r"^… +slots .*0 +0", shown, re.M)
        assert f"2 of {len(LABS)} are solved here. Next: acb lab watch streams" in words(shown)


def test_nothing_of_the_list_is_cut_off_in_80_columns(lab, monkeypatch):
    monkeypatch.setattr(console.console, "_width", 80)
    lines = [line.split() for line in lab().stdout.splitlines()]
    assert set(LABS) <= {line[0] for line in lines if line}
    assert {each.goal for each in LABS.values()} - {""} <= {word for line in lines for word in line}


def test_a_builder_from_its_start(lab, tmp_path):
    started = lab("start", "streams")
    assert LABS["streams"].task in words(started.stdout)
    failed = lab("check", "streams/engine.py")
    assert failed.returncode == 1
    assert "5 of 7: to the end ✓ order ✓ tokens ✓ streams ✗ waits ✓ step ✓ schedules ·" in words(failed.stdout)
    assert "In order so far, but upload, forward pass and download are in 1 of 3 streams." in failed.stdout
    assert "would give it away" in lab("diff", "streams").stdout
    assert f"1. {LABS['streams'].hints[0]}" in words(lab("hint", "streams").stdout)
    assert f"2. {LABS['streams'].hints[1]}" in words(lab("hint", "streams").stdout)


def test_the_command_for_a_gpu_is_one_that_there_is(tmp_path):
    each = start(LABS["carry"], tmp_path / "my labs" / "carry")
    parsed, made = {}, typer.main.get_command(app.app).commands["compare"]
    made.callback = lambda **options: parsed.update(options)
    made.main(shlex.split(telling.on_gpu(each))[2:], standalone_mode=False)
    assert parsed["chapter"] == ["ch4", "ch5", str(each.engine)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("start", "evnets"), "unknown lab 'evnets': the labs are batch, streams"),
        (("check",), "'.' is not the folder of a lab"),
        (("hint", "events"), "lab 'events' is not started here"),
        (("reset", "/no/such"), "no lab '/no/such'"),
        (("report", "/no/such"), "no folder '/no/such'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(lab, refused, arguments, message):
    lab("start", "events", "--into", "mine")
    assert message in refused("lab", *arguments)
