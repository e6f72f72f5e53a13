"""Traces: what follows from spans, how they are exported, and what runs on either kind of GPU report."""

import json
from collections import defaultdict
from itertools import pairwise

import jsonschema
import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure.compare import compare
from acb_minimal.measure.metrics import Metrics
from acb_minimal.models import counter
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job, workload
from acb_minimal.trace.spans import LANES, Trace

DEVICES = ["sim", pytest.param("cuda", marks=pytest.mark.gpu)]


def made() -> Trace:
    """Two batches with a bubble of 2 s between them; the second is a carry-over and a forward pass."""
    trace = Trace("a machine")
    trace.add("CPU", "schedule", 0.0, 1.0, 0)
    trace.add("CPU", "forward", 1.0, 2.0, 0, "A")
    trace.add("compute", "forward", 1.5, 5.0, 0, "A", launched=1.0)
    trace.add("CPU", "schedule", 5.0, 6.0, 1)
    trace.add("CPU", "schedule", 6.0, 6.5, 1)
    trace.add("compute", "forward", 8.0, 11.0, 1, "B", launched=6.6)
    trace.add("compute", "carry_over", 7.0, 7.5, 1, "B", launched=6.5)
    return trace


def test_a_bubble_is_the_time_between_two_batches_and_not_the_gap_inside_one():
    assert made().batches() == {0: (1.5, 5.0), 1: (7.0, 11.0)}
    assert made().bubbles() == {1: 2.0}
    assert made().active() == pytest.approx(1 - 2.0 / 9.5)


def test_a_batch_lasts_until_its_last_span_ends():
    trace = Trace()
    trace.add("compute", "forward", 1.0, 5.0, 0)
    trace.add("compute", "carry_over", 2.0, 3.0, 0)
    assert trace.batches() == {0: (1.0, 5.0)}


def test_steps_add_up_host_work_by_name():
    first, second = made().steps()
    assert first == {"batch": 0, "compute": 3.5, "bubble": 0.0, "schedule": 1.0, "forward": 1.0}
    assert second == {"batch": 1, "compute": 4.0, "bubble": 2.0, "schedule": 1.5}


def test_a_trace_of_one_rank_says_of_which_as_those_of_torchs_profiler_do():
    trace = made()
    assert "distributedInfo" not in trace.chrome()
    trace.rank = 1
    assert trace.part(0, 1).chrome()["distributedInfo"] == {"rank": 1}
    assert Trace.of_chrome(trace.chrome()).rank == 1


def test_an_empty_trace_has_nothing_to_say():
    trace = Trace()
    assert (trace.active(), trace.bubbles(), trace.steps()) == (None, {}, [])
    assert [event["ph"] for event in trace.chrome()["traceEvents"]] == ["M"] * 9


# The parts of the format that are used: "Trace Event Format", Google, 2016.
NUMBER, NAME = {"type": "number", "minimum": 0}, {"type": "string", "minLength": 1}
PLACE = {"pid": {"const": 1}, "tid": {"enum": [1, 2, 3, 4]}, "ts": NUMBER}
EVENT = {
    "oneOf": [
        {"properties": {"ph": {"const": "M"}, "name": NAME}, "required": ["ph", "name", "pid", "tid", "args"]},
        {
            "properties": {"ph": {"const": "X"}, "name": NAME, "cat": {"enum": list(LANES)}, "dur": NUMBER, **PLACE},
            "required": ["ph", "name", "cat", "pid", "tid", "ts", "dur", "args"],
        },
        {
            "properties": {"ph": {"enum": ["s", "f"]}, "name": {"const": "launch"}, **PLACE},
            "required": ["ph", "name", "cat", "id", "pid", "tid", "ts"],
        },
    ]
}
SCHEMA = {"properties": {"traceEvents": {"type": "array", "items": EVENT}}, "required": ["traceEvents"]}


def check_chrome(trace: Trace) -> None:
    events = trace.chrome()["traceEvents"]
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == len(trace.spans)
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) == sum(span.lane != "CPU" for span in trace.spans)
    at = {(event["tid"], event["ts"]) for event in spans}
    for id, end in ends.items():
        assert starts[id]["tid"] == 1  # from the CPU...
        assert (end["tid"], end["ts"]) in at  # ...to where a span of the device begins


def test_the_chrome_trace_is_valid():
    for trace in (made(), traced("ch6_cuda_graphs", "sim")):
        jsonschema.validate(trace.chrome(), SCHEMA, jsonschema.Draft202012Validator)
        check_chrome(trace)


def test_kernels_are_exported_where_they_are_known():
    trace = Trace()
    trace.add("compute", "forward", 1.0, 5.0, 0, kernels=3.0, kernel_count=7)
    trace.add("compute", "forward", 5.0, 6.0, 1)
    known, unknown = (event["args"] for event in trace.chrome()["traceEvents"] if event["ph"] == "X")
    assert (known["kernels"], known["kernel_count"]) == (3e6, 7)
    assert not {"kernels", "kernel_count"} & set(unknown)
    again = Trace.of_chrome(trace.chrome()).spans
    assert [(span.kernels, span.kernel_count) for span in again] == [(pytest.approx(3.0), 7), (None, None)]


def traced(chapter: str, device: str) -> Trace:
    prompts = [counter.prompt(a, a + a % 13) for a in range(0, 200, 10)]
    session = Session(Job(prompts, max_running=6, max_batch_tokens=12, page_size=8), chapter, device=device, trace=True)
    texts = {completion.id: completion.text for completion in session.completions()}
    assert texts["1"] == counter.answer(10, 20)
    trace = session.trace
    assert len(trace.batches()) == len(session.done)
    assert Metrics.of(session).gpu_active == trace.active()
    return trace


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_run_reports_every_part_of_every_batch(chapter, device):
    trace = traced(chapter, device)
    check_chrome(trace)
    replayed, host, gpu = set(), defaultdict(list), defaultdict(list)
    for span in trace.spans:
        assert span.seconds >= 0
        (host if span.lane == "CPU" else gpu)[span.batch_number].append(span.name)
        if span.name == "replay":
            replayed.add(span.batch_number)
    for batch in trace.batches():
        carried = ["carry_over"] * (chapter >= "ch5")
        launched = ["replay"] if batch in replayed else [*carried, "forward"]
        filled = ["fill"] * (chapter == "ch4_dual_slots")
        assert sorted(host[batch]) == sorted(["schedule", "write", *filled, "upload", *launched, "download", "update"])
        assert sorted(gpu[batch]) == sorted(["upload", *launched, "download"])
    assert bool(replayed) == (chapter == "ch6_cuda_graphs")
    assert any(span.name == "wait" for span in trace.spans)
    assert 0 < trace.active() <= 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_batch_is_uploaded_then_computed_then_downloaded(chapter, device):
    """And each lane runs what it is given in the order it was launched in: each clock is compared with itself alone."""
    trace = traced(chapter, device)
    spans = {(span.name, span.batch_number): span for span in trace.spans if span.lane != "CPU"}
    slack = 2e-6 if device == "cuda" else 1e-12  # the resolution of events is half a microsecond
    for batch, (start, end) in trace.batches().items():
        assert spans["upload", batch].end <= start + slack
        assert end <= spans["download", batch].start + slack
    for lane in {span.lane for span in spans.values()}:
        launched = sorted(trace.lane(lane), key=lambda span: span.launched)
        assert all(before.end <= after.start + slack for before, after in pairwise(launched))
    if device == "sim":  # there the two clocks are one
        assert all(span.launched <= span.start for span in spans.values())


@pytest.mark.parametrize("chapter", list(chapter_paths())[3:])
def test_two_slots_take_turns(chapter):
    slots = [span.slot for span in traced(chapter, "sim").lane("H2D")]
    assert set(slots) == {"A", "B"}
    assert all(before != after for before, after in pairwise(slots))


def test_bubbles_shrink_from_chapter_to_chapter():
    """In virtual time, on batches wide enough for the GPU, and not the launching of kernels, to set the pace."""
    load = workload("wide").override(new_tokens=8)
    share = {done.profile.chapter: 1 - done.profile.figures.gpu_active for done in compare(load, "sim")}
    assert share["ch3_events"] > 2 * share["ch4_dual_slots"] > 4 * share["ch5_carry_over"]
    assert share["ch6_cuda_graphs"] < 1e-4


def test_a_run_without_a_trace_has_none():
    session = Session(Job(["count 3 to 7"]))
    list(session.completions())
    assert session.trace is None
    assert Metrics.of(session).gpu_active is None


def test_a_trace_can_be_had_back_from_its_file(tmp_path):
    trace = made()
    trace.add("compute", "replay", 12.0, 13.0, 2, "A", 7.25, 0.75)
    trace.add("CPU", "wait", 12.5, 13.0)
    trace.save_chrome(tmp_path / "trace.json", command="acb")
    chrome = json.loads((tmp_path / "trace.json").read_text())
    assert chrome["otherData"] == {"device": "a machine", "command": "acb"}
    back = Trace.of_chrome(chrome)
    assert back.device == trace.device
    assert back.spans == sorted(trace.spans, key=lambda span: span.start)


def test_a_part_has_its_batches_and_the_waits_among_them():
    trace = made()
    trace.add("CPU", "wait", 6.5, 7.0)
    trace.add("CPU", "wait", 3.0, 4.0)  # of batch 0
    part = trace.part(1, 1)
    assert (part.device, part.batches(), part.bubbles()) == ("a machine", {1: (7.0, 11.0)}, {})
    assert [span.start for span in part.spans] == [5.0, 6.0, 6.5, 7.0, 8.0]


@pytest.mark.parametrize(
    ("batches", "count", "middle"), [(9, 3, (4, 6)), (9, 6, (3, 8)), (2, 6, (0, 1)), (1, 1, (0, 0))]
)
def test_the_middle_is_as_many_batches_as_there_are(batches, count, middle):
    trace = Trace()
    for number in range(batches):
        trace.add("compute", "forward", number, number + 0.5, number)
    assert trace.middle(count) == middle


def test_nothing_has_no_middle():
    with pytest.raises(InputError, match="the trace has no batches"):
        Trace().middle(3)
