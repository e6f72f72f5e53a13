"""Beliefs about streams, copies, events and graphs, each put to the test: the figures of the page "Myths and traps".

Every experiment takes a device and returns a table. Its title is the belief, in the words of someone who holds it; its
rows are the cases. Those in this file run on a CUDA GPU and on the simulated one alike. What only a GPU can decide is
in myths_cuda.py. Each leaves the device with nothing to do.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch

from ..run.timed import Machine
from ..sim.device import SimulatedDevice
from ..sim.operations import Cost
from .metrics import environment
from .result_table import ResultTable

CYCLES = 1.8e9  # of a GPU in a second, or nearly so: how long a Sleep really took is measured


class Sleep:
    """Machine work that does nothing: each call queues it on the current stream.

    Attributes:
        seconds: about how long it takes.
        start: an event, recorded in front of it by each call.
        end: an event, recorded behind it by each call.
    """

    def __init__(self, device: Machine, seconds: float = 0.05):
        self.device, self.seconds = device, seconds
        self.start, self.end = (device.cuda.Event(enable_timing=True) for _ in range(2))

    def __call__(self) -> None:
        self.start.record()
        if isinstance(self.device, SimulatedDevice):
            self.device.cuda.submit("sleep", "compute", lambda: None, lambda: Cost(self.seconds))
        else:
            torch.cuda._sleep(int(self.seconds * CYCLES))
        self.end.record()

    @property
    def ms(self) -> float:
        """Milliseconds that the latest one took, once it is done."""
        return self.start.elapsed_time(self.end)


def kernel(device: Machine, run: Callable[[], object]) -> None:
    """Launches `run`, some small computation, on the current stream."""
    if isinstance(device, SimulatedDevice):
        device.cuda.submit("kernel", "compute", run)
    else:
        run()


def rows(run: Callable[..., list], cases: Iterable[tuple]) -> list[list]:
    """What `run` returns for each case, its arguments, the second time: the first time, a GPU loads what it runs."""
    return [[run(*case) for _ in range(2)][1] for case in cases]


def outcome(right: bool) -> str:
    """For a table: what came of an experiment that goes right or wrong."""
    return "right" if right else "wrong"


def default_stream(device: Machine) -> ResultTable:
    """How long a small copy takes to arrive while a slow kernel runs, in the same stream and in another."""
    cuda, sleep = device.cuda, Sleep(device)
    streams = {"the default stream": cuda.default_stream(), "a side stream": cuda.Stream()}
    target, origin = torch.zeros(1, dtype=torch.int32, device=device.torch_device), device.pinned(1)

    def run(slow: str, copying: str) -> list:
        cuda.synchronize()
        with cuda.stream(streams[slow]):
            sleep()
        start = device.clock()
        with cuda.stream(streams[copying]):
            device.copy("h2d", target, origin, True)
            copied = cuda.current_stream().record_event()
        copied.synchronize()
        arrived = device.clock() - start
        cuda.synchronize()
        return [slow, copying, sleep.ms, 1e3 * arrived]

    default, side = streams
    cases = (default, default), (side, side), (default, side), (side, default)
    columns = {"slow kernel in": "", "copy in": "", "slow kernel, ms": ".1f", "copy arrives after, ms": ".3g"}
    note = "The copy is issued right after the slow kernel. A copy that is held up arrives when that kernel is done."
    title = "Work in the default stream holds up all other streams."
    return ResultTable(title, columns, rows(run, cases), note, environment(device))


def pageable_copies(device: Machine, megabytes: int = 64) -> ResultTable:
    """How long a "non-blocking" upload holds the host, from pinned memory and from ordinary, pageable memory.

    Args:
        device: what to copy to.
        megabytes: to copy, of 1,000,000 bytes.
    """
    numel = megabytes * 250_000
    target = torch.zeros(numel, dtype=torch.int32, device=device.torch_device)
    origins = {"pinned": device.pinned(numel), "pageable": torch.zeros(numel, dtype=torch.int32)}

    def run(name: str) -> list:
        device.cuda.synchronize()
        start = device.clock()
        device.copy("h2d", target, origins[name], True)
        held = device.clock() - start
        device.cuda.synchronize()
        return [name, megabytes, 1e3 * held, 1e3 * (device.clock() - start)]

    columns = {"host memory": "", "MB": "d", "host held for, ms": ".3g", "copy done after, ms": ".3g"}
    note = "Both copies are called with non_blocking=True, while the device has nothing else to do."
    title = "non_blocking=True means that the host does not wait."
    return ResultTable(title, columns, rows(run, [(name,) for name in origins]), note, environment(device))


ORDERS = (
    ("wait_event", "write", "record", "read"),
    ("write", "record", "wait_event", "read"),
    ("record", "wait_event", "write", "record", "read"),
    ("record", "write", "record", "wait_event", "read"),
)


def unrecorded_event(device: Machine) -> ResultTable:
    """What a stream reads that waits for another one's event, by the order in which the host makes the calls."""
    cuda, sleep = device.cuda, Sleep(device)
    writer, reader = cuda.Stream(), cuda.Stream()
    data, seen = torch.zeros(1, dtype=torch.int32, device=device.torch_device), device.pinned(1)

    def run(*order: str) -> list:
        event = cuda.Event()

        def write() -> None:
            with cuda.stream(writer):
                sleep()
                kernel(device, partial(data.fill_, 1))

        def read() -> None:
            with cuda.stream(reader):
                device.copy("d2h", seen, data, True)

        calls = {
            "write": write,
            "record": partial(event.record, writer),
            "wait_event": partial(reader.wait_event, event),
            "read": read,
        }
        data.zero_()
        cuda.synchronize()
        for call in order:
            calls[call]()
        cuda.synchronize()
        return [", ".join(order), sleep.ms, seen.item(), outcome(seen.item() == 1)]

    columns = {"calls, in order": "", "slow work, ms": ".1f", "value read": "d", "outcome": ""}
    note = (
        "write puts 1 in the place of 0, behind slow work. write and record are calls on one stream, wait_event and "
        "read on another; there is one event."
    )
    title = "wait_event waits until the event is recorded."
    return ResultTable(title, columns, rows(run, ORDERS), note, environment(device))


# Where the host writes the second batch: in words, whether it waits for the first one's copy, which of two buffers.
BUFFERS = (
    ("the same buffer, at once", False, 0),
    ("the same buffer, after waiting for an event behind the copy", True, 0),
    ("a second buffer, at once", False, 1),
)


def reused_pinned_buffer(device: Machine) -> ResultTable:
    """What arrives of two batches when the host writes the second while the first one's copy is still queued."""
    cuda, sleep, stream = device.cuda, Sleep(device), device.cuda.Stream()
    buffers = [device.pinned(1) for _ in range(2)]
    targets = [torch.zeros(1, dtype=torch.int32, device=device.torch_device) for _ in range(2)]

    def run(where: str, waits: bool, second: int) -> list:
        buffers[0].fill_(1)
        with cuda.stream(stream):
            sleep()
            device.copy("h2d", targets[0], buffers[0], True)
            copied, issued = stream.record_event(), device.clock()
            if waits:
                copied.synchronize()
            buffers[second].fill_(2)
            held = device.clock() - issued
            device.copy("h2d", targets[1], buffers[second], True)
        cuda.synchronize()
        arrived = [target.item() for target in targets]
        return [where, sleep.ms, 1e3 * held, "1, 2", f"{arrived[0]}, {arrived[1]}", outcome(arrived == [1, 2])]

    columns = {"second batch goes into": "", "slow work, ms": ".1f", "second written after, ms": ".3g"}
    columns |= {"sent": "", "arrived": "", "outcome": ""}
    note = (
        "A batch is one number. Both copies are non-blocking, from pinned memory, in one stream, behind slow work. The "
        "second batch is written so long after the first one's copy was issued."
    )
    title = "After a non_blocking copy has been issued, the host buffer is free again."
    return ResultTable(title, columns, rows(run, BUFFERS), note, environment(device))


def graph_addresses(device: Machine) -> ResultTable:
    """What a captured y = x + n computes when its variables are bound anew, and when its tensor is written."""
    cuda, seen = device.cuda, device.pinned(1)
    old, new, y = (torch.tensor([value], dtype=torch.int32, device=device.torch_device) for value in (1, 10, 0))
    x, n = old, 1

    def add() -> None:
        # Arguments are bound here, as a launch of a kernel binds them. A function that looked up x when it is replayed
        # would make the belief come true on the simulator.
        kernel(device, partial(torch.add, x, n, out=y))

    add()
    cuda.synchronize()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        add()
    found = []

    def replay(what: str) -> None:
        graph.replay()
        device.copy("d2h", seen, y, False)
        expected = (x + n).item()
        found.append([what, expected, seen.item(), outcome(seen.item() == expected)])

    replay("nothing: x holds 1, n is 1")
    x = new
    replay("x = another tensor, which holds 10")
    x, n = old, 5
    replay("x = the first tensor again, n = 5")
    n = 1
    old.copy_(new)
    cuda.synchronize()
    replay("n = 1 again, 10 copied into the first tensor")
    columns = {"since the capture": "", "x + n in Python": "d", "y by the graph": "d", "outcome": ""}
    note = "The graph was captured once, as y = x + n, and replayed once for each row. All tensors are kept alive."
    title = "A captured graph reads its Python variables."
    return ResultTable(title, columns, found, note, environment(device))


EXPERIMENTS = (default_stream, pageable_copies, unrecorded_event, reused_pinned_buffer, graph_addresses)
