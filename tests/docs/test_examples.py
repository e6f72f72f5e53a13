"""The site's small examples are what the code does: a batch in its slot, and the clocks of a hazard."""

import importlib.util
from pathlib import Path

import pytest

from acb_minimal.slot import Inputs

path = Path(__file__).parents[2] / "docs" / "_site" / "examples.py"
spec = importlib.util.spec_from_file_location("examples", path)
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))
WAIT = "self.compute.wait_event(self.uploaded)"


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def test_a_written_batch_is_the_one_that_the_page_explains():
    rows = {name.strip("`"): value.strip("`") for name, value, _ in cells(site.written())}
    assert rows == {
        "input_ids": "0 24 25 26 27",
        "positions": "3 3 4 5 6",
        "kv_slots": "31 23 16 17 18",
        "page_table": "7 6 / 5 4 3",
        "seq_lens": "4 7",
        "query_starts": "0 1 5",
        "sampling_rows": "0 4",
        "carry_over": "0 -1 -1 -1 -1",
    }
    assert list(rows) == list(Inputs._fields)
    assert all(text for *_, text in cells(site.written()))


def test_a_wait_takes_over_what_the_record_knows():
    uploads = {}
    for name, without in (("as it is", ()), ("without", (WAIT,))):
        actions = {what: (int(number), past) for number, _, what, *past in cells(site.clocks("ch3", *without))}
        uploads[name] = actions["upload"][0], int(actions["forward"][1][1])
    number, known = uploads["as it is"]
    assert known >= number
    number, known = uploads["without"]
    assert known < number


def test_a_problem_names_the_missing_wait():
    assert "nothing makes compute wait for h2d" in " ".join(site.problem("ch3", WAIT).split())
    assert max(map(len, site.problem("ch3", WAIT).splitlines())) <= 92
    with pytest.raises(ValueError, match="nothing is wrong"):
        site.problem("ch3")
