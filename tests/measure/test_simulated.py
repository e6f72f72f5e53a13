"""The simulator beside the H200, part by part: kernels, launch gaps and bubbles, as shares of the measured step."""

from dataclasses import replace
from pathlib import Path

import pytest

from acb_minimal.measure import figures, tables
from acb_minimal.measure.figures import Breakdown
from acb_minimal.measure.profile import profile
from acb_minimal.run.workload import WORKLOADS
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SIMULATED, REAL = (figures.load(RESULTS / name) for name in ("simulated.json", "h200.json"))
# In the stored run the host took a quarter to a third longer to launch than in the runs before these.
SLOW_HOST = {("long", "ch3_events"), ("long", "ch5_carry_over")}
# Measured before attention went without splits, and before the costs were, on another machine of the kind.
OLDER_KERNELS = {("long", "ch6_cuda_graphs")}
NEARLY = {("small", "ch4_dual_slots")}
CLOSE, CLOSE_GRAPHS, NEARLY_CLOSE = 0.10, 0.045, 0.12


def farthest(simulated: Breakdown, real: Breakdown) -> float:
    """By what share of the real step the worst part is off."""
    parts = ("step", "kernels", "launch_gaps", "bubbles")
    return max(abs(getattr(simulated, part) - getattr(real, part)) for part in parts) / real.step


@pytest.mark.parametrize("name", SIMULATED)
def test_every_part_is_close_to_the_measured_one(name):
    simulated, real = tables.breakdowns(SIMULATED[name]), tables.breakdowns(REAL[name])
    assert list(simulated) == list(real)
    far = {(name, chapter): farthest(simulated[chapter], real[chapter]) for chapter in real}
    allowed = dict.fromkeys(far, CLOSE) | {(name, "ch6_cuda_graphs"): CLOSE_GRAPHS}
    allowed |= dict.fromkeys(OLDER_KERNELS | NEARLY, NEARLY_CLOSE)
    assert [case for case in far if far[case] > allowed[case] and case not in SLOW_HOST] == []


@pytest.mark.parametrize("name", SIMULATED)
def test_what_is_stored_is_what_the_simulator_says_now(name):
    workload = WORKLOADS[name].override(new_tokens=100)
    stored = tables.breakdowns(SIMULATED[name])["ch1_sync"]
    now = profile("ch1", workload, "sim").breakdown
    assert now.bubbles == pytest.approx(stored.bubbles, rel=0.02)
    assert now.launching == pytest.approx(stored.launching, rel=1e-6)


def mutated(**changes) -> Costs:
    costs = Costs.of("llama-3.2-1b")
    return replace(costs, model=costs.model | changes)


@pytest.mark.parametrize(
    ("chapter", "costs"),
    [
        ("ch1", mutated(decode_launch=mutated().model["decode_launch"] * 1.5)),
        ("ch6", mutated(replay_launch=1e6)),
        ("ch6", mutated(decode=mutated().model["mixed"] | {"row": 20.0, "position": 0.0})),
        ("ch6", mutated(graph_gaps=2000.0)),
        ("ch1", replace(mutated(), figures=mutated().figures | {"write": {"base": 3000.0, "row": 0.0}})),
    ],
    ids=["launching", "a replay that takes a second", "decodes priced by tokens", "gaps of a graph", "writing"],
)
def test_costs_that_are_wrong_are_far_off(chapter, costs):
    device = SimulatedDevice(costs, arithmetic=False, trace=True)
    parts = profile(chapter, WORKLOADS["small"].override(new_tokens=40), device).breakdown
    real = tables.breakdowns(REAL["small"])
    assert farthest(parts, next(real[name] for name in real if name.startswith(chapter))) > CLOSE
