"""A simulated GPU that answers to torch.cuda's names: single-threaded, deterministic, in virtual time.

The semantics are those of CUDA as PyTorch hands it out (CUDA C++ Programming Guide, "Asynchronous Concurrent
Execution"; torch.cuda's documentation), and tests/sim/test_conformance.py holds both to the same programs. This file
has the names; what streams, events and graphs do is in streams.py, what is queued in operations.py, and when it runs in
queues.py and policies.py.
"""

from __future__ import annotations  # SimulatedCuda has methods named like the classes they return

from collections.abc import Iterator
from contextlib import contextmanager

from ..trace.spans import Trace
from .limits import Unknown
from .machine import Capture, Machine
from .operations import Observer
from .policies import Timed
from .queues import Policy, Queues
from .streams import CUDAGraph, Event, Stream


class Ranges:
    """Stands in for torch.cuda.nvtx: names for a profiler, and there is none."""

    def range_push(self, text: str) -> int:
        return 0

    def range_pop(self) -> int:
        return 0

    def mark(self, text: str) -> None:
        pass

    @contextmanager
    def range(self, text: str, *args: object, **kwargs: object) -> Iterator[None]:
        yield


class SimulatedCuda(Machine):
    """Stands in for the module torch.cuda.

    Attributes:
        nvtx: as torch.cuda has it; of no effect.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        replay_seconds: float = 0.0,
        call_seconds: float = 0.0,
        trace: Trace | None = None,
        observer: Observer | None = None,
    ):
        """
        Args:
            policy: see Queues; Timed by default.
            replay_seconds: host time to launch a graph.
            call_seconds: see Queues.
            trace: see Queues.
            observer: see Queues.
        """
        super().__init__(Queues(policy or Timed(), call_seconds, trace, observer), replay_seconds)
        self._default = Stream(self)
        self._captured: Stream | None = None  # which stream is captured by default
        self.current.append(self._default)
        self.nvtx = Ranges()

    def Stream(self, device: object = None, priority: int = 0) -> Stream:
        return Stream(self, priority)

    def Event(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> Event:
        """How the host waits (`blocking`), and for whom an event is (`interprocess`), changes nothing here."""
        return Event(self, enable_timing)

    def __getattr__(self, name: str):
        raise Unknown(name)

    def CUDAGraph(self) -> CUDAGraph:
        return CUDAGraph(self)

    def graph_pool_handle(self) -> object:
        return object()

    def default_stream(self, device: object = None) -> Stream:
        return self._default

    def current_stream(self, device: object = None) -> Stream:
        return self.current[-1]

    def set_stream(self, stream: Stream | None) -> None:
        """Makes it the current stream, until whoever has entered another one leaves that."""
        if stream is not None:
            self.current[-1] = stream

    @contextmanager
    def stream(self, stream: Stream | None):
        self.current.append(stream or self.current_stream())
        try:
            yield
        finally:
            self.current.pop()

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    @contextmanager
    def graph(self, graph: CUDAGraph, pool: object = None, stream: Stream | None = None):
        """Work submitted inside to the stream is captured, not run; what is submitted to another one runs. Like
        torch.cuda.graph, it begins with a synchronize, and by default captures a stream that is there for that alone.

        Raises:
            RuntimeError: it is the default stream, which CUDA cannot capture.
        """
        self.synchronize()
        if stream is self._default:
            raise RuntimeError("operation not permitted: CUDA cannot capture the default stream; give another, or none")
        if stream is None:
            stream = self._captured = self._captured or Stream(self)
        self.capture, graph.captured, graph.pool = Capture(stream.queue), None, pool or object()
        try:
            with self.stream(stream):
                yield
            graph.captured = self.capture  # half a capture is none
        finally:
            self.capture = None

    def synchronize(self, device: object = None) -> None:
        """Makes the host wait for all streams."""
        self.no_wait_in_capture("synchronize the device")
        self.queues.drain()
