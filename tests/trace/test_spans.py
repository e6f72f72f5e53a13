"""Traces: what follows from spans, how they are exported, and what runs on either kind of GPU report."""

import functools
import json
from collections import defaultdict
from itertools import pairwise

import pytest

from acb_minimal.measure.metrics import Metrics
from acb_minimal.models import counter
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.trace.spans import Trace
from acb_minimal.trace.torch_profiler import Recording

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
    assert made().batches() == {0: (1.5, 5.0), 1: (7.0, 11.0)}  # to the end of its last span
    assert made().bubbles() == {1: 2.0}
    assert made().active() == pytest.approx(1 - 2.0 / 9.5)


def test_steps_add_up_host_work_by_name():
    first, second = made().steps()
    assert first == {"batch": 0, "compute": 3.5, "bubble": 0.0, "schedule": 1.0, "forward": 1.0}
    assert second == {"batch": 1, "compute": 4.0, "bubble": 2.0, "schedule": 1.5}


def check_chrome(trace: Trace) -> None:
    """Events are in order; every piece of device work has its call, which an arrow joins to it."""
    events = trace.chrome()["traceEvents"]
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            found[event["cat"]].append(event)
    assert len(found["user_annotation"]) == len(trace.lane("CPU"))
    assert len(found["kernel"]) == len(trace.lane("compute"))
    assert len(found["gpu_memcpy"]) == len(trace.lane("H2D") + trace.lane("D2H"))
    calls = {call["args"]["correlation"]: call for call in found["cuda_runtime"] if "correlation" in call["args"]}
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    for event in found["kernel"] + found["gpu_memcpy"]:
        number = event["args"]["correlation"]
        assert (starts[number]["tid"], starts[number]["ts"]) == (calls[number]["tid"], calls[number]["ts"])
        assert (ends[number]["tid"], ends[number]["ts"]) == (event["tid"], event["ts"])
        assert {"device", "stream"} <= event["args"].keys()


def test_a_trace_is_written_in_the_categories_of_torchs_profiler():
    trace = traced("ch6_cuda_graphs", "sim")
    check_chrome(trace)
    recording = Recording.of(trace.events())
    names = set(recording.names)
    assert {"schedule", "write", "forward", "replay", "cudaLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync"} <= names
    assert {"cudaStreamSynchronize", "Memcpy HtoD (Pinned -> Device)"} <= names
    decodes = {args["batch"]: args["decodes"] for args in recording.told.values()}
    assert {number for number, alone in decodes.items() if not alone} == trace.prompts
    assert {args["batch"]: args["rows"] for args in recording.told.values()} == trace.rows


@functools.cache
def traced(chapter: str, device: str) -> Trace:
    prompts = [counter.prompt(a, a + a % 13) for a in range(0, 200, 10)]
    session = Session(Job(prompts, max_running=6, max_batch_tokens=12, page_size=8), chapter, device=device, trace=True)
    texts = {completion.id: completion.text for completion in session}
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


def test_a_trace_can_be_had_back_from_its_file(tmp_path):
    trace = made()
    trace.add("compute", "replay", 12.0, 13.0, 2, "A", 7.25, 0.75)
    trace.add("CPU", "wait", 12.5, 13.0)
    trace.rows, trace.prompts, trace.rank = {0: 3, 1: 2, 2: 2}, frozenset({0}), 1
    trace.save_chrome(tmp_path / "trace.json", command="acb")
    chrome = json.loads((tmp_path / "trace.json").read_text())
    assert chrome["otherData"] == {"device": "a machine", "command": "acb"}
    back = Trace.of_chrome(chrome)
    assert (back.device, back.rank, back.rows, back.prompts) == (trace.device, 1, trace.rows, trace.prompts)
    key = lambda span: (span.start, span.lane)  # noqa: E731
    assert sorted(back.spans, key=key) == sorted(trace.spans, key=key)


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
