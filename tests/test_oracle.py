"""Every chapter must generate exactly the tokens that transformers' own greedy `generate` does."""

import random
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, VOCAB

from acb_minimal.request import Request
from acb_minimal.run.engines import chapter_paths
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import POLICIES, named

# Prompts are the beginnings of a few random streams, so that the oracle can be asked once for each.
STREAMS = [random.Random(seed).choices(range(VOCAB), k=40) for seed in range(5)]


@st.composite
def workloads(draw):
    """(prompts, new tokens, index of the token to stop at or None, arrivals, limits)"""
    count = draw(st.integers(1, 8))
    prompts = [draw(st.sampled_from(STREAMS))[: draw(st.integers(1, 40))] for _ in range(count)]
    new_tokens = [draw(st.integers(1, 10)) for _ in range(count)]
    stops = [draw(st.none() | st.integers(0, 9)) for _ in range(count)]
    arrivals = [draw(st.integers(0, 4)) for _ in range(count)]
    page_size = draw(st.sampled_from([1, 3, 4, 16]))
    max_running = draw(st.integers(1, 6))
    needed = [-(-(len(p) + n - 1) // page_size) for p, n in zip(prompts, new_tokens, strict=True)]
    limits = {
        "page_size": page_size,
        # From barely the largest request to more than all together.
        "pages": draw(st.integers(max(needed), sum(needed) + 1)),
        "max_running": max_running,
        "max_batch_tokens": draw(st.integers(max_running, 48)),
    }
    return prompts, new_tokens, stops, arrivals, limits


def serve_and_compare(model, workload, chapter, device):
    prompts, new_tokens, stops, arrivals, limits = workload
    requests, expected = [], []
    for number, (prompt, new, stop) in enumerate(zip(prompts, new_tokens, stops, strict=True)):
        stop_tokens = () if stop is None else (model.oracle(prompt, 16)[stop],)
        requests.append(Request(str(number), prompt, new, stop_tokens))
        expected.append(model.oracle(prompt, new, stop_tokens))
    model.serve(requests, chapter, arrivals, device, **limits)
    assert [request.generated for request in requests] == expected
    for request in requests:
        assert request.finish_reason == ("stop" if request.generated[-1] in request.stop_tokens else "length")


def many(count: int):
    """So many generated workloads, the same ones in every run."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        ("random", 4),
        pytest.param("lazy", 12, marks=pytest.mark.slow),
        *(pytest.param(policy, 12, marks=pytest.mark.exhaustive) for policy in POLICIES if policy != "lazy"),
    ],
)
@pytest.mark.parametrize("chapter", chapter_paths())
def test_every_chapter_on_the_simulator_under_every_policy(harness, chapter, policy, count):
    @many(count)
    @given(st.sampled_from(list(FAMILIES)), workloads(), st.integers(0, 1000))
    def check(family, workload, seed):
        serve_and_compare(harness(family), workload, chapter, SimulatedDevice(Costs.of("counter"), named(policy, seed)))

    check()


def test_the_oracle_is_worth_asking(harness):
    """Tiny random models can fall into repeating one token, and then a lost or repeated token would not show."""
    for family in FAMILIES:
        model = harness(family)
        for stream in STREAMS:
            tokens = model.oracle(stream, 16)
            assert sum(a != b for a, b in pairwise(tokens)) >= 8
            assert len(set(tokens)) >= 4
