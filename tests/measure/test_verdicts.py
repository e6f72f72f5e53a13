"""What is said of a belief: what the stored tables of the H200 say."""

from pathlib import Path

import pytest

from acb_minimal.measure import myths, myths_cuda, result_table
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.measure.verdicts import verdict

STORED = result_table.load(Path(__file__).parents[2] / "docs" / "results" / "myths.json")
CASES = {
    "default_stream": (2, 4),
    "pageable_copies": (1, 2),
    "unrecorded_event": (2, 4),
    "reused_pinned_buffer": (1, 3),
    "graph_addresses": (2, 4),
    "allocator_across_streams": (1, 3),
    "hidden_syncs": (11, 22),
    "launch_queue": (3, 3),
    "profiler_leaves_traces": (1, 3),
}


def test_every_experiment_has_a_verdict():
    assert CASES.keys() == {experiment.__name__ for experiment in myths.EXPERIMENTS + myths_cuda.EXPERIMENTS}


@pytest.mark.parametrize("name", CASES)
def test_the_h200_spoke_against_every_belief(name):
    count, of = CASES[name]
    assert verdict(name, STORED[name]).startswith(f"Verdict: not so. {count} of {of} cases speak")


def test_a_belief_that_nothing_speaks_against_is_not_proved():
    found = ResultTable("a belief", {"case": "", "outcome": ""}, [["one", "right"]], "", {})
    assert verdict("some belief", found) == "Verdict: nothing in these 1 cases speaks against it."
