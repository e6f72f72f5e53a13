"""Traces of real engines, recorded on an H200, and what is to be said of them.

Of transformers, 20 steps were cut from the middle; of ours, what is recorded is all. The arrows between events are left
out everywhere, and so are the arguments that nothing here reads.
"""

import functools
import json
from pathlib import Path

import pytest

from acb_minimal.trace.idle import analyse, read

DATA = Path(__file__).parents[1] / "data"
# Of each: the command that recorded it, the verdict it must get, the share of steps launched ahead where that matters,
# ms of a step without a profiler, measured in the same minute (None: not measured), and the trace of the engine's
# asynchronous twin.
RECORDED = json.loads((DATA / "recorded.json").read_text())
TWINS = {name: facts["twin"] for name, facts in RECORDED.items() if facts["twin"]}
TIMED = [name for name in TWINS if RECORDED[name]["step_ms"] and RECORDED[name]["verdict"] != "launch-bound"]


@functools.cache
def recording(name: str):
    return read(DATA / f"{name}.json.gz")


def report(name: str, step: float | None = None):
    (found,) = analyse(recording(name), step=step)
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_an_engine_is_told_for_what_it_is(name):
    facts, found = RECORDED[name], report(name)
    assert (found.refusals, found.verdict.kind) == ([], facts["verdict"])
    assert found.typical.ahead == facts["ahead"] or facts["ahead"] is None
    assert found.typical.holds


@pytest.mark.parametrize("name", TWINS)
def test_a_synchronous_engine_predicts_its_asynchronous_twin(name):
    """One run says what the other takes: its own step, with all of its host's work hidden."""
    before, after = report(name).typical, report(TWINS[name]).typical
    launch_bound = RECORDED[name]["verdict"] == "launch-bound"
    assert before.step == pytest.approx(before.law.synchronous, rel=0.05)
    if "mini_sglang_1b" in name:  # its host takes longer for the same while it is synchronous: more is won
        assert after.step < 0.9 * before.law.asynchronous
    else:  # where launching sets the pace, a step is as long as the profiler makes launches, and no two runs are alike
        assert after.step == pytest.approx(before.law.asynchronous, rel=0.08 if launch_bound else 0.05)
    assert (before.step > 1.2 * after.step) != launch_bound


@pytest.mark.parametrize("name", [name for name in RECORDED if RECORDED[name]["step_ms"]])
def test_a_profiler_that_slows_the_host_is_found_out_where_launching_sets_the_pace(name):
    """It makes the calls of the host longer: and with them all that is known of such steps."""
    slowed = report(name, RECORDED[name]["step_ms"] / 1e3).refusals
    assert bool(slowed) == (RECORDED[name]["verdict"] == "launch-bound")
    assert all("the profiler slows it" in reason for reason in slowed)


@pytest.mark.parametrize("name", TIMED)
def test_what_is_predicted_is_a_bracket_around_what_was_measured_without_a_profiler(name):
    own, twin = (RECORDED[each]["step_ms"] for each in (name, TWINS[name]))
    found = report(name)
    low, high = found.typical.without_profiler.speedups(found.least)
    assert low < own / twin < high
    closed = report(name, own / 1e3)
    assert closed.typical.without_profiler.scaled(closed.least).speedup == pytest.approx(own / twin, rel=0.06)
