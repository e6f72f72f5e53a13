"""The picture of fixed and continuous batches: it shows what the scheduler did, and the fixed ones wait."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from acb_minimal.course.counting import PAIRS
from acb_minimal.pictures.theme import LIGHT

spec = importlib.util.spec_from_file_location("batching", Path(__file__).parents[2] / "docs" / "_site" / "batching.py")
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))
TOKENS = [b - a + 2 for a, b in PAIRS]  # the numbers and the end token
GROUPS = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
CASES = {"fixed": GROUPS, "continuous": [range(len(PAIRS))]}


@pytest.mark.parametrize("groups", CASES.values(), ids=CASES)
def test_every_request_runs_without_a_break_for_as_many_steps_as_it_makes_tokens(groups):
    steps = site.served(groups)
    for number, tokens in enumerate(TOKENS):
        ran = [step for step, running in enumerate(steps) if number in running]
        assert len(ran) == tokens
        assert all(after - before == 1 for before, after in pairwise(ran))
    assert max(map(len, steps)) == site.PLACES


def test_a_fixed_batch_starts_when_the_one_before_is_finished_and_lasts_as_long_as_its_longest_request():
    steps = site.served(GROUPS)
    assert len(steps) == sum(max(TOKENS[number] for number in group) for group in GROUPS)
    starts = [min(step for step, running in enumerate(steps) if group[0] in running) for group in GROUPS]
    assert all(steps[start] == group for start, group in zip(starts, GROUPS, strict=True))


def test_a_continuous_batch_has_an_empty_place_only_once_nobody_waits():
    steps = site.served([range(len(PAIRS))])
    last = max(next(step for step, running in enumerate(steps) if number in running) for number in range(len(PAIRS)))
    assert all(len(running) == site.PLACES for running in steps[: last + 1])


def test_the_picture_has_a_bar_for_every_request_in_both_panels_and_no_two_of_them_overlap():
    for axes in site.batching().axes:
        bars = [
            bar for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_facecolor() == to_rgba(LIGHT.kernels)
        ]
        assert sorted(bar.get_width() for bar in bars) == sorted(TOKENS)
        cells = [(bar.get_y(), bar.get_x() + step) for bar in bars for step in range(int(bar.get_width()))]
        assert len(set(cells)) == sum(TOKENS)
        assert {text.get_text() for text in axes.texts[1:]} == {str(number + 1) for number in range(len(PAIRS))}
