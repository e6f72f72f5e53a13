"""A picture is drawn in the page's colours, and shows what the page tells of it; stored tables fit the code."""

import re
import sys
from pathlib import Path

import pytest

from acb_minimal.check.mutations import mutants
from acb_minimal.pictures.theme import NARROW, WIDTH
from acb_minimal.run.engines import chapter_paths

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
import figures
import plots
from measured import Measured


def test_the_early_download_is_in_the_picture_of_it_and_marked():
    draw, device, _ = figures.picture("unordered")
    assert "simulated" in device
    trace, number = draw.args
    spans = {(span.lane, span.name): span for span in trace.spans if span.batch_number == number - 1}
    forward, download = spans["compute", "forward"], spans["D2H", "download"]
    assert forward.start < download.end < forward.end
    assert draw.keywords["before"] > plots.early(trace, number - 1) == forward.end - download.start
    assert "too early" in [text.get_text() for text in draw().axes[0].texts]


def test_a_picture_has_no_colour_but_the_page_s():
    for width in (WIDTH, NARROW):
        drawn = figures.svg("timeline-wide-ch1_sync", width)
        assert not re.findall(r"#[0-9a-f]{6}", drawn)
        used = set(re.findall(r"var\(--acb-([\w-]+)\)", drawn))
        assert {"a-fill", "bubbles", "ink", "lane"} <= used <= set(re.findall(r"--acb-([\w-]+):", figures.colours()))


@pytest.mark.parametrize("chapter", list(chapter_paths())[1:])
def test_the_stored_mutations_are_of_the_chapter_as_it_is_now(chapter):
    found = [(simulated["line"], simulated["without"]) for simulated, _ in Measured().mutations(chapter)]
    assert found == [(mutant.line, mutant.text) for mutant in mutants(chapter)]
    assert figures.rows("deletions_cuda.json", chapter)[0]["without"] == "as it is"
