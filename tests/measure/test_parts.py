"""How the GPU time of a call is taken."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from acb_minimal.measure import parts


def test_gpu_time_is_that_of_replays_in_a_process_with_other_graphs(monkeypatch):
    """Three calls in a graph; after one replay that does not count, they take 3, 9, 6, 6 and 12 ms."""
    events, lengths = [], iter([3.0, 9.0, 6.0, 6.0, 12.0])

    @contextmanager
    def graph(made):
        events.append("capture")
        yield

    replayed = SimpleNamespace(replay=lambda: events.append("replay"))
    event = SimpleNamespace(
        record=lambda: events.append("event"), synchronize=lambda: None, elapsed_time=lambda end: next(lengths)
    )
    monkeypatch.setattr(parts, "crowd", lambda: events.append("other graphs"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: replayed)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    assert parts.gpu_seconds(lambda: events.append("call"), calls=3, repeats=5) == pytest.approx(0.002)
    assert events[:7] == ["other graphs", "call", "capture", "call", "call", "call", "replay"]
    assert events[7:] == ["event", "replay", "event"] * 5


@pytest.mark.gpu
def test_a_process_gets_its_other_graphs_once(monkeypatch):
    captured = []
    graph = torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda made: (captured.append(made), graph(made))[1])
    parts.crowd.cache_clear()
    parts.crowd()
    parts.crowd()
    assert len(captured) == parts.CROWD
