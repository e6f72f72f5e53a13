"""What the checks put into tables: numbers in columns of their own, and how to see a schedule again."""

import pytest
from rich.console import Console

from acb_minimal.check import deletions_cuda, tables
from acb_minimal.check.deletions import Finding, deletions, find
from acb_minimal.check.schedules import search
from acb_minimal.run.engines import without


def found(chapter: str, text: str, monkeypatch) -> dict:
    """The row of one line of a chapter, by column."""
    monkeypatch.setattr(tables, "deletions_of", lambda name: [each for each in deletions(name) if each.text == text])
    measured = tables.deletions(chapter, "sim", lambda said: None)
    (row,) = measured.rows
    return dict(zip(measured.columns, row, strict=True))


def test_a_line_that_is_needed_has_numbers_of_batches_and_a_seed(monkeypatch):
    (deletion,) = (each for each in deletions("ch3") if each.text == "self.computed.record(self.compute)")
    assert found("ch3", deletion.text, monkeypatch) == {
        "line": deletion.line,
        "without": deletion.text,
        "hazard in batch": 0,
        "wrong token in batch": 0,
        "error": None,
        "seed": 4,
        "bubble with it (us)": None,
        "bubble without it (us)": None,
    }


def test_a_line_that_is_there_for_speed_has_two_bubbles(monkeypatch):
    (deletion,) = (each for each in deletions("ch5") if each.text.startswith("self.downloaded = "))
    finding = find(deletion)
    row = found("ch5", deletion.text, monkeypatch)
    assert [row.pop(name) for name in ("bubble with it (us)", "bubble without it (us)")] == [
        1e6 * finding.bubble_before,
        1e6 * finding.bubble,
    ]
    assert row == {"line": deletion.line, "without": deletion.text} | dict.fromkeys(
        ("hazard in batch", "wrong token in batch", "error", "seed")
    )


def test_an_error_is_no_number(monkeypatch):
    monkeypatch.setattr(tables, "find", lambda deletion: Finding(failure="ZeroDivisionError", seed=3))
    row = found("ch3", "self.computed.record(self.compute)", monkeypatch)
    assert (row["wrong token in batch"], row["error"], row["seed"]) == (None, "ZeroDivisionError", 3)


PLAIN = {"answers": 200, "wrong": [0, 3, 0], "race": None, "error": None}


@pytest.mark.parametrize(
    ("plain", "sanitized", "row"),
    [
        ({}, {}, [200, 0, 3, 0, None, None]),
        ({"wrong": [5], "error": "CUDA error"}, {"race": "a race"}, [200, 5, None, None, "CUDA error", "a race"]),
        ({"answers": None, "wrong": [], "error": "it died"}, {}, [None, None, None, None, "it died", None]),
        ({}, {"error": "not done"}, [200, 0, 3, 0, None, "not done"]),
    ],
)
def test_the_runs_of_a_gpu_have_a_column_each(plain, sanitized, row, monkeypatch):
    monkeypatch.setattr(
        deletions_cuda, "_process", lambda chapter, line, sanitize: PLAIN | (sanitized if sanitize else plain)
    )
    monkeypatch.setattr(deletions_cuda, "CudaDevice", lambda: None)
    monkeypatch.setattr(deletions_cuda, "environment", lambda device: {"device": "a GPU"})
    measured = deletions_cuda.measure("ch1", lambda said: None)
    assert measured.rows == [[None, "as it is", *row]]
    runs = ["wrong in run 1", "wrong in run 2", "wrong in run 3"]
    assert list(measured.columns) == ["line", "without", "answers", *runs, "error", "sanitizer"]
    assert len(measured.cells()[0]) == len(measured.columns)


def test_a_verdict_says_how_to_see_the_schedule_again():
    verdict = search(without("ch3", "self.compute.wait_event"))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables.verdict("mine.py", verdict))
    assert "See this schedule: acb check mine.py --replay 4\n" in capture.get()
