"""What notebooks show of profiles, on made-up traces."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from acb_minimal.course import times
from acb_minimal.measure.profile import profile
from acb_minimal.run.workload import workload
from acb_minimal.trace.spans import Trace


def trace_of(forwards: list[float], known: range = range(0)) -> Trace:
    """A batch a second, launched in these times; it is known how long kernels run in some."""
    trace = Trace("a GPU")
    for number, seconds in enumerate(forwards):
        trace.add("CPU", "wait", number - 0.5, number - 0.4, number - 1)
        trace.add("CPU", "forward", number, number + seconds, number)
        kernels = 0.3 if number in known else None
        trace.add("compute", "forward", number, number + 0.9, number, kernels=kernels)
    return trace


def test_host_work_is_that_of_the_usual_batch_of_decodes():
    """Of 40 batches the first 10 have prompts in them, and for 8 in the middle the host was slow."""
    done = SimpleNamespace(trace=trace_of([0.8] * 10 + [0.2] * 6 + [0.5] * 8 + [0.2] * 16))
    assert times.host_seconds(done) == pytest.approx({"forward": 0.2, "wait": 0.1})


def test_a_run_of_one_batch_has_host_work_too():
    assert times.host_seconds(SimpleNamespace(trace=trace_of([0.3]))) == pytest.approx({"forward": 0.3})


def test_a_timeline_is_of_batches_whose_kernels_are_known(monkeypatch):
    shown = []
    monkeypatch.setattr(times, "draw", lambda trace, first, last, title: shown.append((first, last, title)))
    monkeypatch.setattr(times, "picture", lambda figure, text: text)
    load = workload("small")
    done = profile("ch1", load.override(requests=2, new_tokens=4), "sim")
    done = replace(done, trace=trace_of([0.2] * 40, known=range(24, 32)))
    profiles = times.Profiles(load, {"ch1": SimpleNamespace(profile=done)})
    assert times.timeline(profiles, "ch1") == "Timeline of ch1: small (llama-3.2-1b) on simulated H200"
    assert shown == [(24, 25, "small, ch1")]
