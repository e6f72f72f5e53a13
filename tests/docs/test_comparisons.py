"""Stored files laid side by side: what is counted and shown is what is in both."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from acb_minimal.check.mutations import mutants
from acb_minimal.measure import metrics, result_table
from acb_minimal.run.engines import chapter_paths
from acb_minimal.trace.breakdown import PARTS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
spec = importlib.util.spec_from_file_location("comparisons", ROOT / "docs" / "_site" / "comparisons.py")
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))

SIMULATED, REAL = (result_table.load(RESULTS / file) for file in ("deletions.json", "deletions_cuda.json"))


def joined(chapter: str) -> list:
    return site.joined(chapter, SIMULATED.get(chapter), REAL[chapter])


@pytest.mark.parametrize("chapter", SIMULATED)
def test_the_stored_deletions_are_of_the_chapter_as_it_is_now(chapter):
    whole, *rest = joined(chapter)
    assert (whole.line, whole.text) == (None, "as it is")
    assert [(each.line, each.text) for each in rest] == [(each.line, each.text) for each in mutants(chapter)]


def test_every_chapter_is_clean_on_the_gpu_as_it_is():
    assert list(REAL) == list(chapter_paths())
    for chapter in REAL:
        whole = joined(chapter)[0]
        assert (whole.runs(), whole.race) == ("0, 0, 0 of 200", False)


def test_no_line_that_is_there_for_speed_changes_an_answer_on_the_gpu():
    lines = [each for chapter in SIMULATED for each in joined(chapter) if each.line and not each.needed]
    assert lines
    assert not [each for each in lines if each.noticed or each.race]


def test_tables_of_other_lines_are_not_joined():
    with pytest.raises(ValueError, match="not of the same lines"):
        site.joined("ch2", SIMULATED["ch2_streams"], REAL["ch3_events"])
    rows = REAL["ch2_streams"].rows
    shifted = replace(REAL["ch2_streams"], rows=[rows[0], [rows[1][0] + 1, *rows[1][1:]], *rows[2:]])
    with pytest.raises(ValueError, match="not of the same lines"):
        site.joined("ch2", SIMULATED["ch2_streams"], shifted)


def made(**facts) -> site.Deletion:
    """A deletion of which two runs of the GPU are stored; without more, nothing was found."""
    simulated = dict.fromkeys([*site.NEEDED, "seed", "bubble with it (us)", "bubble without it (us)"])
    real = {"answers": 9, "wrong in run 1": 0, "wrong in run 2": 0, "error": None, "sanitizer": None}
    found, seen = (there | {name: facts[name] for name in facts if name in there} for there in (simulated, real))
    return site.Deletion("ch9", 7, "line()", found, seen)


@pytest.mark.parametrize(
    ("facts", "needed", "said"),
    [
        ({"hazard in batch": 0}, True, "hazard in batch 0"),
        ({"hazard in batch": 0, "wrong token in batch": 1}, True, "hazard in batch 0, wrong token in batch 1"),
        ({"error": "IndexError"}, True, "error IndexError"),
        ({"bubble with it (us)": 1.0, "bubble without it (us)": 1.0}, False, "nothing"),
        ({"bubble with it (us)": 1.0, "bubble without it (us)": 2.5}, False, "bubble, 1.0 to 2.5 us"),
    ],
)
def test_what_the_simulator_found(facts, needed, said):
    assert (made(**facts).needed, made(**facts).found()) == (needed, said)


@pytest.mark.parametrize(
    ("facts", "noticed", "said"),
    [
        ({}, False, "0, 0 of 9"),
        ({"wrong in run 1": 3}, True, "3, 0 of 9"),
        ({"wrong in run 2": None, "error": "bad, very"}, True, "run 2 fails: bad, very"),
    ],
)
def test_what_the_runs_on_the_gpu_showed(facts, noticed, said):
    assert (made(**facts).noticed, made(**facts).runs()) == (noticed, said)


def test_a_first_wrong_token_is_named_with_its_schedule():
    assert made(**{"wrong token in batch": 0, "seed": 4}).token() == "batch 0, seed 4"
    assert made(error="IndexError", seed=4).token() == "IndexError, seed 4"


@pytest.mark.parametrize("chapter", SIMULATED)
def test_every_deletion_is_in_the_table(chapter):
    found = joined(chapter)
    lines = site.deletions(found).splitlines()[2:]
    assert len(lines) == len(found)
    for line, each in zip(lines, found, strict=True):
        assert f"| {each.line or ''} |" in line
        assert line.endswith(f"| {each.runs()} | {each.real['sanitizer'] or 'nothing'} |")


def test_predictions_are_measured_and_simulated_part_by_part():
    real, simulated = (
        {"wide": {"chapters": [{"chapter": f"ch{n}", "breakdown": parts | {"kernel_count": None}} for n in (1, 2)]}}
        for parts in (
            dict(zip(PARTS, (0.015, 0.001, 0.003, 0.001), strict=True)),
            dict(zip(PARTS, (0.0155, 0.001, 0.001, 0.0015), strict=True)),
        )
    )
    real["headline"] = {"chapters": [{"chapter": "ch1_sync", "breakdown": None}]}
    assert site.distances(real, simulated) == {("wide", "ch1"): pytest.approx(0.1), ("wide", "ch2"): pytest.approx(0.1)}
    parts = "20.00,&nbsp;19.00 | 15.00,&nbsp;15.50 | 1.00,&nbsp;1.00 | 3.00,&nbsp;1.00 | 1.00,&nbsp;1.50 | 10.0 %"
    rows = site.predictions(real, simulated).splitlines()[2:]
    assert rows == [f"| `wide` | ch1 | {parts} |", f"|  | ch2 | {parts} |"]


def test_all_chapters_are_predicted_for_all_workloads():
    distances = site.distances(*(metrics.load(RESULTS / file) for file in ("h200.json", "simulated.json")))
    assert list(distances) == [(name, chapter) for name in ("wide", "small", "long") for chapter in chapter_paths()]
