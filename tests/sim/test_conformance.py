"""The simulated GPU and the real one run the same small programs, and the same must hold for both.

There are two kinds of programs. In one kind streams, events and waits fix the answer, on every machine. In the other
nothing orders a slow piece of work and whoever looks at its result: a race. A GPU may answer a race either way, so
there the slow work is slow enough to come last; on the simulator the policy decides. At the end are tests of what
only the simulator has: policies, seeds and a virtual clock.
"""

import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from acb_minimal.device import CudaDevice
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import named
from acb_minimal.sim.simulator import Cost, Limit

SLOW = 0.1  # seconds: far longer than the host needs to queue the rest of a program
CYCLES = 200_000_000  # the same for a GPU of at most 2 GHz; a slower one is only slower
COSTS = SimpleNamespace(call=5e-6, replay_launch=20e-6, copy_launch=5e-6, copy=lambda engine, nbytes: 10e-6)


@functools.cache
def real_streams():
    """Three streams for all programs. More would in the end share a hardware queue, where one can hold up another."""
    return [torch.cuda.Stream() for _ in range(3)]


@functools.cache
def load_real_kernels():
    """A kernel is loaded at its first launch, which can make the whole GPU wait and so order what nothing orders."""
    data, other = torch.zeros(2, 1, dtype=torch.int32, device="cuda")
    host = torch.zeros(1, dtype=torch.int32, pin_memory=True)
    for stream in [torch.cuda.default_stream(), *real_streams()]:
        with torch.cuda.stream(stream):
            torch.cuda._sleep(1000)
            data.fill_(1).add_(1).mul_(2).copy_(other)
            data.copy_(host, non_blocking=True)
            host.copy_(data, non_blocking=True)
    torch.cuda.synchronize()


class Machine:
    """What a program runs on: "cuda" is the real GPU; the simulator goes by its policy, "random-3" has seed 3.

    A program makes its tensors first: an allocation can make the GPU wait.
    """

    def __init__(self, name: str):
        self.policy, _, seed = name.partition("-")
        self.real = self.policy == "cuda"
        if self.real:
            load_real_kernels()
        self.device = CudaDevice() if self.real else SimulatedDevice(COSTS, named(self.policy, int(seed or 0)))
        self.cuda = self.device.cuda

    def streams(self, number: int):
        return real_streams()[:number] if self.real else [self.cuda.Stream() for _ in range(number)]

    def device_tensor(self, values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=self.device.torch_device)

    def pageable(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32)

    def pinned(self, values: list[int]) -> torch.Tensor:
        return self.device.pinned(len(values)).copy_(self.pageable(values))

    def copy(self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = True) -> None:
        self.device.copy(engine, target, source, non_blocking)

    def compute(self, work) -> None:
        """Device work on the current stream."""
        if self.real:
            work()
        else:
            self.device.simulator.submit("compute", "compute", work, lambda: Cost(1e-5))

    def slow(self) -> None:
        """Device work on the current stream that does nothing, for SLOW seconds."""
        if self.real:
            torch.cuda._sleep(CYCLES)
        else:
            self.device.simulator.submit("slow", "compute", lambda: None, lambda: Cost(SLOW))

    def capture(self, *works, pool=None):
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph, pool=pool):
            for work in works:
                self.compute(work)
        return graph


SIMULATED = ["timed", "lazy", "eager", *(f"random-{seed}" for seed in range(20))]
EVERYWHERE = [*SIMULATED, pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=EVERYWHERE)
def machine(request):
    machine = Machine(request.param)
    yield machine
    machine.cuda.synchronize()


# --- what is ordered ---


def test_a_stream_runs_its_operations_in_order(machine):
    data, source, seen = machine.device_tensor([0]), machine.pinned([3]), machine.pinned([0])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", data, source)
        machine.compute(lambda: data.add_(1))
        machine.compute(lambda: data.mul_(2))
        machine.copy("d2h", seen, data)
        machine.compute(lambda: data.fill_(0))
    stream.synchronize()
    assert (seen.tolist(), data.tolist()) == ([8], [0])


def test_the_default_stream_runs_its_operations_in_order(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
    machine.slow()
    machine.compute(lambda: data.add_(1))
    machine.copy("d2h", seen, data)
    machine.cuda.default_stream().synchronize()
    assert seen.tolist() == [1]


def by_wait_event(cuda, first, then):
    event = cuda.Event()
    event.record(first)
    then.wait_event(event)


def by_record_event(cuda, first, then):
    then.wait_event(first.record_event())


def by_record_event_of_an_event(cuda, first, then):
    event = cuda.Event()
    assert first.record_event(event) is event
    then.wait_event(event)


def by_wait_of_an_event(cuda, first, then):
    first.record_event().wait(then)


def by_the_current_stream(cuda, first, then):
    event = cuda.Event()
    with cuda.stream(first):
        event.record()
    with cuda.stream(then):
        event.wait()


def by_wait_stream(cuda, first, then):
    then.wait_stream(first)


@pytest.mark.parametrize(
    "order",
    [
        by_wait_event,
        by_record_event,
        by_record_event_of_an_event,
        by_wait_of_an_event,
        by_the_current_stream,
        by_wait_stream,
    ],
)
def test_a_record_and_a_wait_order_two_streams(machine, order):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
    writer, reader = machine.streams(2)
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
    order(machine.cuda, writer, reader)
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    assert seen.tolist() == [1]


def test_an_event_orders_the_default_stream_and_a_side_stream(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
    (side,) = machine.streams(1)
    machine.slow()
    machine.compute(lambda: data.fill_(1))
    side.wait_stream(machine.cuda.default_stream())
    with machine.cuda.stream(side):
        machine.slow()
        machine.compute(lambda: data.add_(1))
    machine.cuda.default_stream().wait_stream(side)
    machine.copy("d2h", seen, data)
    machine.cuda.default_stream().synchronize()
    assert seen.tolist() == [2]


def test_order_carries_over_from_wait_to_wait(machine):
    """A batch goes through three streams; the download waits for the upload without naming it."""
    source, data, result, seen = machine.pinned([3]), *machine.device_tensor([[0], [0]]), machine.pinned([0])
    h2d, compute, d2h = machine.streams(3)
    with machine.cuda.stream(h2d):
        machine.slow()
        machine.copy("h2d", data, source)
    compute.wait_stream(h2d)
    with machine.cuda.stream(compute):
        machine.compute(lambda: result.copy_(data))
        machine.compute(lambda: result.mul_(2))
    d2h.wait_stream(compute)
    with machine.cuda.stream(d2h):
        machine.copy("d2h", seen, result)
    d2h.synchronize()
    assert seen.tolist() == [6]


def test_an_event_recorded_again_elsewhere_still_holds_who_waited_before(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
    writer, reader, idle = machine.streams(3)
    event = machine.cuda.Event()
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
        event.record()
    reader.wait_event(event)
    event.record(idle)  # would release the reader at once if it waited for the event and not for the record
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    assert seen.tolist() == [1]


def test_synchronizing_an_event_waits_for_its_latest_record(machine):
    data, seen = machine.device_tensor([1]), machine.pinned([0])
    (stream,) = machine.streams(1)
    event = machine.cuda.Event()
    event.record(stream)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("d2h", seen, data)
        event.record()
    event.synchronize()
    assert seen.tolist() == [1]


def test_synchronizing_a_stream_waits_for_all_that_is_in_it(machine):
    data, first, last = machine.device_tensor([1]), machine.pinned([0]), machine.pinned([0])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.copy("d2h", first, data)
        machine.slow()
        machine.copy("d2h", last, data)
    stream.synchronize()
    assert (first.tolist(), last.tolist()) == ([1], [1])


def test_synchronizing_the_device_waits_for_all_streams(machine):
    data, seen = machine.device_tensor([1]), [machine.pinned([0]) for _ in range(3)]
    streams = [machine.cuda.default_stream(), *machine.streams(2)]
    for stream, target in zip(streams, seen, strict=True):
        with machine.cuda.stream(stream):
            machine.slow()
            machine.copy("d2h", target, data)
    machine.cuda.synchronize()
    assert [target.tolist() for target in seen] == [[1], [1], [1]]


def test_nothing_waits_for_an_event_never_recorded(machine):
    data, seen = machine.device_tensor([1]), machine.pinned([0])
    (stream,) = machine.streams(1)
    event = machine.cuda.Event()
    assert event.query()
    event.synchronize()
    stream.wait_event(event)
    event.wait(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", seen, data)
    stream.synchronize()
    assert seen.tolist() == [1]
    assert event.query()


def test_a_finished_event_answers_at_once(machine):
    (stream,) = machine.streams(1)
    event = stream.record_event()
    event.synchronize()
    event.synchronize()
    assert event.query()


def test_a_query_is_true_after_synchronizing(machine):
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        event = stream.record_event()
    stream.synchronize()
    assert event.query()
    assert stream.query()


def test_a_stream_that_was_given_nothing_is_done(machine):
    (stream,) = machine.streams(1)
    assert stream.query()
    stream.synchronize()


def test_after_a_blocking_upload_the_source_may_be_overwritten(machine):
    data, source = machine.device_tensor([0]), machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", data, source, non_blocking=False)
    source.fill_(2)
    stream.synchronize()
    assert data.tolist() == [1]


def test_after_a_blocking_download_the_target_is_there(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
        machine.copy("d2h", seen, data, non_blocking=False)
    assert seen.tolist() == [1]


def test_after_synchronizing_the_source_of_a_non_blocking_upload_may_be_overwritten(machine):
    data, source = machine.device_tensor([0]), machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", data, source)
    stream.synchronize()
    source.fill_(2)
    assert data.tolist() == [1]


def test_pageable_memory_may_be_overwritten_after_a_non_blocking_upload(machine):
    """The driver has copied it to a buffer of its own before the call returns."""
    data, source = machine.device_tensor([0]), machine.pageable([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", data, source)
    source.fill_(2)
    stream.synchronize()
    assert data.tolist() == [1]


def test_a_non_blocking_download_to_pageable_memory_is_there_after_synchronizing(machine):
    """Before that nothing is promised: CUDA says such a copy *might* make the host wait."""
    data, seen = machine.device_tensor([0]), machine.pageable([0])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
        machine.copy("d2h", seen, data)
    stream.synchronize()
    assert seen.tolist() == [1]


def test_time_between_two_events_is_that_of_the_work_between_them(machine):
    start, end = machine.cuda.Event(enable_timing=True), machine.cuda.Event(enable_timing=True)
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        start.record()
        machine.slow()
        end.record()
    end.synchronize()
    milliseconds = start.elapsed_time(end)
    if machine.policy in ("timed", "cuda"):
        assert milliseconds > 1e3 * SLOW / 2
    else:
        assert milliseconds >= 0  # the other policies order work, they do not time it


def test_events_made_without_timing_have_no_time_between_them(machine):
    (stream,) = machine.streams(1)
    timed, untimed = machine.cuda.Event(enable_timing=True), machine.cuda.Event()
    timed.record(stream)
    untimed.record(stream)
    stream.synchronize()
    for start, end in [(timed, untimed), (untimed, timed), (untimed, untimed)]:
        with pytest.raises(ValueError, match="enable_timing"):
            start.elapsed_time(end)


def test_an_event_never_recorded_has_no_time(machine):
    (stream,) = machine.streams(1)
    recorded, never = machine.cuda.Event(enable_timing=True), machine.cuda.Event(enable_timing=True)
    recorded.record(stream)
    stream.synchronize()
    with pytest.raises((ValueError, RuntimeError)):
        recorded.elapsed_time(never)
    with pytest.raises((ValueError, RuntimeError)):
        never.elapsed_time(recorded)


def test_the_current_stream_nests_and_is_restored(machine):
    cuda = machine.cuda
    outer, inner = machine.streams(2)
    assert cuda.current_stream() == cuda.default_stream()
    with cuda.stream(outer):
        assert cuda.current_stream() == outer
        with cuda.stream(inner):
            assert cuda.current_stream() == inner
            with cuda.stream(outer):
                assert cuda.current_stream() == outer
            assert cuda.current_stream() == inner
        with suppress(KeyError), cuda.stream(inner):
            raise KeyError
        assert cuda.current_stream() == outer
    assert cuda.current_stream() == cuda.default_stream()
    assert len({outer, inner, cuda.default_stream()}) == 3


# --- races: what is not ordered ---

RACES = []


def race(slow_last, slow_first):
    """Declares a race: what it answers if the slow work comes last, and what if it comes first, as it was queued."""

    def declare(program):
        RACES.append(pytest.param(program, slow_last, slow_first, id=program.__name__))
        return program

    return declare


@race(slow_last=[0], slow_first=[1])
def a_reader_in_another_stream(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    writer, reader = machine.streams(2)
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_reader_in_a_side_stream_of_what_the_default_stream_writes(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    (side,) = machine.streams(1)
    machine.slow()
    machine.compute(lambda: data.fill_(1))
    with machine.cuda.stream(side):
        machine.copy("d2h", seen, data)
    side.synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_reader_in_the_default_stream_of_what_a_side_stream_writes(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    (side,) = machine.streams(1)
    with machine.cuda.stream(side):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
    machine.copy("d2h", seen, data)
    machine.cuda.default_stream().synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_wait_for_an_event_not_recorded_yet(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    writer, reader = machine.streams(2)
    event = machine.cuda.Event()
    reader.wait_event(event)
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
        event.record()
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_wait_for_the_record_before_the_one_that_matters(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    writer, reader = machine.streams(2)
    event = machine.cuda.Event()
    event.record(writer)
    reader.wait_event(event)
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
        event.record()
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_record_before_the_work_that_matters(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    writer, reader = machine.streams(2)
    event = writer.record_event()
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
    reader.wait_event(event)
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_wait_for_a_stream_before_it_is_given_the_work(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([-1])
    writer, reader = machine.streams(2)
    reader.wait_stream(writer)
    with machine.cuda.stream(writer):
        machine.slow()
        machine.compute(lambda: data.fill_(1))
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    return seen.tolist()


@race(slow_last=False, slow_first=True)
def work_queued_before_a_wait(machine):
    """The wait holds up what comes after it only: the host gets past `before` while `slow` is not done."""
    writer, reader = machine.streams(2)
    with machine.cuda.stream(writer):
        machine.slow()
        slow = writer.record_event()
    before = reader.record_event()
    reader.wait_event(slow)
    before.synchronize()
    return slow.query()


@race(slow_last=[0], slow_first=[1])
def a_download_the_host_does_not_wait_for(machine):
    data, seen = machine.device_tensor([1]), machine.pinned([0])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("d2h", seen, data)
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_download_after_the_event_the_host_waits_for(machine):
    data, seen = machine.device_tensor([1]), machine.pinned([0])
    (stream,) = machine.streams(1)
    event = stream.record_event()
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("d2h", seen, data)
    event.synchronize()
    return seen.tolist()


@race(slow_last=[0], slow_first=[1])
def a_download_in_a_stream_the_host_does_not_wait_for(machine):
    data, seen = machine.device_tensor([1]), machine.pinned([0])
    other_data, other_source = machine.device_tensor([0]), machine.pinned([1])
    stream, other = machine.streams(2)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("d2h", seen, data)
    with machine.cuda.stream(other):
        machine.copy("h2d", other_data, other_source)
    other.synchronize()
    return seen.tolist()


@race(slow_last=[2], slow_first=[1])
def a_source_overwritten_after_a_non_blocking_upload(machine):
    """The copy reads its source when it runs, not when it is called."""
    data, source = machine.device_tensor([0]), machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", data, source)
    source.fill_(2)
    stream.synchronize()
    return data.tolist()


@race(slow_last=False, slow_first=True)
def a_query_of_an_event_behind_slow_work(machine):
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
    return stream.record_event().query()


@race(slow_last=False, slow_first=True)
def a_query_of_a_stream_with_slow_work(machine):
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
    return stream.query()


@race(slow_last="refused", slow_first="given")
def the_time_of_an_event_behind_slow_work(machine):
    start, end = machine.cuda.Event(enable_timing=True), machine.cuda.Event(enable_timing=True)
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        start.record()
        machine.slow()
        end.record()
    try:
        start.elapsed_time(end)
    except RuntimeError:
        return "refused"
    return "given"


@race(slow_last=[0], slow_first=[1])
def a_reader_in_another_stream_of_what_a_graph_writes(machine):
    data, seen = machine.device_tensor([-1]), machine.pinned([-1])
    writer, reader = machine.streams(2)
    graph = machine.capture(lambda: data.add_(1))
    graph.replay()  # the first replay also sends the graph to the GPU, and might wait for it
    machine.cuda.synchronize()
    with machine.cuda.stream(writer):
        machine.slow()
        graph.replay()
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    answer = seen.tolist()
    writer.synchronize()  # the graph must outlive its replay
    return answer


@pytest.mark.parametrize(("program", "slow_last", "slow_first"), RACES)
def test_a_race_comes_out_as_the_machine_decides(machine, program, slow_last, slow_first):
    possible = {"eager": [slow_first], "random": [slow_last, slow_first]}.get(machine.policy, [slow_last])
    assert program(machine) in possible


@pytest.mark.parametrize(("program", "slow_last", "slow_first"), RACES)
def test_seeds_find_both_ends_of_a_race(program, slow_last, slow_first):
    answers = [program(Machine(f"random-{seed}")) for seed in range(50)]
    assert slow_last in answers
    assert slow_first in answers


# --- graphs ---


def test_capturing_a_graph_runs_nothing(machine):
    data = machine.device_tensor([0])
    machine.capture(lambda: data.add_(1))
    machine.cuda.synchronize()
    assert data.tolist() == [0]
    assert machine.cuda.current_stream() == machine.cuda.default_stream()


def test_work_queued_before_a_capture_is_done_when_it_begins(machine):
    """torch.cuda.graph synchronizes first."""
    data, seen = machine.device_tensor([1]), machine.pinned([0])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("d2h", seen, data)
    machine.capture(lambda: data.add_(1))
    assert seen.tolist() == [1]


def test_every_replay_runs_all_of_the_graph_in_order(machine):
    data = machine.device_tensor([1])
    graph = machine.capture(lambda: data.add_(1), lambda: data.mul_(2))
    graph.replay()
    graph.replay()
    machine.cuda.synchronize()
    assert data.tolist() == [10]


def test_a_replay_reads_what_is_in_the_captured_tensors_now(machine):
    source, target, seen = *machine.device_tensor([[1], [0]]), machine.pinned([0])
    fresh = machine.pinned([7])
    graph = machine.capture(lambda: target.copy_(source))
    machine.compute(lambda: source.fill_(5))
    graph.replay()
    machine.copy("d2h", seen, target)
    machine.cuda.synchronize()
    assert seen.tolist() == [5]
    machine.copy("h2d", source, fresh)
    graph.replay()
    machine.copy("d2h", seen, target)
    machine.cuda.synchronize()
    assert seen.tolist() == [7]


def test_a_replay_takes_its_place_in_the_current_stream(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
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


def test_an_event_after_a_replay_covers_it(machine):
    data, seen = machine.device_tensor([0]), machine.pinned([0])
    writer, reader = machine.streams(2)
    graph = machine.capture(lambda: data.add_(1))
    with machine.cuda.stream(writer):
        machine.slow()
        graph.replay()
    reader.wait_event(writer.record_event())
    with machine.cuda.stream(reader):
        machine.copy("d2h", seen, data)
    reader.synchronize()
    assert seen.tolist() == [1]


def test_two_graphs_in_one_pool_keep_apart(machine):
    data = machine.device_tensor([1])
    pool = machine.cuda.graph_pool_handle()
    add = machine.capture(lambda: data.add_(3), pool=pool)
    double = machine.capture(lambda: data.mul_(2), pool=pool)
    add.replay()
    double.replay()
    add.replay()
    machine.cuda.synchronize()
    assert data.tolist() == [11]


def capture_the_default_stream(name: str) -> bool:
    """Whether it is refused."""
    machine = Machine(name)
    data = machine.device_tensor([0])
    try:
        with machine.cuda.graph(machine.cuda.CUDAGraph(), stream=machine.cuda.default_stream()):
            machine.compute(lambda: data.add_(1))
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_default_stream_cannot_be_captured(name):
    if name == "cuda":
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            assert process.submit(capture_the_default_stream, name).result()
    else:
        assert capture_the_default_stream(name)


def test_work_in_another_stream_is_not_captured(machine):
    data = machine.device_tensor([0])
    captured, other = machine.streams(2)
    graph = machine.cuda.CUDAGraph()
    with machine.cuda.graph(graph, stream=captured):
        machine.compute(lambda: data.add_(1))
        with machine.cuda.stream(other):
            machine.compute(lambda: data.add_(10))
    machine.cuda.synchronize()
    assert data.tolist() == [10]
    graph.replay()
    machine.cuda.synchronize()
    assert data.tolist() == [11]


def test_a_graph_never_captured_cannot_be_replayed(machine):
    with pytest.raises(RuntimeError):
        machine.cuda.CUDAGraph().replay()


WAITS = {
    "the device": lambda cuda, event: cuda.synchronize(),
    "the stream": lambda cuda, event: cuda.current_stream().synchronize(),
    "an event": lambda cuda, event: event.synchronize(),
    "an event of the capture": lambda cuda, event: cuda.current_stream().record_event().synchronize(),
}


def wait_while_capturing(name: str, what: str) -> bool:
    """Whether the wait is refused. The machine must still work afterwards."""
    machine = Machine(name)
    data, event = machine.device_tensor([0]), machine.cuda.current_stream().record_event()
    refused = False
    with suppress(RuntimeError), machine.cuda.graph(machine.cuda.CUDAGraph()):  # CUDA lets no spoilt capture end well
        machine.compute(lambda: data.add_(1))
        try:
            WAITS[what](machine.cuda, event)
        except (RuntimeError, Limit):  # what CUDA captures before it refuses, the simulator does not
            refused = True
    machine.cuda.synchronize()
    return refused


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_host_cannot_wait_while_a_graph_is_captured(name, what):
    if name == "cuda":
        # A process of its own: PyTorch does not put back the stream and the memory pool of a capture that failed.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            refused = process.submit(wait_while_capturing, name, what).result()
    else:
        refused = wait_while_capturing(name, what)
    assert refused
