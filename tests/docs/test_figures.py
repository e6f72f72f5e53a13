"""A picture is drawn in the page's colours, and shows what the page tells of it."""

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
import figures
import unordered

from acb_minimal.pictures.theme import NARROW, WIDTH


def test_the_early_download_is_in_the_picture_of_it():
    draw, *_ = figures.picture("unordered")
    trace, number = draw.args
    assert draw.keywords["before"] > unordered.early(trace, number - 1)
    assert "too early" in [text.get_text() for text in draw().axes[0].texts]


def test_an_origin_is_a_machine_a_day_versions_and_a_command():
    facts = figures.stored("traces/wide-ch1_sync.json")["otherData"]
    said = figures.origin(facts)
    assert said.startswith(f"{facts['device']}, {facts['date']} (python ")
    assert said.endswith(f": <code>{facts['command']}</code>")
    assert f"torch {facts['torch']}" in said
    assert "prompts" not in said
    assert "chapter" not in said


def test_a_picture_has_no_colour_but_the_page_s():
    for width in (WIDTH, NARROW):
        drawn = figures.svg("timeline-wide-ch1_sync", width, "told")
        assert not re.findall(r"#[0-9a-f]{6}", drawn)
        used = set(re.findall(r"var\(--acb-([\w-]+)\)", drawn))
        assert {"a-fill", "bubbles", "ink", "lane"} <= used <= set(re.findall(r"--acb-([\w-]+):", figures.colours()))
