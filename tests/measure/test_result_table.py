"""A table of figures: as text, as Markdown, and in a file beside others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from acb_minimal.errors import InputError
from acb_minimal.measure.result_table import ResultTable, load

ROWS = [[8, "a | b", 0.25, None], [4096, "c", 1.0, "why"]]
COLUMNS = {"n": ",d", "what": "", "share": ".1%", "note": ""}
FOUND = ResultTable("Title", COLUMNS, ROWS, "Read this.", {"device": "X"}, "acb")


def test_values_are_printed_by_their_columns_format():
    assert FOUND.cells() == [["8", "a | b", "25.0%", "-"], ["4,096", "c", "100.0%", "why"]]


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
    assert [line.strip() for line in capsys.readouterr().out.splitlines()][-3:-1] == ["t[mask]", "[bold]"]


def test_a_file_keeps_what_it_has_under_other_names(tmp_path):
    file = tmp_path / "found.json"
    FOUND.save(file, "one")
    FOUND.save(file, "two")
    other = ResultTable("Other", {}, [], "", {}, "acb again")
    other.save(file, "one")
    assert load(file) == {"one": other, "two": FOUND}


def test_another_kind_of_file_is_refused(tmp_path):
    file = tmp_path / "found.json"
    file.write_text('{"wide": {"command": "acb compare", "environment": {}, "workload": {}, "chapters": []}}')
    with pytest.raises(InputError, match="holds no results of this kind"):
        load(file)


@given(st.lists(st.lists(st.none() | st.floats(allow_nan=False), min_size=2, max_size=2)))
def test_every_value_has_a_cell(rows):
    found = ResultTable("", {"a": ".3g", "b": ".1f"}, rows, "", {}, "")
    lines = found.markdown().splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(line.count("|") == 3 for line in lines)
