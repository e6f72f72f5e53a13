"""Traces of real engines, recorded on an H200, and what is to be said of them.

Of transformers, 20 steps were cut from the middle (the command recorded runs of 64 new tokens then, not of 96); of
ours, what is recorded is all. The arrows between events are left out everywhere, and so are the arguments that nothing
here reads.
"""

import functools
import json
from pathlib import Path

import pytest

from acb_minimal.trace.idle import analyse, read

DATA = Path(__file__).parents[1] / "data"
# Of each: the command that recorded it, the verdict it must get, the share of steps launched ahead, ms of a step
# without a profiler if measured in the same minute, and the trace of the engine's asynchronous twin.
RECORDED = json.loads((DATA / "recorded.json").read_text())
TWINS = {name: facts["twin"] for name, facts in RECORDED.items() if facts["twin"]}
TIMED = [name for name, facts in RECORDED.items() if facts["step_ms"]]


@functools.cache
def report(name: str, step: float | None = None):
    (found,) = analyse(read(DATA / f"{name}.json.gz"), step=step)
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_an_engine_is_told_for_what_it_is(name):
    facts, found = RECORDED[name], report(name)
    assert (found.refusals, found.verdict.kind, found.typical.ahead) == ([], facts["verdict"], facts["ahead"])
    assert found.typical.holds


@pytest.mark.parametrize("name", TWINS)
def test_a_synchronous_engine_foretells_its_asynchronous_twin(name):
    """One run says what the other takes: its own step, with all of its host's work hidden."""
    before, after = report(name).typical, report(TWINS[name]).typical
    assert before.step == pytest.approx(before.law.synchronous, rel=0.05)
    assert after.step == pytest.approx(before.law.asynchronous, rel=0.05)
    assert before.step > 1.3 * after.step


@pytest.mark.parametrize("name", TIMED)
def test_a_profiler_that_slows_the_host_is_found_out_where_the_host_sets_the_pace(name):
    """It makes the calls of the host longer: and with them a synchronous step, but not one with time to spare."""
    slowed = report(name, RECORDED[name]["step_ms"] / 1e3).refusals
    assert bool(slowed) == name.startswith("ch1")
    assert all("the profiler slows it" in reason for reason in slowed)
