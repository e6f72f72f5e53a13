"""The parts of a step, and the law of overlap in numbers."""

import json
from pathlib import Path

import pytest

from acb_minimal.trace.law import EAGER_GAP, GRAPH_GAP, Law, inside


@pytest.mark.parametrize(
    ("on_gpu", "launching", "host", "synchronous", "asynchronous"),
    [
        (10, 1, 4, 14, 10),
        (10, 1, 9, 19, 10),
        (10, 0, 10, 20, 10),
        (10, 0, 30, 40, 30),
        (4, 10, 2, 12, 12),
        (10, 8, 4, 14, 12),
    ],
)
def test_a_step_is_as_long_as_the_law_says(on_gpu, launching, host, synchronous, asynchronous):
    law = Law(on_gpu, launching, host)
    assert (law.synchronous, law.asynchronous) == (synchronous, asynchronous)
    assert 1 <= law.speedup <= 2


def test_a_ramp_is_waited_for_by_a_synchronous_engine_alone():
    law = Law(10, 5, 1, ramp=2)
    assert (law.synchronous, law.asynchronous) == (13, 10)
    assert "max(K + ramp, L) + H = 13,000.00 ms" in str(law)


def test_launching_that_takes_longer_than_the_gpu_needs_is_said():
    assert "asynchrony wins nothing" in str(Law(4, 10, 2, ramp=6))
    assert "ramp" not in str(Law(4, 10, 2, ramp=6))
    assert "asynchrony wins nothing" not in str(Law(10, 4, 2))


H200 = json.loads((Path(__file__).parents[2] / "docs" / "results" / "h200.json").read_text())


def stored(workload: str, chapter: str) -> dict:
    return next(row for row in H200[workload]["chapters"] if row["chapter"].startswith(chapter))["breakdown"]


@pytest.mark.parametrize(("workload", "chapter", "gap"), [("wide", "ch5", EAGER_GAP), ("small", "ch6", GRAPH_GAP)])
def test_what_a_gpu_takes_between_two_kernels_is_what_the_h200_took(workload, chapter, gap):
    parts = stored(workload, chapter)
    own = parts.get("kernel_gaps", parts["launch_gaps"])  # those of before have one figure for both
    assert gap == pytest.approx(own / parts["kernel_count"], rel=0.03)


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
