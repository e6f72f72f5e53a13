"""What was found, put into the trace and onto a timeline."""

import json
from itertools import pairwise

import pytest
from tape import asynchronous, sync

from acb_minimal.errors import InputError
from acb_minimal.trace import tracks
from acb_minimal.trace.idle import analyse, read
from acb_minimal.trace.torch_profiler import Recording


def test_an_annotated_trace_has_steps_and_gaps_where_they_are_and_reads_as_before(tmp_path):
    tape = sync(8, length=6, took=10)
    for event in tape.events:
        event["ts"] += 4_367_851_780_497
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": tape.events}))
    recording = read(tmp_path / "trace.json")
    reports = analyse(recording)
    tracks.annotate(tmp_path / "trace.json", tmp_path / "new.json.gz", recording, reports)
    assert [each.figures() for each in analyse(read(tmp_path / "new.json.gz"))] == [each.figures() for each in reports]

    tracks.annotate(tmp_path / "trace.json", tmp_path / "new.json", recording, reports)
    events = json.loads((tmp_path / "new.json").read_text())["traceEvents"]
    added = [event for event in events if event.get("cat") == "acb_idle"]
    kernels = sorted(event["ts"] for event in tape.events if event["cat"] == "kernel")
    bubbles = [event for event in added if event["name"] == "bubble"]
    assert [event["ts"] + event["dur"] for event in bubbles] == pytest.approx(kernels[10::10], abs=1e-2)
    assert sum(event["name"] == "launch gap" for event in added) == 8 * 9
    assert [event["name"] for event in added if event["tid"] == 0] == [f"decode {number}" for number in range(1, 8)]


def test_a_timeline_has_a_few_typical_decodes_with_all_that_host_and_device_did():
    tape = asynchronous(12, eager=False)
    (report,) = analyse(Recording.of(tape.events))
    trace, first, last = tracks.timeline(report)
    assert last - first == tracks.SHOWN - 1
    assert {span.lane for span in trace.spans} == {"CPU", "compute", "D2H"}
    assert {span.name for span in trace.lane("CPU")} == {"launch", "wait", "host"}
    assert [span.slot for span in trace.lane("compute")] == ["AB"[number % 2] for number in range(first - 1, last + 2)]
    assert all(before.end <= after.start for before, after in pairwise(trace.lane("CPU")))
    copies = {span.batch_number: span.start for span in trace.lane("D2H")}
    assert all(copies[span.batch_number] >= span.end for span in trace.lane("compute"))
    assert [span.slot for span in tracks.timeline(sync(8).report())[0].lane("compute")] == ["A"] * 6


def test_steps_on_a_timeline_follow_one_another():
    tape = sync(6)
    sync(1, length=70, tape=tape)
    sync(3, tape=tape)
    report = tape.report()
    _, first, last = tracks.timeline(report)
    assert all(step.kind == "decode" for step in report.steps if first <= step.number <= last)


def test_without_typical_decodes_there_is_no_timeline():
    with pytest.raises(InputError, match="no typical decodes of GPU 0"):
        tracks.timeline(sync(2).report())
