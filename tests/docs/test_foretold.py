"""The tables of what synchronous engines foretell say what `acb idle` says of each pair."""

import json
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from acb_minimal.trace import tables

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
import foretold
from drawings import RESULTS

TRACES = RESULTS / "traces"
RECORDED = json.loads((foretold.DATA / "recorded.json").read_text())
BY_PROFILER = {
    facts["what"]: (foretold.DATA / f"{name}.json.gz", foretold.DATA / f"{facts['twin']}.json.gz")
    for name, facts in RECORDED.items()
    if facts["twin"]
}
BY_EVENTS = {
    f"`{name}`, chapter {chapter[2]}": tuple(
        TRACES / f"{name}-{each}.json" for each in (chapter, "ch5_carry_over", "ch6_cuda_graphs")
    )
    for name in ("wide", "small", "long")
    for chapter in ("ch1_sync", "ch3_events")
}


@pytest.mark.parametrize(("made", "pairs"), [(foretold.by_profiler, BY_PROFILER), (foretold.by_events, BY_EVENTS)])
def test_a_row_says_what_the_command_says_of_the_pair(made, pairs):
    head, _, *lines = made().split("\n\n")[0].splitlines()
    rows = {cells(line)[0]: dict(zip(cells(head), cells(line), strict=True)) for line in lines}
    assert rows.keys() == pairs.keys()
    for what, traces in pairs.items():
        reports, row = [foretold.report(trace) for trace in traces], rows[what]
        said = printed(tables.compare(*reports[:2]))
        for name in ("step", "K", "L", "H", "all of it hidden"):
            first, second = re.search(rf"^ {name}(?:,.*?)? +([\d.]+) ms +([\d.]+) ms", said, re.MULTILINE).groups()
            assert float(row[name]) == pytest.approx(float(first), abs=0.006)
            if name == "step":
                assert float(row["its asynchronous twin"]) == pytest.approx(float(second), abs=0.006)
        assert f"Before, {row['verdict']}." in said
        if len(reports) > 2:
            for column, name, told in (
                ("and launched as graphs", "and launched as graphs", reports[0]),
                ("chapter 6", "step", reports[2]),
            ):
                (ms,) = re.findall(rf"^ {name} +([\d.]+) ms", printed(tables.render(told)), re.MULTILINE)
                assert float(row[column]) == pytest.approx(float(ms), abs=0.006)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def printed(table) -> str:
    console = Console(width=200)
    with console.capture() as said:
        console.print(table)
    return said.get()
