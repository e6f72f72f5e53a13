"""Reading traces: whatever their form, piece by piece; files that hold none, events that are not as they should be."""

import gzip
import json

import pytest
from tape import Tape, sync

from acb_minimal.errors import InputError
from acb_minimal.trace import chrome
from acb_minimal.trace.chrome import read_events, with_events
from acb_minimal.trace.idle import analyse, read


def trace_of(tape: Tape) -> dict:
    meta = {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}}
    instant = {"ph": "i", "name": "Iteration Start", "pid": "Traces", "tid": "Trace", "ts": 1}
    return {"schemaVersion": 1, "traceEvents": [meta, instant, *tape.events], "traceName": "x"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_trace_is_read_whatever_its_form_and_name(tmp_path, zipped, bare, name):
    tape, path = sync(), tmp_path / name
    trace = trace_of(tape)
    data = json.dumps(trace["traceEvents"] if bare else trace).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    (report,) = analyse(read(path))
    assert report.figures() == tape.report().figures()


def test_names_that_are_not_valid_json_do_not_spoil_a_trace(tmp_path):
    data = json.dumps(trace_of(sync())).encode().replace(b'"schedule"', b'"sche\xffdule\n"')
    (tmp_path / "trace.json").write_bytes(data)
    assert len(analyse(read(tmp_path / "trace.json"))) == 1


HOST_ONLY = {"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 1}]}
OTHER = {
    "traceEvents": [
        7,
        {"ph": "X", "cat": ["x"]},
        {"ph": "X", "cat": "blink", "name": "paint", "pid": 1, "tid": 1, "ts": 1, "dur": 1},
    ]
}


NO_TRACE = {
    "empty": (b"", "is not a trace in JSON"),
    "text": (b"not JSON", "is not a trace in JSON"),
    "cut short": (b'[{"a": 1}, {"b"', "event 1 of .* is cut short: the file ends in it"),
    "deep": (b"[" * 200_000, "is not a trace in JSON"),
    "empty gzip": (b"\x1f\x8b", "cut short"),
    "gzip cut short": (gzip.compress(json.dumps(trace_of(sync())).encode())[:-200], "cut short"),
    "gzip damaged": (gzip.compress(b"not JSON" * 99)[:10] + b"\xff" * 99, "damaged"),
    "gzip of text": (gzip.compress(b"not JSON"), "is not a trace in JSON"),
    "number": (b"7", "there is no trace"),
    "no events": (b'{"events": []}', "there is no trace"),
    "no list": (b'{"traceEvents": {}}', "there is no trace"),
    "empty list": (b"[]", "looked for events of category kernel"),
    "of a browser": (json.dumps(OTHER).encode(), "looked for events of category kernel"),
    "of a host": (json.dumps(HOST_ONLY).encode(), "no GPU activity"),
}


@pytest.mark.parametrize(("data", "says"), NO_TRACE.values(), ids=NO_TRACE)
def test_a_file_without_a_trace_is_an_error_of_one_line(tmp_path, data, says):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path):
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            read(path)


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_events_are_the_same_however_small_the_pieces_that_are_read(tmp_path, piece, monkeypatch):
    trace = trace_of(sync(steps=1))
    (tmp_path / "trace.json").write_text(json.dumps(trace, indent=1))
    monkeypatch.setattr(chrome, "PIECE", piece)
    header = {}
    assert list(read_events(tmp_path / "trace.json", header)) == trace["traceEvents"]
    assert header == {**trace, "traceEvents": []}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bare", [True, False])
def test_events_can_be_added_to_a_file(tmp_path, zipped, bare):
    trace = trace_of(sync(steps=1))
    data = json.dumps(trace["traceEvents"] if bare else trace).encode().replace(b'"schedule"', b'"sche\xffdule"')
    (tmp_path / "old").write_bytes(gzip.compress(data) if zipped else data)
    with_events(tmp_path / "old", tmp_path / "new.json.gz", [{"name": "more"}])
    new = gzip.decompress((tmp_path / "new.json.gz").read_bytes())
    assert new.replace(b'{"name": "more"},\n', b"") == data
    assert next(read_events(tmp_path / "new.json.gz")) == {"name": "more"}


EVENT = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": 1, "dur": 1, "args": {"device": 0}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": 7}, "event 1 is not as it should be: its name is 7, not text"),
        ({"ts": "soon"}, "event 1 is not as it should be"),
        ({"args": {"correlation": 1.5}}, "its correlation is 1.5, no whole number"),
        ({"args": [1]}, "event 1 is not as it should be"),
        ({"ts": None}, "event 1 is not as it should be"),
        ({"dur": float("nan")}, "event 1 is not as it should be"),
    ],
)
def test_a_bad_event_is_named_with_its_file_and_its_number(tmp_path, change, says):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps([EVENT, EVENT | change]))
    with pytest.raises(InputError, match=says) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        (("mtia_ccp_events", "mtia_runtime"), "was recorded on MTIA"),
        (("kernel", "xpu_runtime"), "was recorded on XPU"),
    ],
)
def test_traces_that_are_not_of_cuda_are_named(tmp_path, categories, says):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps([EVENT | {"cat": category} for category in categories]))
    with pytest.raises(InputError, match=says):
        read(path)


@pytest.mark.parametrize("begin", ["[", '{"traceEvents": [', '{"other": [1, ', ""])
def test_what_is_no_trace_is_given_up_long_before_its_end(tmp_path, begin, monkeypatch):
    monkeypatch.setattr("acb_minimal.trace.chrome.LONGEST", 10_000)
    monkeypatch.setattr("acb_minimal.trace.chrome.PIECE", 1_000)
    path, shares = tmp_path / "trace.json", []
    path.write_text(begin + ("[1, " if "[" in begin else " ") * 500_000)
    with pytest.raises(InputError):
        read(path, shares.append)
    assert shares[-1] < 0.2
