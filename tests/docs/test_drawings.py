"""What pages say of a picture is of the moment that it shows."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
import unordered
from drawings import drawings, origin, stored
from values import Values

CLOSEUPS = [name.split("-", 2)[1:] for name in drawings() if name.startswith("closeup-")]


@pytest.mark.parametrize(("workload", "stem"), CLOSEUPS)
def test_a_close_up_shows_the_bubble_that_a_page_may_tell_of(workload, stem):
    draw, _ = drawings()[f"closeup-{workload}-{stem}"]
    trace, number = draw.args
    assert number == Values().closed_up(workload, stem)
    before, after = Values().around(workload, stem)
    assert after["bubble"] == trace.bubbles()[number] > 0
    assert before["bubble"] == trace.bubbles()[number - 1]


def test_the_early_download_is_in_the_picture_of_it():
    draw, _ = drawings()["unordered"]
    trace, number = draw.args
    assert draw.keywords["before"] > unordered.early(trace, number - 1)


def test_an_origin_is_a_machine_a_day_versions_and_a_command():
    facts = stored("traces/wide-ch1_sync.json")["otherData"]
    said = origin(facts)
    assert said.startswith(f"{facts['device']}, {facts['date']} (python ")
    assert said.endswith(f": `{facts['command']}`")
    assert f"torch {facts['torch']}" in said
    assert "prompts" not in said
    assert "chapter" not in said
