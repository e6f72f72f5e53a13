"""What pages say of a picture is of the moment that it shows, and a picture is drawn in the page's colours."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
import figures
import unordered
from values import Values


@pytest.mark.parametrize(("workload", "chapter"), [("wide", "ch1"), ("wide", "ch5")])
def test_a_close_up_shows_the_bubble_that_a_page_may_tell_of(workload, chapter):
    stem = {"ch1": "ch1_sync", "ch5": "ch5_carry_over"}[chapter]
    draw, _ = figures.picture(f"closeup-{workload}-{stem}")
    trace, number = draw.args
    assert number == Values().closed_up(workload, chapter)
    before, after = Values().around(workload, chapter)
    assert after["bubble"] == trace.bubbles()[number] > 0
    assert before["bubble"] == trace.bubbles()[number - 1]


def test_the_early_download_is_in_the_picture_of_it():
    draw, _ = figures.picture("unordered")
    trace, number = draw.args
    assert draw.keywords["before"] > unordered.early(trace, number - 1)


def test_an_origin_is_a_machine_a_day_versions_and_a_command():
    facts = figures.stored("traces/wide-ch1_sync.json")["otherData"]
    said = figures.origin(facts)
    assert said.startswith(f"{facts['device']}, {facts['date']} (python ")
    assert said.endswith(f": `{facts['command']}`")
    assert f"torch {facts['torch']}" in said
    assert "prompts" not in said
    assert "chapter" not in said


def test_a_picture_has_no_colour_but_the_page_s():
    drawn = figures.svg("timeline-wide-ch1_sync")
    assert not re.findall(r"#[0-9a-f]{6}", drawn)
    used = set(re.findall(r"var\(--acb-([\w-]+)\)", drawn))
    assert {"a-fill", "bubbles", "ink", "lane"} <= used <= set(re.findall(r"--acb-([\w-]+):", figures.colours()))
