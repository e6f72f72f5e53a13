"""Tests of acb_minimal.run.traced and timed that need no GPU."""

from types import SimpleNamespace
from unittest.mock import Mock

import torch

from acb_minimal.run import traced
from acb_minimal.run.traced import TracedCudaDevice
from acb_minimal.trace.spans import Span


def test_device_work_is_where_its_events_are_on_the_host_s_clock(monkeypatch):
    monkeypatch.setattr(TracedCudaDevice, "name", "a GPU")
    device = TracedCudaDevice()
    monkeypatch.setattr(device, "cuda", Mock())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "Event", Mock())
    moments = iter(["before", "after"])
    monkeypatch.setattr(traced, "moment", lambda clock: next(moments))
    seconds = {("before", "after", 4): [10.0, 11.0, 12.0, 13.0]}
    monkeypatch.setattr(traced, "host_times", lambda began, ended, events: seconds[began, ended, len(events)])
    device.begin()
    for engine, name, number in (("h2d", "upload", 2), ("compute", "forward", 3)):
        with device.launching(engine, name, SimpleNamespace(name="B", batch=SimpleNamespace(number=number))):
            pass
    device.finish()
    device.finish()  # what is in the trace does not come there twice
    calls = {span.batch_number: span.start for span in device.trace.lane("CPU")}
    assert [span for span in device.trace.spans if span.lane != "CPU"] == [
        Span("H2D", "upload", 10.0, 11.0, 2, "B", launched=calls[2]),
        Span("compute", "forward", 12.0, 13.0, 3, "B", launched=calls[3]),
    ]
