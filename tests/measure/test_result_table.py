"""A table of figures: as text, as Markdown, and in a file beside others."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from acb_minimal.errors import InputError
from acb_minimal.measure import result_table
from acb_minimal.measure.metrics import Metrics
from acb_minimal.measure.result_table import ResultTable, load
from acb_minimal.trace.law import EAGER_GAP, Breakdown

ROWS = [[8, "a | b", 0.25, None], [4096, "c", 1.0, "why"]]
COLUMNS = {"n": ",d", "what": "", "share": ".1%", "note": ""}
FOUND = ResultTable("Title", COLUMNS, ROWS, "Read this.", {"device": "X"}, "acb")


def test_markdown_aligns_numbers_and_escapes_what_would_end_a_cell():
    assert FOUND.markdown().splitlines() == [
        "| n | what | share | note |",
        "| ---: | --- | ---: | --- |",
        "| 8 | a \\| b | 25.0% | - |",
        "| 4,096 | c | 100.0% | why |",
    ]


def test_a_terminal_shows_cells_as_they_are(capsys):
    """Not as rich's markup, which has square brackets too."""
    Console(width=80).print(ResultTable("Calls", {"call": ""}, [["t[mask]"], ["[bold]"]], "", {}, "").table())
    assert [line.strip() for line in capsys.readouterr().out.splitlines()][-2:] == ["t[mask]", "[bold]"]


def test_a_file_keeps_what_it_has_under_other_names(tmp_path):
    file = tmp_path / "found.json"
    FOUND.save(file, "one")
    FOUND.save(file, "two")
    other = ResultTable("Other", {}, [], "", {}, "acb again")
    other.save(file, "one")
    assert load(file) == {"one": other, "two": FOUND}


def entry(*steps: Breakdown, run_steps: tuple[float, ...] = (0.004,)) -> dict:
    """A comparison of made-up chapters with these steps."""
    figures = asdict(Metrics(48, 1000, 123_456, 12.3, 999, 1234.5, 12.3, 28.6, 0.9987))
    chapters = [
        {"chapter": f"ch{number}_{'x' * 11}", "figures": figures, "breakdown": asdict(parts), "same_tokens": 0.987,
         "run_steps": list(run_steps)}
        for number, parts in enumerate(steps, start=1)
    ]  # fmt: skip
    load = {"name": "wide", "model": "llama-3.1-8b", "requests": 768, "max_running": 384}
    facts = {"device": "a GPU", "date": "2026-12-01"}
    return {"workload": load, "environment": facts, "chapters": chapters, "dials": "compiled"}


LONG = Breakdown(0.02583, 0.00181, 0.00074, 0.00114, 1278)
SHORT = Breakdown(0.01295, -0.000114, -1e-9, 4e-6, 1278)


def test_a_comparison_fits_eighty_columns_with_every_number_whole():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(result_table.comparison(entry(LONG, SHORT)))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.startswith("ch") and "_" in line]
    assert rows[0][1:] == ["29.52", "25.83", "1.81", "0.74", "1.14", "1.00", "99.9%", "1,234", "98.7%"]
    assert rows[1][1:7] == ["12.84", "12.95", "-0.11", "0.00", "<0.01", "2.30"]  # below zero: as it was measured
    assert all(row[0].endswith("x" * 11) for row in rows)


def test_a_bar_has_every_part_to_scale_and_fits_eighty_columns():
    for parts in (LONG, Breakdown(0.1, 0.1, 0.1, 0.1)):
        text = result_table.bar("ch1_sync", parts, 1.1 * LONG.step, 12.34).plain
        assert len(text) <= 80
    text = result_table.bar("ch1_sync", LONG, LONG.step, None).plain
    signs = [text.count(sign) for sign, _ in result_table.SIGNS.values()]
    assert sum(signs) == result_table.BAR
    assert signs[0] / result_table.BAR == pytest.approx(LONG.kernels / LONG.step, abs=0.02)
    assert text.endswith(" 29.52 ms")


def test_a_comparison_says_what_was_compared_and_how_far_runs_differ():
    made = entry(LONG, SHORT, run_steps=(0.005, 0.004, 0.0044))
    assert result_table.title(made) == "wide on a GPU: llama-3.1-8b, 768 requests, 384 at a time, compiled"
    assert "Of 3 runs each, the one in the middle" in result_table.comparison(made).caption
    assert "differ by 25.0% at most" in result_table.comparison(made).caption
    assert "runs each" not in result_table.comparison(entry(LONG)).caption


RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.mark.parametrize("file", ["h200.json", "another-h200.json", "simulated.json"])
def test_stored_steps_have_four_parts_whatever_day_they_are_from(file):
    for name, stored in json.loads((RESULTS / file).read_text()).items():
        for row in stored["chapters"]:
            if row["breakdown"]:
                parts = result_table.breakdowns(stored)[row["chapter"]]
                assert parts.step == pytest.approx(row["step"] if "step" in row else row["breakdown"]["step"])
                assert parts.launch_gaps >= -1e-6 or name == "wide", row["chapter"]
                if row["chapter"] == "ch6_cuda_graphs":
                    assert abs(parts.launch_gaps) < 0.005 * parts.step


def test_results_of_before_are_told_apart_by_the_number_of_kernels():
    """Chapter 1 launches one by one, chapter 6 a graph, whose kernels are queued all at once."""
    before = {"kernels": 0.025, "launch_gaps": 0.003, "bubbles": 0.001, "kernel_count": 1278, "launching": 0.02}
    parts = result_table.stored_breakdown(before)
    assert parts.kernel_gaps == pytest.approx(before["kernel_count"] * EAGER_GAP)
    assert parts.kernel_gaps + parts.launch_gaps == pytest.approx(before["launch_gaps"])
    parts = result_table.stored_breakdown(before | {"launching": 5e-5})
    assert (parts.kernel_gaps, parts.launch_gaps) == (before["launch_gaps"], 0)
    with pytest.raises(InputError, match="measure them again"):
        result_table.stored_breakdown(before | {"kernel_count": None})
    assert result_table.stored_breakdown(asdict(LONG)) == LONG
