"""The names of torch.cuda, on the simulated GPU.

The semantics are those of CUDA as PyTorch hands it out (CUDA C++ Programming Guide, "Asynchronous Concurrent
Execution"; torch.cuda's documentation), and tests/sim/test_conformance.py holds both to the same programs. What lies
behind the names is in simulator.py.
"""

from __future__ import annotations  # Stream and Event know each other, and SimulatedCuda has attributes of their names

from contextlib import contextmanager
from typing import Any

import torch

from .operations import Captured, Cost, Limit, Operation
from .simulator import Simulator


class Unknown(Limit, AttributeError):
    """A name that torch.cuda has, and the simulator has not."""


class Named:
    """What has names of torch's. To ask for one that is missing meets a limit of the simulator; for one that torch does
    not have either, it is a mistake, as on a GPU."""

    torchs: Any  # torch's own
    more: tuple[str, ...] = ()  # names of torch's own that a build for CPUs does not have

    def __getattr__(self, name: str):
        where = "torch.cuda" if self.torchs is torch.cuda else f"torch.cuda.{self.torchs.__name__}"
        if hasattr(self.torchs, name) or name in self.more:
            raise Unknown(f"the simulator has no {where}.{name}")
        raise AttributeError(f"{where} has no attribute {name!r}")


class Stream(Named):
    """A queue of operations that run in order. Like PyTorch's, it and the default stream do not wait for each other.

    Like Event and CUDAGraph it is made, and can be subclassed, as an attribute of a SimulatedCuda. A priority is of no
    effect: what runs when, a policy decides.
    """

    torchs, more = torch.cuda.Stream, ("cuda_stream", "device", "device_index", "device_type", "stream_id")
    _cuda: SimulatedCuda
    _simulator: Simulator

    def __new__(cls, device: object = None, priority: int = 0):
        stream = super().__new__(cls)
        stream._queue = cls._simulator.new_queue(stream)
        return stream

    def __enter__(self) -> Stream:
        self._simulator.current.append(self._queue)
        return self

    def __exit__(self, *error: object) -> None:
        self._simulator.current.pop()

    def wait_event(self, event: Event) -> None:
        """Holds this stream's later work until the record that `event` has *now* is done; never recorded: no-op."""
        self._simulator.none_in_capture("make a stream wait for an event")
        self._simulator.observer.waits(self._queue, event, event._latest)
        if event._latest is not None:
            self._simulator.add(Operation(self._queue, "wait", self._simulator.now, after=event._latest))

    def record_event(self, event: Event | None = None) -> Event:
        event = event or self._cuda.Event()
        event.record(self)
        return event

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        """Makes the host wait for everything queued here."""
        self._simulator.no_wait_in_capture("synchronize a stream")
        self._simulator.drain(self._queue)

    def query(self) -> bool:
        """Whether everything queued here is done."""
        self._simulator.none_in_capture("query a stream")
        return self._simulator.look_at(self._queue.last)


class Event(Named):
    """A marker in a stream. Recording again moves it; who waited for the earlier record still waits for that one."""

    torchs, more = torch.cuda.Event, ("cuda_event", "device")
    _cuda: SimulatedCuda
    _simulator: Simulator

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        """Whether it can be timed, how the host waits for it, and for whom it is, changes nothing here."""
        event = super().__new__(cls)
        event._latest: Operation | None = None  # the latest record
        return event

    def record(self, stream: Stream | None = None) -> None:
        self._simulator.none_in_capture("record an event")
        queue = (stream or self._cuda.current_stream())._queue
        self._latest = Operation(queue, "record", self._simulator.now)
        self._simulator.add(self._latest)
        self._simulator.observer.recorded(self, self._latest)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self._cuda.current_stream()).wait_event(self)

    def synchronize(self) -> None:
        """Makes the host wait for the latest record; returns at once if there is none."""
        self._simulator.no_wait_in_capture("synchronize an event")
        self._simulator.observer.waits(None, self, self._latest)
        if self._latest is not None:
            self._simulator.wait_for(self._latest)

    def query(self) -> bool:
        """Whether the latest record is done; True if there is none."""
        self._simulator.none_in_capture("query an event")
        return self._simulator.look_at(self._latest)


class CUDAGraph(Named):
    """Captured device work. A replay runs the very same work: the same tensors, the same views."""

    torchs = torch.cuda.CUDAGraph
    _cuda: SimulatedCuda
    _simulator: Simulator

    def __new__(cls, keep_graph: bool = False):
        graph = super().__new__(cls)
        graph._parts: list[Captured] | None = None  # of a capture that went well
        graph._pool: object = None
        return graph

    def pool(self) -> object:
        """The memory that lies between its inputs and outputs; graphs can share it."""
        if self._pool is None:
            raise RuntimeError("the graph was asked for its pool before it was captured")
        return self._pool

    def replay(self) -> None:
        self._simulator.none_in_capture("replay a graph")
        if self._parts is None:
            raise RuntimeError("the graph was replayed before it was captured")
        parts, pool = self._parts, self._pool

        def run() -> None:
            self._simulator.observer.replayed(pool)
            for part in parts:
                part.run()

        cost = lambda: sum((part.cost() for part in parts), Cost())  # noqa: E731
        work = parts[-1].work if parts else None
        self._simulator.submit("replay", "compute", run, cost, self._simulator.replay_seconds, work=work)


class SimulatedCuda(Named):
    """Stands in for the module torch.cuda. The classes in it are its own: what they make is of this GPU."""

    torchs = torch.cuda

    def __init__(self, simulator: Simulator):
        self._simulator = simulator
        mine = {"_cuda": self, "_simulator": simulator}
        self.Stream, self.Event, self.CUDAGraph = (
            type(kind.__name__, (kind,), mine) for kind in (Stream, Event, CUDAGraph)
        )
        self._default: Stream = self.Stream()
        self._captured: Stream | None = None  # which stream is captured by default
        simulator.current.append(self._default._queue)

    def default_stream(self, device: object = None) -> Stream:
        return self._default

    def current_stream(self, device: object = None) -> Stream:
        return self._simulator.current[-1].stream

    def set_stream(self, stream: Stream | None) -> None:
        """Makes it the current stream, until whoever has entered another one leaves that."""
        if stream is not None:
            self._simulator.current[-1] = stream._queue

    @contextmanager
    def stream(self, stream: Stream | None):
        with stream or self.current_stream():
            yield

    def synchronize(self, device: object = None) -> None:
        """Makes the host wait for all streams."""
        self._simulator.no_wait_in_capture("synchronize the device")
        self._simulator.drain()

    def graph_pool_handle(self) -> object:
        return object()

    def is_current_stream_capturing(self) -> bool:
        return self._simulator.capturing is self._simulator.current[-1]

    @contextmanager
    def graph(
        self,
        cuda_graph: CUDAGraph,
        pool: object = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
    ):
        """Work submitted inside to the stream is captured, not run; what is submitted to another one runs. Like
        torch.cuda.graph, it begins with a synchronize, and by default captures a stream that is there for that alone.
        Which calls of other threads CUDA objects to (`capture_error_mode`) makes no difference: there is one thread.

        Raises:
            RuntimeError: it is the default stream, which CUDA cannot capture.
        """
        simulator = self._simulator
        self.synchronize()
        if stream is None:
            stream = self._captured = self._captured or self.Stream()
        if stream is self._default:
            raise RuntimeError("operation not permitted: CUDA cannot capture the default stream; give another, or none")
        with stream:
            simulator.capturing, simulator.captured = stream._queue, []
            cuda_graph._parts, cuda_graph._pool = None, pool or object()
            try:
                yield
                cuda_graph._parts = simulator.captured
            finally:
                simulator.capturing = None  # half a capture is none
