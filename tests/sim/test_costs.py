"""What batches cost: those that were measured, and the straight lines between them."""

import json

import pytest

from acb_minimal.sim import costs
from acb_minimal.sim.costs import Costs, Shape, decode_time

MEASURED = {1: {10: 100.0, 20: 110.0}, 4: {10: 130.0, 20: 170.0, 40: 210.0}}


@pytest.mark.parametrize(
    ("rows", "positions", "us"),
    [
        (1, 10, 100.0),
        (4, 40, 210.0),
        (4, 30, 190.0),
        (2, 20, 130.0),
        (3, 15, (105.0 + 2 * 150.0) / 3),
        (4, 60, 250.0),
        (7, 10, 160.0),
    ],
    ids=["measured", "the last", "between positions", "between rows", "between both", "more positions", "more rows"],
)
def test_a_batch_of_decodes_lies_on_lines_between_those_measured(rows, positions, us):
    assert decode_time(MEASURED, rows, positions) == pytest.approx(us)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("model", json.loads(costs.FILE.read_text())["models"])
def test_a_batch_that_was_measured_costs_what_it_took(model, compiled):
    entry = json.loads(costs.FILE.read_text())["models"][model]
    entry, found = entry["compiled"] if compiled else entry, Costs.of(model, compiled=compiled)
    for rows, batches in entry["decode"].items():
        for positions, us in batches.items():
            shape = Shape(int(rows), int(rows), int(rows) * int(positions), 0, decodes=True)
            assert 1e6 * sum(found.compute("forward", shape, graph=True)) == pytest.approx(us)


def test_only_a_batch_of_decodes_is_launched_in_as_long_as_it_is_told():
    measured = Costs.of("llama-3.1-8b")
    decodes, prompts = Shape(2, 2, 20, 0, decodes=True), Shape(2, 20, 20, 200, decodes=False)
    told = measured.launched_in(0.5)
    assert told.launch("forward", decodes) == 0.5
    assert told.launch("forward", prompts) == measured.launch("forward", prompts)
