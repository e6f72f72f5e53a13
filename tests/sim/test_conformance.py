"""The simulated GPU and the real one run the same small programs, and the same must hold for both.

There are two kinds of programs. In one kind streams, events and waits fix the answer, on every machine. In the other
nothing orders a slow piece of work and whoever looks at its result: a race. A GPU may answer a race either way, so
there the slow work is slow enough to come last; on the simulator the policy decides.
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
from acb_minimal.sim.operations import Cost, Limit
from acb_minimal.sim.policies import named

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

    Tensors are made before a program begins: an allocation can make the GPU wait.

    Attributes:
        data: on the device: [0].
        seen: pinned: [-1].
    """

    def __init__(self, name: str):
        self.policy, _, seed = name.partition("-")
        self.real = self.policy == "cuda"
        if self.real:
            load_real_kernels()
        self.device = CudaDevice() if self.real else SimulatedDevice(COSTS, named(self.policy, int(seed or 0)))
        self.cuda = self.device.cuda
        self.data, self.seen = self.device_tensor([0]), self.pinned([-1])

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

    def write(self, stream) -> None:
        """In that stream: slow work, and then data is 1."""
        with self.cuda.stream(stream):
            self.slow()
            self.compute(lambda: self.data.fill_(1))

    def read(self, stream) -> list[int]:
        """Copies data to the host in that stream, and waits for it: what has arrived."""
        with self.cuda.stream(stream):
            self.copy("d2h", self.seen, self.data)
        stream.synchronize()
        return self.seen.tolist()

    def capture(self, *works, pool=None):
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph, pool=pool):
            for work in works:
                self.compute(work)
        return graph


SIMULATED = ["timed", "lazy", "eager", *(f"random-{seed}" for seed in range(8))]
EVERYWHERE = [*SIMULATED, pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=EVERYWHERE)
def machine(request):
    machine = Machine(request.param)
    yield machine
    machine.cuda.synchronize()


def in_a_process_of_its_own(run, name: str, *args):
    """What `run` says of a machine: on a GPU in a process of its own, for PyTorch does not put back the stream and the
    memory pool of a capture that failed."""
    if name != "cuda":
        return run(name, *args)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(run, name, *args).result()


# --- what is ordered ---


def test_a_stream_runs_its_operations_in_order(machine):
    data, source, seen = machine.data, machine.pinned([3]), machine.seen
    for stream in [*machine.streams(1), machine.cuda.default_stream()]:
        with machine.cuda.stream(stream):
            machine.slow()
            machine.copy("h2d", data, source)
            machine.compute(lambda: data.add_(1))
            machine.compute(lambda: data.mul_(2))
            machine.copy("d2h", seen, data)
            machine.compute(lambda: data.fill_(0))
        stream.synchronize()
        assert (seen.tolist(), data.tolist()) == ([8], [0])


def by_record_and_wait_event(cuda, first, then):
    event = cuda.Event()
    event.record(first)
    then.wait_event(event)


def by_the_current_stream(cuda, first, then):
    event = cuda.Event()
    with cuda.stream(first):
        event.record()
    with cuda.stream(then):
        event.wait()


def by_record_event_of_an_event(cuda, first, then):
    event = cuda.Event()
    assert first.record_event(event) is event
    then.wait_event(event)


ORDERS = {
    "record, wait_event": by_record_and_wait_event,
    "in the current stream": by_the_current_stream,
    "record_event of an event": by_record_event_of_an_event,
    "record_event": lambda cuda, first, then: then.wait_event(first.record_event()),
    "wait": lambda cuda, first, then: first.record_event().wait(then),
    "wait_stream": lambda cuda, first, then: then.wait_stream(first),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_record_and_a_wait_order_two_streams(machine, order):
    writer, reader = machine.streams(2)
    machine.write(writer)
    ORDERS[order](machine.cuda, writer, reader)
    assert machine.read(reader) == [1]


def test_order_carries_over_from_wait_to_wait(machine):
    """A batch goes through three streams; the download waits for the upload without naming it."""
    source, (data, result) = machine.pinned([3]), machine.device_tensor([[0], [0]])
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
        machine.copy("d2h", machine.seen, result)
    d2h.synchronize()
    assert machine.seen.tolist() == [6]


def test_an_event_recorded_again_elsewhere_still_holds_who_waited_before(machine):
    writer, reader, idle = machine.streams(3)
    event = machine.cuda.Event()
    machine.write(writer)
    event.record(writer)
    reader.wait_event(event)
    event.record(idle)  # would release the reader at once if it waited for the event and not for the record
    assert machine.read(reader) == [1]


@pytest.mark.parametrize("what", ["an event, for its latest record", "a stream, for all that is in it"])
def test_synchronizing_waits_for(machine, what):
    (stream,) = machine.streams(1)
    event = stream.record_event()
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", machine.seen, machine.data)
        event.record()
    (event if "event" in what else stream).synchronize()
    assert machine.seen.tolist() == [1]


def test_synchronizing_the_device_waits_for_all_streams(machine):
    seen = [machine.pinned([0]) for _ in range(3)]
    for stream, target in zip([machine.cuda.default_stream(), *machine.streams(2)], seen, strict=True):
        machine.write(stream)
        with machine.cuda.stream(stream):
            machine.copy("d2h", target, machine.data)
    machine.cuda.synchronize()
    assert [target.tolist() for target in seen] == [[1], [1], [1]]


def test_nothing_waits_for_an_event_never_recorded(machine):
    (stream,) = machine.streams(1)
    event = machine.cuda.Event()
    assert event.query()
    event.synchronize()
    stream.wait_event(event)
    event.wait(stream)
    assert machine.read(stream) == [0]
    assert event.query()


@pytest.mark.parametrize("how", ["blocking", "pageable", "synchronized"])
def test_the_source_of_an_upload_may_be_overwritten_once_the_host_knows(machine, how):
    """The driver copies pageable memory to a buffer of its own before the call returns."""
    source = machine.pageable([1]) if how == "pageable" else machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", machine.data, source, non_blocking=how != "blocking")
    if how == "synchronized":
        stream.synchronize()
    source.fill_(2)
    stream.synchronize()
    assert machine.data.tolist() == [1]


@pytest.mark.parametrize("how", ["blocking", "pageable"])
def test_a_download_is_there_once_the_host_knows(machine, how):
    """Of a non-blocking one to pageable memory nothing is promised before: CUDA says it *might* make the host wait."""
    seen = machine.pageable([0]) if how == "pageable" else machine.seen
    (stream,) = machine.streams(1)
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", seen, machine.data, non_blocking=how != "blocking")
    if how == "pageable":
        stream.synchronize()
    assert seen.tolist() == [1]


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


def test_streams_and_events_are_of_classes_that_can_be_subclassed(machine):
    class Counting(machine.cuda.Event):
        records = 0

        def record(self, stream=None):
            self.records += 1
            super().record(stream)

    writer, reader = machine.streams(2)
    event = Counting()
    machine.write(writer)
    event.record(writer)
    reader.wait_event(event)
    assert machine.read(reader) == [1]
    assert (event.records, event.query()) == (1, True)
    assert isinstance(writer, machine.cuda.Stream)
    assert isinstance(writer.record_event(), machine.cuda.Event)
    assert not isinstance(writer, machine.cuda.Event)


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
    writer, reader = machine.streams(2)
    machine.write(writer)
    return machine.read(reader)


@race(slow_last=[0], slow_first=[1])
def a_reader_in_a_side_stream_of_what_the_default_stream_writes(machine):
    machine.write(machine.cuda.default_stream())
    return machine.read(*machine.streams(1))


@race(slow_last=[0], slow_first=[1])
def a_wait_for_an_event_not_recorded_yet(machine):
    writer, reader = machine.streams(2)
    event = machine.cuda.Event()
    reader.wait_event(event)
    machine.write(writer)
    event.record(writer)
    return machine.read(reader)


@race(slow_last=[0], slow_first=[1])
def a_wait_for_the_record_before_the_one_that_matters(machine):
    writer, reader = machine.streams(2)
    event = writer.record_event()
    reader.wait_event(event)
    machine.write(writer)
    event.record(writer)
    return machine.read(reader)


@race(slow_last=False, slow_first=True)
def work_queued_before_a_wait(machine):
    """The wait holds up what comes after it only: the host gets past `before` while `slow` is not done."""
    writer, reader = machine.streams(2)
    machine.write(writer)
    slow = writer.record_event()
    before = reader.record_event()
    reader.wait_event(slow)
    before.synchronize()
    return slow.query()


@race(slow_last=[-1], slow_first=[1])
def a_download_the_host_does_not_wait_for(machine):
    (stream,) = machine.streams(1)
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", machine.seen, machine.data)
    return machine.seen.tolist()


@race(slow_last=[-1], slow_first=[1])
def a_download_after_the_event_the_host_waits_for(machine):
    (stream,) = machine.streams(1)
    event = stream.record_event()
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", machine.seen, machine.data)
    event.synchronize()
    return machine.seen.tolist()


@race(slow_last=[2], slow_first=[1])
def a_source_overwritten_after_a_non_blocking_upload(machine):
    """The copy reads its source when it runs, not when it is called."""
    source = machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", machine.data, source)
    source.fill_(2)
    stream.synchronize()
    return machine.data.tolist()


@race(slow_last=False, slow_first=True)
def a_query_of_an_event_behind_slow_work(machine):
    (stream,) = machine.streams(1)
    machine.write(stream)
    return stream.record_event().query()


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


def test_a_graph_never_captured_has_nothing_to_replay_and_no_pool(machine):
    for ask in (machine.cuda.CUDAGraph().replay, machine.cuda.CUDAGraph().pool):
        with pytest.raises(RuntimeError):
            ask()


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
