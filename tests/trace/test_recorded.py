"""Traces of real engines, recorded on an H200, and what is to be said of them.

Of transformers, 20 steps were cut from the middle; of ours, what is recorded is all. The arrows between events are left
out everywhere, and so are the arguments that nothing here reads.
"""

import functools
from pathlib import Path

import pytest

from acb_minimal.trace.idle import analyse, read

DATA = Path(__file__).parents[1] / "data"
PEER = "acb bench peer --traces FOLDER"
PROFILE = "acb profile {} --workload small --graphs {} --kernels FILE"
BUSY = PROFILE.format("{}", "--host-work 2")
# Of each: the command that recorded it, its verdict, the share of steps launched ahead, ms of a step without a profiler
# where that was measured in the same minute.
RECORDED = {
    "transformers_sync_graphs": (PEER, "synchronous", 0.0, None),
    "transformers_async_graphs": (PEER, "busy", 1.0, None),
    "ch1_small_graphs": (PROFILE.format("ch1", ""), "synchronous", 0.0, 4.87),
    "ch5_small_graphs": (PROFILE.format("ch5", ""), "busy", 1.0, 3.89),
    "ch1_small_graphs_host2": (BUSY.format("ch1"), "synchronous", 0.0, 6.33),
    "ch5_small_graphs_host2": (BUSY.format("ch5"), "busy", 1.0, 3.89),
}


@functools.cache
def report(name: str, step: float | None = None):
    (found,) = analyse(read(DATA / f"{name}_h200.json.gz"), step=step)
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_an_engine_is_told_for_what_it_is(name):
    _, kind, ahead, _ = RECORDED[name]
    found = report(name)
    assert (found.refusals, found.verdict.kind, found.typical.ahead) == ([], kind, ahead)
    assert found.typical.holds


TWINS = {
    "transformers_sync_graphs": "transformers_async_graphs",
    "ch1_small_graphs": "ch5_small_graphs",
    "ch1_small_graphs_host2": "ch5_small_graphs_host2",
}


@pytest.mark.parametrize("name", TWINS)
def test_a_synchronous_engine_foretells_its_asynchronous_twin(name):
    """One run says what the other takes: its own step, with all of its host's work hidden."""
    before, after = report(name).typical, report(TWINS[name]).typical
    assert before.step == pytest.approx(before.law.synchronous, rel=0.05)
    assert after.step == pytest.approx(before.law.asynchronous, rel=0.05)
    assert before.step > 1.3 * after.step


@pytest.mark.parametrize("name", [name for name in RECORDED if RECORDED[name][3]])
def test_a_profiler_that_slows_the_host_is_found_out_where_the_host_sets_the_pace(name):
    """It makes the calls of the host longer: and with them a synchronous step, but not one with time to spare."""
    slowed = report(name, RECORDED[name][3] / 1e3).refusals
    assert bool(slowed) == name.startswith("ch1")
    assert all("the profiler slows it" in reason for reason in slowed)
