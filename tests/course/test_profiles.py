"""What notebooks show of profiles, on made-up traces."""

from types import SimpleNamespace

import pytest

from acb_minimal.course import profiles
from acb_minimal.course.profiles import two_by_two
from acb_minimal.trace.spans import Trace


def trace_of(forwards: list[float]) -> Trace:
    """A batch a second, launched in these times."""
    trace = Trace("a GPU")
    for number, seconds in enumerate(forwards):
        trace.add("CPU", "wait", number - 0.5, number - 0.4, number - 1)
        trace.add("CPU", "forward", number, number + seconds, number)
        trace.add("compute", "forward", number, number + 0.9, number)
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


def test_four_engines_are_compared_with_the_first(monkeypatch):
    """In turns on a GPU that takes so many ms for a step; a tenth of that is a bubble."""

    def compare(workload, chapters, method):
        assert (workload.name, workload.new_tokens) == ("long", 48)
        assert (method.runs, method.kernels) == (3, False)
        return (SimpleNamespace(typical=SimpleNamespace(step=ms / 1e3, bubbles=ms / 1e4)) for ms in (30, 17, 15, 11))

    monkeypatch.setattr(profiles, "compare", compare)
    monkeypatch.setattr(profiles, "machine", lambda: SimpleNamespace(kind="cuda", name="a GPU"))
    table = two_by_two("long", new_tokens=48, runs=3)
    assert table.title == "long (llama-3.1-8b) on a GPU"
    assert table.caption == "Of 3 runs each, in turns, the one in the middle."
    _, *columns = (list(column.cells) for column in table.columns)
    assert columns == [["30.00", "17.00", "15.00", "11.00"], ["10.0%"] * 4, ["0.0%", "43.3%", "50.0%", "63.3%"]]
