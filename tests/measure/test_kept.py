"""Profiles in a folder, and who shows them: the notebooks."""

import json
from dataclasses import replace

import pytest

from acb_minimal.course import times
from acb_minimal.errors import InputError
from acb_minimal.measure import kept
from acb_minimal.measure.compare import compare
from acb_minimal.run import workload as workloads
from acb_minimal.run.workload import workload

LOAD = workload("small").override(requests=3, prompt_tokens=8, new_tokens=9)
CHAPTERS = ("ch4", "ch5", "ch6")


@pytest.fixture(scope="module")
def measured():
    return list(compare(LOAD, "sim", CHAPTERS))


@pytest.fixture
def folder(measured, tmp_path, monkeypatch):
    monkeypatch.setitem(workloads.WORKLOADS, LOAD.name, LOAD)
    for each in measured:
        kept.keep(tmp_path, LOAD, each.profile)
    return tmp_path


def test_what_was_kept_is_what_was_measured(measured, folder):
    _, found = kept.kept(folder, LOAD, CHAPTERS)
    for old, new in zip(measured, found, strict=True):
        assert (new.speed_up, new.same_tokens) == (old.speed_up, old.same_tokens)
        for part in ("chapter", "figures", "breakdown", "profiled_bubbles", "completions", "dials", "run_steps"):
            assert getattr(new.profile, part) == getattr(old.profile, part), part
        assert new.profile.device.name == old.profile.device.name
        assert times.host_seconds(new.profile) == pytest.approx(times.host_seconds(old.profile))
        assert new.profile.shown(3) == old.profile.shown(3)


def test_chapters_are_put_beside_the_first_that_is_asked_for(measured, folder):
    _, found = kept.kept(folder, LOAD, ["ch6", "ch4"])
    ch6, ch4 = found
    assert ch6.speed_up == 1.0
    assert ch4.speed_up == pytest.approx(1 / measured[-1].speed_up)


def test_a_notebook_shows_what_is_kept_and_says_so(folder, monkeypatch):
    monkeypatch.setenv(kept.FOLDER, str(folder))
    monkeypatch.setattr(times.compare, "compare", lambda *_, **__: pytest.fail("it measured"))
    profiles = times.measure(LOAD.name, "ch5", "ch6")
    command, _ = kept.kept(folder, LOAD, ["ch5"])
    assert f"Measured before this notebook ran, by `{command}`." in times.table(profiles).caption
    assert profiles["ch6"].chapter == "ch6_cuda_graphs"


def test_without_a_folder_a_notebook_measures(folder, monkeypatch):
    monkeypatch.delenv(kept.FOLDER, raising=False)
    assert "Measured before" not in times.table(times.measure(LOAD.name, "ch5")).caption


def test_what_is_not_there_is_not_made_up(folder):
    with pytest.raises(InputError, match=r"which has no profile of ch1_sync on small: make it with acb compare --wor"):
        kept.kept(folder, LOAD, ["ch4", "ch1"])
    with pytest.raises(InputError, match="ACB_KEPT is '.*nowhere'; it must be a folder that exists"):
        kept.kept(folder / "nowhere", LOAD, ["ch4"])


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("device", "another GPU"),
        ("date", "2026-05-01"),
        ("dials", "compiled"),
        ("command", "acb compare --workload small --runs 5"),
    ],
)
def test_what_was_measured_otherwise_is_refused(folder, what, other):
    """The command may be any, as long as it is the same for all chapters."""
    file = folder / "small-ch6_cuda_graphs.profile.json"
    entry = json.loads(file.read_text())
    file.write_text(json.dumps(entry | {"facts": entry["facts"] | {what: other}}))
    with pytest.raises(InputError, match=f"ch6_cuda_graphs.profile.json': {what} is '{other}'; it must be '.*' here$"):
        kept.kept(folder, LOAD, CHAPTERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read a profile from '.*ch6_cuda_graphs.profile.json': Expecting property name"),
        ("[]", "ch6_cuda_graphs.profile.json' holds no profile that acb compare --keep wrote"),
        ('{"facts": {}}', "holds no profile that acb compare --keep wrote: let it write that again$"),
    ],
)
def test_what_is_no_profile_is_refused_in_a_line(folder, text, message):
    (folder / "small-ch6_cuda_graphs.profile.json").write_text(text)
    with pytest.raises(InputError, match=message):
        kept.kept(folder, LOAD, CHAPTERS)


def test_a_workload_that_was_changed_is_another(folder):
    with pytest.raises(InputError, match="new_tokens is 9; it must be 10 here"):
        kept.kept(folder, replace(LOAD, new_tokens=10), CHAPTERS)
