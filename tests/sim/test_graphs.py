"""Graphs, on the simulated GPU and on the real one: what is captured, and what a replay does."""

from contextlib import suppress

import pytest
from sim.machine import EVERYWHERE, Machine, in_a_process_of_its_own

from acb_minimal.sim.operations import Limit


def test_capturing_a_graph_runs_nothing_and_waits_for_all_that_was_queued(machine):
    """torch.cuda.graph synchronizes first."""
    (stream,) = machine.streams(1)
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", machine.seen, machine.data)
    machine.capture(lambda: machine.data.add_(1))
    assert machine.seen.tolist() == [1]
    machine.cuda.synchronize()
    assert machine.data.tolist() == [1]
    assert machine.cuda.current_stream() == machine.cuda.default_stream()


def test_every_replay_runs_all_of_the_graph_in_order(machine):
    graph = machine.capture(lambda: machine.data.add_(1), lambda: machine.data.mul_(2))
    graph.replay()
    graph.replay()
    machine.cuda.synchronize()
    assert machine.data.tolist() == [6]


def test_a_replay_reads_what_is_in_the_captured_tensors_now(machine):
    source, fresh, default = machine.device_tensor([0]), machine.pinned([7]), machine.cuda.default_stream()
    graph = machine.capture(lambda: machine.data.copy_(source))
    machine.compute(lambda: source.fill_(5))
    graph.replay()
    assert machine.read(default) == [5]
    machine.copy("h2d", source, fresh)
    graph.replay()
    assert machine.read(default) == [7]


def test_a_replay_takes_its_place_in_the_current_stream(machine):
    data, seen = machine.data, machine.seen
    (stream,) = machine.streams(1)
    graph = machine.capture(lambda: data.mul_(2))
    with machine.cuda.stream(stream):
        machine.slow()
        machine.compute(lambda: data.fill_(3))
        graph.replay()
        machine.copy("d2h", seen, data)
        machine.compute(lambda: data.fill_(0))
    stream.synchronize()
    assert (seen.tolist(), data.tolist()) == ([6], [0])


@pytest.mark.parametrize("of_the_first", [False, True])
def test_two_graphs_in_one_pool_keep_apart(machine, of_the_first):
    pool = None if of_the_first else machine.cuda.graph_pool_handle()
    add = machine.capture(lambda: machine.data.add_(3), pool=pool)
    double = machine.capture(lambda: machine.data.mul_(2), pool=pool or add.pool())
    add.replay()
    double.replay()
    add.replay()
    machine.cuda.synchronize()
    assert machine.data.tolist() == [9]


def capture_the_default_stream(name: str) -> bool:
    """Whether it is refused."""
    machine = Machine(name)
    try:
        with machine.cuda.graph(machine.cuda.CUDAGraph(), stream=machine.cuda.default_stream()):
            machine.compute(lambda: machine.data.add_(1))
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_default_stream_cannot_be_captured(name):
    assert in_a_process_of_its_own(capture_the_default_stream, name)


def test_work_in_another_stream_is_not_captured(machine):
    data, cuda = machine.data, machine.cuda
    captured, other = machine.streams(2)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph, stream=captured, capture_error_mode="thread_local"):
        machine.compute(lambda: data.add_(1))
        assert cuda.is_current_stream_capturing()
        with cuda.stream(other):
            machine.compute(lambda: data.add_(10))
            assert not cuda.is_current_stream_capturing()
    assert not cuda.is_current_stream_capturing()
    cuda.synchronize()
    assert data.tolist() == [10]
    graph.replay()
    cuda.synchronize()
    assert data.tolist() == [11]


WAITS = {
    "the device": lambda cuda, event: cuda.synchronize(),
    "the stream": lambda cuda, event: cuda.current_stream().synchronize(),
    "an event": lambda cuda, event: event.synchronize(),
    "an event of the capture": lambda cuda, event: cuda.current_stream().record_event().synchronize(),
}


def wait_while_capturing(name: str, what: str) -> bool:
    """Whether the wait is refused. The machine must still work afterwards."""
    machine = Machine(name)
    event = machine.cuda.current_stream().record_event()
    refused = False
    with suppress(RuntimeError), machine.cuda.graph(machine.cuda.CUDAGraph()):  # CUDA lets no spoilt capture end well
        machine.compute(lambda: machine.data.add_(1))
        try:
            WAITS[what](machine.cuda, event)
        except (RuntimeError, Limit):  # what CUDA captures before it refuses, the simulator does not
            refused = True
    machine.cuda.synchronize()
    return refused


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_host_cannot_wait_while_a_graph_is_captured(name, what):
    assert in_a_process_of_its_own(wait_while_capturing, name, what)
