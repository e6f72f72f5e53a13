"""Stored tables laid side by side: what is counted and shown is what is in both files."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from acb_minimal.check.deletions import deletions
from acb_minimal.measure import figures, record
from acb_minimal.run.engines import chapter_paths

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "_site" / "tables.py")
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))

SIMULATED, REAL = (record.load(RESULTS / file) for file in ("deletions.json", "deletions_cuda.json"))
RACE = "aten::embedding reading from it after aten::copy_ writing to it"


def joined(chapter: str) -> list:
    return site.joined(chapter, SIMULATED[chapter], REAL[chapter])


def made(**facts):
    plain = {"hazard": "batch 0", "tokens": None, "bubble": None, "bad": 0, "wrong": "0 of 9, 0 of 9", "race": None}
    return site.Deletion("ch9", 7, "line()", **(plain | facts))


@pytest.mark.parametrize("chapter", SIMULATED)
def test_the_stored_deletions_are_of_the_chapter_as_it_is_now(chapter):
    whole, *rest = joined(chapter)
    assert (whole.line, whole.text) == (None, "as it is")
    assert [(each.line, each.text) for each in rest] == [(each.line, each.text) for each in deletions(chapter)]


def test_every_chapter_is_clean_on_the_gpu_as_it_is():
    assert list(REAL) == list(chapter_paths())
    for found in REAL.values():
        assert found.rows[0] == [None, "as it is", 0, "0 of 200, 0 of 200, 0 of 200", None]


def test_no_line_that_is_there_for_speed_changes_an_answer_on_the_gpu():
    lines = [each for chapter in SIMULATED for each in joined(chapter) if each.line and not each.needed]
    assert lines
    assert not [each for each in lines if each.bad or each.race]


def test_tables_of_other_lines_are_not_joined():
    with pytest.raises(ValueError, match="not of the same lines"):
        site.joined("ch2", SIMULATED["ch2_streams"], REAL["ch3_events"])
    rows = REAL["ch2_streams"].rows
    shifted = replace(REAL["ch2_streams"], rows=[rows[0], [rows[1][0] + 1, *rows[1][1:]], *rows[2:]])
    with pytest.raises(ValueError, match="not of the same lines"):
        site.joined("ch2", SIMULATED["ch2_streams"], shifted)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "hazard in batch 0"),
        ({"tokens": "batch 1, seed 4"}, "hazard in batch 0, wrong token in batch 1"),
        ({"hazard": None, "tokens": "error, seed 4"}, "wrong token in error"),
        ({"hazard": None, "bubble": "as before"}, "nothing"),
        ({"hazard": None, "bubble": "1.0 to 2.5"}, "bubble, 1.0 to 2.5 us"),
    ],
)
def test_what_the_simulator_found(facts, said):
    assert made(**facts).simulated() == said


@pytest.mark.parametrize(
    ("bad", "wrong", "said"),
    [
        (0, "0 of 9, 0 of 9", "0 of 2 bad"),
        (1, "3 of 9, 0 of 9", "1 of 2 bad: 3, 0 of 9 answers wrong"),
        (1, "CUDA error: device-side assert triggered", "run 1 fails: device-side assert triggered"),
        (1, "0 of 9, Triton Error [CUDA]: bad, very", "run 2 fails: bad, very"),
        (1, 'x->y > 0 FAILED at "/a/b.cpp":27, please report', "run 1 fails: x->y > 0 FAILED"),
    ],
)
def test_what_the_gpu_s_runs_showed(bad, wrong, said):
    assert made(bad=bad, wrong=wrong).runs() == said


@pytest.mark.parametrize(
    ("race", "said"),
    [
        (None, "nothing"),
        (RACE, "`embedding` reading after `copy_` writing"),
        ('it FAILED at "/a.cpp":1, please report', "it FAILED"),
    ],
)
def test_what_the_sanitizer_said(race, said):
    assert made(race=race).sanitizer() == said


def test_what_nobody_noticed_is_counted():
    found = [
        replace(made(), line=None, hazard=None),  # as it is
        made(),
        made(race=RACE),
        made(race=RACE),
        made(bad=2, hazard=None, tokens="batch 1, seed 0"),
        made(bad=1, race=RACE),
        made(hazard=None, bubble="as before"),
    ]
    counts = vars(site.counted(found))
    assert counts.pop("unseen") == [found[1], found[4]]
    assert counts == {
        "lines": 6, "needed": 5, "speed": 1, "unnoticed_by_runs": 3, "unnoticed_by_sanitizer": 2, "unnoticed": 1
    }  # fmt: skip


def test_every_deletion_is_in_the_table():
    found = joined("ch4_dual_slots")
    lines = site.deletions(found).splitlines()[2:]
    assert len(lines) == len(found)
    for line, each in zip(lines, found, strict=True):
        assert f"| {each.line or ''} |" in line
        assert line.split(" | ")[-3:] == [each.simulated(), each.runs(), f"{each.sanitizer()} |"]


def test_predictions_are_simulated_over_measured():
    parts = {"kernels": 0.0, "launch_gaps": 0.0, "bubbles": 0.0, "kernel_count": None}
    real, simulated = (
        {"wide": {"chapters": [{"chapter": "ch1_sync", "breakdown": parts | {"step": step}}]}}
        for step in (0.020, 0.015)
    )
    real["headline"] = {"chapters": [{"chapter": "ch1_sync", "breakdown": None}]}
    assert site.ratios(real, simulated) == {("wide", "ch1_sync"): pytest.approx(0.75)}
    assert site.predictions(real, simulated).splitlines()[2:] == ["| ch1_sync | 20.00, 15.00, **0.75** |"]


def test_all_chapters_are_predicted_for_all_workloads():
    ratios = site.ratios(*(figures.load(RESULTS / file) for file in ("h200.json", "simulated.json")))
    assert list(ratios) == [(name, chapter) for name in ("wide", "small", "long") for chapter in chapter_paths()]
