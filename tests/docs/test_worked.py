"""The site's worked examples are what the code does: what the prose about them says of them is so."""

import re
import sys
from pathlib import Path

from acb_minimal.slot import Inputs

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
import worked

WAIT = "self.compute.wait_event(self.uploaded)"


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def test_a_written_batch_is_the_one_that_the_page_explains():
    rows = {name.strip("`"): value.strip("`") for name, value, _ in cells(worked.written())}
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
    assert all(text for *_, text in cells(worked.written()))


def test_a_wait_takes_over_what_the_record_knows():
    uploads = {}
    for name, without in (("as it is", ()), ("without", (WAIT,))):
        actions = {what: (int(number), past) for number, _, what, *past in cells(worked.clocks("ch3", *without))}
        uploads[name] = actions["upload"][0], int(actions["forward"][1][1])
    number, known = uploads["as it is"]
    assert known >= number
    number, known = uploads["without"]
    assert known < number


def test_a_dead_row_writes_to_the_page_before_its_new_owner_does_and_nobody_reads_what_it_wrote():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in worked.handed_on().splitlines()[2:]]
    dead = next(number for number, (_, written, _) in enumerate(lines) if written.startswith("`3 to 4`, dead,"))
    freed = next(number for number, (host, *_) in enumerate(lines) if "is finished, its page is free" in host)
    given = next(number for number, (host, *_) in enumerate(lines) if "`20 to 24` gets the page" in host)
    owners = [number for number, (_, written, _) in enumerate(lines) if written.startswith("`20 to 24`")]
    assert freed < dead < given < owners[0]
    left = int(re.search(r"position (\d+)", lines[dead][1])[1])
    for number in owners:
        first, last = (int(re.findall(r"\d+", lines[number][1])[place]) for place in (2, -1))
        reads = int(lines[number][2].removeprefix("0 to "))
        assert reads == last  # and what came before, itself has written
        assert reads < left or first <= left <= last
    assert last == left
