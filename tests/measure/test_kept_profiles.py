"""Profiles in a folder, and who shows them: the notebooks."""

import json
import os
import sys
from dataclasses import replace

import pytest
import torch

from acb_minimal.course import times
from acb_minimal.errors import InputError
from acb_minimal.measure import kept_profiles
from acb_minimal.measure.compare import compare
from acb_minimal.run.dials import Dials
from acb_minimal.run.engines import chapter_path
from acb_minimal.run.workload import WORKLOADS, workload

LOAD = workload("small").override(requests=3, prompt_tokens=8, new_tokens=9)
CHAPTERS = ("ch4", "ch5", "ch6")


@pytest.fixture(scope="module")
def measured():
    return list(compare(LOAD, "sim", CHAPTERS))


@pytest.fixture
def folder(measured, tmp_path, monkeypatch):
    """What another process has kept, on this machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(WORKLOADS, LOAD.name, LOAD)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "argv", ["acb", "compare", "--keep", "here"])
        for each in measured:
            kept_profiles.save(tmp_path, LOAD, replace(each.profile, profiled_bubbles=0.25))
    return tmp_path


def file(folder, chapter="ch6_cuda_graphs"):
    return folder / f"small-{chapter}.profile.json"


def edit(file, **changes):
    """Changes facts of a profile."""
    entry = json.loads(file.read_text())
    file.write_text(json.dumps(entry | {"facts": entry["facts"] | changes}))


def test_what_was_kept_is_what_was_measured(measured, folder):
    command, found = kept_profiles.load(folder, LOAD, CHAPTERS)
    assert command == "acb compare --keep here"
    for old, new in zip(measured, found, strict=True):
        assert (new.speed_up, new.same_tokens) == (old.speed_up, old.same_tokens)
        for part in ("chapter", "figures", "breakdown", "completions", "dials", "run_steps"):
            assert getattr(new.profile, part) == getattr(old.profile, part), part
        assert new.profile.profiled_bubbles == 0.25
        assert new.profile.device.name == old.profile.device.name
        assert times.host_seconds(new.profile) == pytest.approx(times.host_seconds(old.profile))
        assert new.profile.shown(3) == old.profile.shown(3)


def test_chapters_are_put_beside_the_first_that_is_asked_for(measured, folder):
    _, (ch6, ch4) = kept_profiles.load(folder, LOAD, ["ch6", "ch4"])
    assert ch6.speed_up == 1.0
    assert ch4.speed_up == pytest.approx(1 / measured[-1].speed_up)


def test_a_notebook_shows_what_is_kept_and_says_so(folder, monkeypatch):
    monkeypatch.setenv(kept_profiles.FOLDER, str(folder))
    monkeypatch.setattr(times.compare, "compare", lambda *_, **__: pytest.fail("it measured"))
    profiles = times.measure(LOAD.name, "ch5", "ch6")
    assert "Measured before this notebook ran, by `acb compare --keep here`." in times.table(profiles).caption
    assert profiles["ch6"].chapter == "ch6_cuda_graphs"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_folder_a_notebook_measures(folder, monkeypatch, value):
    monkeypatch.delenv(kept_profiles.FOLDER, raising=False)
    if value is not None:
        monkeypatch.setenv(kept_profiles.FOLDER, value)
    assert "Measured before" not in times.table(times.measure(LOAD.name, "ch5")).caption


def test_a_notebook_names_chapters():
    with pytest.raises(InputError, match="has no chapter; it takes one or more"):
        times.measure("small")


def test_what_is_not_there_is_not_made_up(folder):
    with pytest.raises(InputError, match=r"which has no profile of ch1_sync on small: make it with acb compare --wor"):
        kept_profiles.load(folder, LOAD, ["ch4", "ch1"])
    with pytest.raises(InputError, match="ACB_KEPT is '.*nowhere', which has no profile of ch4_dual_slots"):
        kept_profiles.load(folder / "nowhere", LOAD, ["ch4"])


@pytest.mark.parametrize("chapter", ["ch4_dual_slots", "ch6_cuda_graphs"])
@pytest.mark.parametrize("what", ["device", "date", "python", "torch", "transformers", "model", "dials", "engine"])
def test_what_was_measured_otherwise_is_refused(folder, chapter, what):
    edit(file(folder, chapter), **{what: "another"})
    with pytest.raises(InputError, match=f"{chapter}.profile.json': {what} is 'another'; it must be '.*' here$"):
        kept_profiles.load(folder, LOAD, CHAPTERS)


@pytest.mark.parametrize("what", ["command", "started"])
def test_chapters_that_were_not_measured_together_are_not_shown_together(folder, what):
    edit(file(folder), **{what: "another"})
    assert kept_profiles.load(folder, LOAD, ["ch6"])
    with pytest.raises(InputError, match=f"{what} is 'another'; it must be '.*' here$"):
        kept_profiles.load(folder, LOAD, ["ch5", "ch6"])


def test_what_something_was_turned_for_is_refused(measured, folder):
    kept_profiles.save(folder, LOAD, replace(measured[-1].profile, dials=Dials(graphs=True)))
    with pytest.raises(InputError, match="dials is 'decodes launched as graphs by the model'; it must be '' here"):
        kept_profiles.load(folder, LOAD, CHAPTERS)


def test_a_workload_that_was_changed_is_another(folder):
    with pytest.raises(InputError, match="new_tokens is 9; it must be 10 here"):
        kept_profiles.load(folder, replace(LOAD, new_tokens=10), CHAPTERS)


def test_an_engine_that_is_no_chapter_is_not_taken_for_one(folder, tmp_path):
    own = tmp_path / "ch5_carry_over.py"
    own.write_text("class Engine: ...")
    with pytest.raises(
        InputError, match="ch5_carry_over.py' is no chapter of the course, and only those are kept: ch1"
    ):
        kept_profiles.load(folder, LOAD, ["ch4", str(own)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"JSONDecodeError: Expecting property name .*\)$"),
        ("[]", "TypeError: .*"),
        ('{"facts": {}}', "KeyError: 'command'"),
        ('{"facts": null}', "TypeError: "),
    ],
)
def test_what_is_no_profile_is_refused_in_a_line(folder, text, message):
    file(folder).write_text(text)
    expected = f"ch6_cuda_graphs.profile.json' holds no profile that acb compare --keep wrote .{message}"
    with pytest.raises(InputError, match=expected):
        kept_profiles.load(folder, LOAD, ["ch6"])


def test_a_chapter_is_the_same_by_its_path(folder):
    _, (ch5,) = kept_profiles.load(folder, LOAD, [os.path.relpath(chapter_path("ch5"))])
    assert ch5.profile.chapter == "ch5_carry_over"


@pytest.mark.parametrize("part", ["figures", "trace", "breakdown", "completions"])
@pytest.mark.parametrize("value", [1, [1], {"a": 1}, {"traceEvents": [], "otherData": 1}])
def test_a_profile_with_a_broken_part_is_refused_in_a_line(folder, part, value):
    entry = json.loads(file(folder).read_text())
    file(folder).write_text(json.dumps(entry | {part: value}))
    with pytest.raises(InputError, match="holds no profile that acb compare --keep wrote"):
        kept_profiles.load(folder, LOAD, ["ch6"])
