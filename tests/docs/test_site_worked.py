"""The worked examples of the site's pages on chapters 4 and 5: what the prose beside them says of them is so."""

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))

import worked  # noqa: E402


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


def test_the_example_of_a_carry_over_is_the_one_that_the_page_tells():
    seen = worked.served("ch5")
    assert [name for name, source in seen.source.items() if worked.moved(source)][0] == 4
    before, after = ([worked.name(row.request) for row in seen.batches[number].rows] for number in (3, 4))
    assert before == ["3 to 4", "10 to 14", "7 to 9", "50 to 54"]
    assert after == ["10 to 14", "7 to 9", "50 to 54", "20 to 24"]
    assert seen.sampled[2][0] == "end"
    assert seen.sampled[3][1:] == ["13", "end", "53"]
    assert seen.source[4] == [1, 2, 3, -1, -1, -1, -1]
    assert seen.ids[4] == (
        ["0", "0", "0", "count", "20", "to", "24"],
        ["13", "end", "53", "count", "20", "to", "24"],
    )
