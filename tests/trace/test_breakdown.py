"""The parts of a step."""

import json
from pathlib import Path

import pytest

from acb_minimal.trace.law import EAGER_GAP, GRAPH_GAP, Breakdown, inside

H200 = json.loads((Path(__file__).parents[2] / "docs" / "results" / "h200.json").read_text())


def stored(workload: str, chapter: str) -> dict:
    return next(row for row in H200[workload]["chapters"] if row["chapter"].startswith(chapter))["breakdown"]


@pytest.mark.parametrize(("workload", "chapter", "gap"), [("wide", "ch5", EAGER_GAP), ("small", "ch6", GRAPH_GAP)])
def test_what_a_gpu_takes_between_two_kernels_is_what_the_h200_took(workload, chapter, gap):
    parts = stored(workload, chapter)
    assert gap == pytest.approx(parts["launch_gaps"] / parts["kernel_count"], rel=0.02)


def test_the_furthest_part_says_how_far_off_a_step_is():
    real, guess = Breakdown(0.015, 0.001, 0.003, 0.001), Breakdown(0.0155, 0.0005, 0.002, 0.001)
    assert guess.distance(real) == pytest.approx(0.05)
    assert real.distance(real) == 0


@pytest.mark.parametrize(
    ("gaps", "count", "graph", "parts"),
    [
        (None, 1_000, False, (8.0, 1_000 * EAGER_GAP)),
        (None, 10_000_000, False, (8.0, 2.0)),  # no longer than there is no kernel
        (None, None, False, (8.0, 0.0)),
        (None, 1_000, True, (8.0, 2.0)),
        (0.5, 1_000, True, (8.0, 0.5)),
    ],
)
def test_what_a_batch_is_made_of_on_the_gpu(gaps, count, graph, parts):
    assert inside(10.0, 8.0, gaps, count, graph) == pytest.approx(parts)


def test_kernels_of_another_run_may_have_taken_longer_than_the_batch():
    assert inside(10.0, 10.2, None, 1_000, False) == (10.0, 0.0)
