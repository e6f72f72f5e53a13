"""A simulated GPU that answers to torch.cuda's names: single-threaded, deterministic, in virtual time.

The semantics are those of CUDA as PyTorch hands it out (CUDA C++ Programming Guide, "Asynchronous Concurrent
Execution"; torch.cuda's documentation), and tests/test_conformance.py holds both to the same programs. This file knows
streams, events and graphs; what they queue is in queues.py, and when that runs in policies.py.

One thing is stricter than CUDA: in a graph only compute work can be captured, no copies, records or waits.
"""

from __future__ import annotations  # SimulatedCuda has methods named like the classes they return

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..device import Work
from ..trace.spans import Trace
from .limits import Unknown
from .policies import Timed
from .queues import Cost, Observer, Operation, Policy, Queue, Queues


class Stream:
    """A queue of operations that run in order. Like PyTorch's, it and the default stream do not wait for each other.

    Attributes:
        priority: kept, and of no effect here: what runs when, a policy decides.
    """

    def __init__(self, cuda: SimulatedCuda, priority: int = 0):
        self.cuda, self.queue, self.priority = cuda, cuda.queues.new_queue(), priority

    def __enter__(self) -> Stream:
        self.cuda._current.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.cuda._current.pop()

    def __getattr__(self, name: str):
        raise Unknown(f"Stream.{name}")

    def wait_event(self, event: Event) -> None:
        """Holds this stream's later work until the record that `event` has *now* is done; never recorded: no-op."""
        self.cuda.not_while_capturing("wait for an event")
        self.cuda.queues.observer.waits(self.queue, event, event.latest)
        if event.latest is not None:
            self.cuda.queues.add(Operation(self.queue, "wait", self.cuda.now, after=event.latest))

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.cuda)
        event.record(self)
        return event

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        """Makes the host wait for everything queued here."""
        self.cuda.not_while_capturing("synchronize a stream")
        self.cuda.queues.wait_for_all(self.queue)

    def query(self) -> bool:
        """Whether everything queued here is done."""
        self.cuda.not_while_capturing("query a stream")
        return self.cuda.queues.look_at(self.queue.last)


class Event:
    """A marker in a stream. Recording again moves it; who waited for the earlier record still waits for that one.

    latest  its latest record; None before the first
    """

    def __init__(self, cuda: SimulatedCuda, enable_timing: bool = False):
        self.cuda, self.enable_timing = cuda, enable_timing
        self.latest: Operation | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.cuda.not_while_capturing("record an event")
        self.latest = Operation((stream or self.cuda.current_stream()).queue, "record", self.cuda.now)
        self.cuda.queues.add(self.latest)
        self.cuda.queues.observer.recorded(self, self.latest)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.cuda.current_stream()).wait_event(self)

    def synchronize(self) -> None:
        """Makes the host wait for the latest record; returns at once if there is none."""
        self.cuda.not_while_capturing("synchronize an event")
        self.cuda.queues.observer.waits(None, self, self.latest)
        if self.latest is not None:
            self.cuda.queues.wait_for(self.latest)

    def query(self) -> bool:
        """Whether the latest record is done; True if there is none."""
        self.cuda.not_while_capturing("query an event")
        return self.cuda.queues.look_at(self.latest)

    def __getattr__(self, name: str):
        raise Unknown(f"Event.{name}")

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event's record to `end`'s, on the device's clock."""
        if not (self.enable_timing and end.enable_timing):
            raise ValueError("both events must have been created with enable_timing=True")
        if self.latest is None or end.latest is None:
            raise ValueError("both events must have been recorded")
        if not (self.latest.done and end.latest.done):
            raise RuntimeError("both events must have completed")
        return (end.latest.end - self.latest.end) * 1e3


class CUDAGraph:
    """Captured device work. A replay runs the very same work: the same tensors, the same views.

    Attributes:
        captured: what to run, and how to ask what that takes the GPU; None before and after a failed capture.
        work: what the last of it was for.
        pool: stands for the memory that lies between its inputs and outputs; graphs can share it.
    """

    def __init__(self, cuda: SimulatedCuda):
        self.cuda = cuda
        self.captured: list[tuple[Callable[[], None], Callable[[], Cost]]] | None = None
        self.work: Work | None = None
        self.pool: object = None

    def __getattr__(self, name: str):
        raise Unknown(f"CUDAGraph.{name}")

    def replay(self) -> None:
        if self.captured is None:
            raise RuntimeError("the graph was replayed before it was captured")
        captured = list(self.captured)

        def run_all() -> None:
            self.cuda.queues.observer.replayed(self.pool)
            for run, _ in captured:
                run()

        self.cuda.submit(
            "replay",
            "compute",
            run_all,
            lambda: sum((cost() for _, cost in captured), Cost()),
            self.cuda.replay_seconds,
            work=self.work,
        )


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


class SimulatedCuda:
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
        self.queues = Queues(policy or Timed(), call_seconds, trace, observer)
        self.replay_seconds = replay_seconds
        self._capturing: CUDAGraph | None = None
        self._default = Stream(self)
        self._capture: Stream | None = None  # what is captured by default
        self._captured_queue: Queue | None = None
        self._current = [self._default]
        self.nvtx = Ranges()

    # --- the names of torch.cuda ---

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
        return self._current[-1]

    def set_stream(self, stream: Stream | None) -> None:
        """Makes it the current stream, until whoever has entered another one leaves that."""
        if stream is not None:
            self._current[-1] = stream

    @contextmanager
    def stream(self, stream: Stream | None):
        self._current.append(stream or self.current_stream())
        try:
            yield
        finally:
            self._current.pop()

    def is_current_stream_capturing(self) -> bool:
        return self._capturing is not None

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
            stream = self._capture = self._capture or Stream(self)
        self._captured_queue = stream.queue
        self._capturing, graph.captured, graph.pool = graph, [], pool or object()
        try:
            with self.stream(stream):
                yield
        except BaseException:
            graph.captured = None  # half a capture is none
            raise
        finally:
            self._capturing = None

    def synchronize(self, device: object = None) -> None:
        """Makes the host wait for all streams."""
        self.not_while_capturing("synchronize the device")
        self.queues.drain()

    # --- what torch.cuda has no names for ---

    @property
    def now(self) -> float:
        """The host's virtual clock, in seconds."""
        return self.queues.now

    @property
    def finished(self) -> list[Operation]:
        """The work that has run, in order of completion."""
        return self.queues.finished

    def submit(
        self,
        what: str,
        engine: str,
        run: Callable[[], None],
        cost: Callable[[], Cost] = Cost,
        launch_seconds: float = 0.0,
        gradual: bool = False,
        wait: bool = False,
        work: Work | None = None,
        graph_cost: Callable[[], Cost] | None = None,
    ) -> None:
        """Queues device work on the current stream.

        Args:
            what: a name, for traces.
            engine: "h2d", "compute" or "d2h".
            run: what it does when it completes.
            cost: what it takes the engine; asked when it is queued, so each time a graph is replayed.
            graph_cost: what it takes as part of a graph; by default the same.
            launch_seconds: what queueing it costs the host.
            gradual: it is many kernels, and may start with the first but cannot end before the last is launched.
            wait: the host waits until it is done.
            work: what it is for.
        """
        if self._capturing is not None and (wait or self.current_stream().queue is self._captured_queue):
            if engine != "compute" or wait:
                raise RuntimeError(f"{what!r} cannot be captured in a graph")
            self._capturing.captured.append((run, graph_cost or cost))
            self._capturing.work = work
            return
        queues, begin = self.queues, self.now
        queues.now += launch_seconds
        issued = begin if gradual else self.now
        queue = self.current_stream().queue
        operation = Operation(queue, what, issued, engine, run, cost(), launched=self.now, work=work)
        if queues.trace is not None and self.now > begin:
            queues.trace.add("CPU", what, begin, self.now, operation.batch_number, operation.slot)
        queues.add(operation)
        if wait:
            queues.wait_for(operation)

    def host(self, seconds: float) -> None:
        """The host has been busy for `seconds`."""
        self.queues.now += seconds
        self.queues.run()

    def not_while_capturing(self, what: str) -> None:
        """Raises RuntimeError if a graph is being captured: CUDA would invalidate the capture."""
        if self._capturing is not None:
            raise RuntimeError(f"cannot {what} while a graph is being captured")
