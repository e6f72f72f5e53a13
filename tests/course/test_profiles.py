"""What notebooks show of profiles, on made-up traces."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from acb_minimal.course import profiles
from acb_minimal.course.profiles import two_by_two
from acb_minimal.measure.compare import profile
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
    trace = trace_of([0.8] * 10 + [0.2] * 6 + [0.5] * 8 + [0.2] * 16)
    done = [SimpleNamespace(rows=2, decodes=number >= 10) for number in range(40)]
    found = profiles.host_seconds(SimpleNamespace(trace=trace, done=done))
    assert found == pytest.approx({"forward": 0.2, "wait": 0.1})


def test_a_run_of_one_batch_has_host_work_too():
    done = SimpleNamespace(trace=trace_of([0.3]), done=[SimpleNamespace(rows=2, decodes=False)])
    assert profiles.host_seconds(done) == pytest.approx({"forward": 0.3})


def test_a_timeline_is_of_batches_whose_kernels_are_known(monkeypatch):
    shown = []
    monkeypatch.setattr(profiles, "draw", lambda trace, first, last, title: shown.append((first, last, title)))
    monkeypatch.setattr(profiles, "picture", lambda figure, text: text)
    load = workload("small")
    done = profile("ch1", load.override(requests=2, new_tokens=4), "sim")
    done = replace(done, trace=trace_of([0.2] * 40, known=range(24, 32)))
    measured = profiles.Profiles(load, {"ch1": done})
    assert profiles.timeline(measured, "ch1") == "Timeline of ch1: small (llama-3.2-1b) on simulated H200"
    assert shown == [(24, 25, "small, ch1")]


def test_the_run_in_the_middle_of_four_engines_in_turns_counts(monkeypatch):
    """On a GPU that takes these ms in turn for a step; a tenth of that is a bubble."""
    ms = {"ch5, synchronous": (40, 20, 30), "ch5": (18, 16, 17), "ch6, synchronous": (15, 15, 15), "ch6": (12, 10, 11)}
    served = []

    def serve(workload, engine, device, checkpoint, options):
        assert (workload.name, workload.new_tokens, device) == ("long", 48, "cuda")
        served.append(engine)
        step, trace = ms[engine][served.count(engine) - 1] / 1e3, Trace("a GPU")
        for number in range(9):
            late = 0.5 * (number >= 5)  # of its steps, one is no usual one
            trace.add("compute", "forward", number * step + late, (number + 0.9) * step + late, number)
        return SimpleNamespace(trace=trace)

    monkeypatch.setattr(profiles, "serve", serve)
    monkeypatch.setattr(profiles, "synchronous", lambda chapter: f"{chapter}, synchronous")
    monkeypatch.setattr(profiles, "machine", lambda: SimpleNamespace(kind="cuda", name="a GPU"))
    table = two_by_two("long", new_tokens=48, runs=3)
    assert served == [*ms] * 3
    assert table.title == "long (llama-3.1-8b) on a GPU"
    assert table.caption == "Of 3 runs each, in turns, the one in the middle."
    _, *columns = (list(column.cells) for column in table.columns)
    assert columns == [["30.00", "17.00", "15.00", "11.00"], ["10.0%"] * 4, ["0.0%", "43.3%", "50.0%", "63.3%"]]
