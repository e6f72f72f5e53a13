"""A simulated GPU that answers to torch.cuda's names: single-threaded, deterministic, in virtual time.

A stream is a queue of operations in order. One engine copies to the device, one computes, one copies back; the three
run side by side, each takes what is ready first. Work is ordinary Python over CPU tensors that stand for device
memory, and an operation has its effect when it *completes*: whoever looks at its target too early sees the old
content, and whoever overwrites its source too early corrupts it. That is the latest moment at which hardware may do
either, and so the one at which a missing wait hurts most.

When queued operations run is the policy:

    timed   in order of virtual time: durations come from a cost model (costs.py). Its figures are simulated figures.
    eager   as soon as nothing holds them back
    lazy    not before the host waits for them, and then only those it waits for
    random  any of those that are ready, at any point where the host calls in; the seed picks the schedule

The semantics are those of CUDA as PyTorch hands it out (CUDA C++ Programming Guide, "Asynchronous Concurrent
Execution"; torch.cuda's documentation), and tests/test_conformance.py holds both to the same programs.
"""

from __future__ import annotations  # SimulatedCuda has methods named like the classes they return

import random
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager

from .trace import ENGINES, Trace

POLICIES = ("timed", "lazy", "eager", "random")


class Operation:
    """Something in a stream's queue: work for an engine, the record of an event, or the wait for one.

    engine    "h2d", "compute", "d2h"; None for records and waits, which take no time
    work      what it does when it completes
    seconds   how long the engine is busy with it
    issued    when the host began to issue it; it cannot start earlier
    launched  when the host had issued all of it; it cannot end earlier
    after     for a wait: the record it waits for
    tag       what the work is for, with the `batch` number and slot `name` that traces show
    """

    def __init__(
        self, stream, what, engine=None, work=None, seconds=0.0, issued=0.0, launched=0.0, after=None, tag=None
    ):
        self.stream, self.what, self.engine, self.work, self.seconds = stream, what, engine, work, seconds
        self.issued, self.launched, self.after = issued, launched, after
        # Read now: by the time the work runs, the slot may have been written for another batch.
        self.batch, self.slot = (tag.batch, tag.name) if tag is not None else (None, None)
        self.number = stream.cuda._next_number()
        self.start: float | None = None
        self.end: float | None = None
        self.done = False


class Stream:
    """A queue of operations that run in order. Like PyTorch's, it and the default stream do not wait for each other."""

    def __init__(self, cuda: SimulatedCuda):
        self.cuda = cuda
        self.queue: deque[Operation] = deque()
        self.time = 0.0  # when its last finished operation completed
        cuda._streams.append(self)

    def wait_event(self, event: Event) -> None:
        """Holds this stream's later work until the record that `event` has *now* is done; never recorded: no-op."""
        self.cuda._may_not_be_capturing("wait for an event")
        if event._record is not None:
            self.cuda._enqueue(Operation(self, "wait", after=event._record, issued=self.cuda.now))

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.cuda)
        event.record(self)
        return event

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        """Makes the host wait for everything queued here."""
        self.cuda._may_not_be_capturing("synchronize a stream")
        if self.queue:
            self.cuda._wait_for(self.queue[-1])

    def query(self) -> bool:
        """Whether everything queued here is done."""
        return self.cuda._look_at(self.queue[-1] if self.queue else None)


class Event:
    """A marker in a stream. Recording again moves it; who waited for the earlier record still waits for that one."""

    def __init__(self, cuda: SimulatedCuda, enable_timing: bool = False):
        self.cuda, self.enable_timing = cuda, enable_timing
        self._record: Operation | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.cuda._may_not_be_capturing("record an event")
        stream = stream or self.cuda.current_stream()
        self._record = Operation(stream, "record", issued=self.cuda.now)
        self.cuda._enqueue(self._record)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.cuda.current_stream()).wait_event(self)

    def synchronize(self) -> None:
        """Makes the host wait for the latest record; returns at once if there is none."""
        self.cuda._may_not_be_capturing("synchronize an event")
        if self._record is not None:
            self.cuda._wait_for(self._record)

    def query(self) -> bool:
        """Whether the latest record is done; True if there is none."""
        return self.cuda._look_at(self._record)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event's record to `end`'s, on the device's clock."""
        if not (self.enable_timing and end.enable_timing):
            raise ValueError("both events must have been created with enable_timing=True")
        if self._record is None or end._record is None:
            raise ValueError("both events must have been recorded")
        if not (self._record.done and end._record.done):
            raise RuntimeError("both events must have completed")
        return (end._record.end - self._record.end) * 1e3


class CUDAGraph:
    """Captured device work. A replay runs the very same work: the same tensors, the same views."""

    def __init__(self, cuda: SimulatedCuda):
        self.cuda = cuda
        self.work: list[tuple[Callable[[], None], Callable[[], float]]] | None = None
        self.tag = None

    def replay(self) -> None:
        if self.work is None:
            raise RuntimeError("the graph was replayed before it was captured")
        work = list(self.work)
        seconds = sum(seconds() for _, seconds in work)
        self.cuda.submit(
            "replay",
            "compute",
            lambda: [run() for run, _ in work],
            lambda: seconds,
            self.cuda.replay_seconds,
            tag=self.tag,
        )


class SimulatedCuda:
    """Stands in for the module torch.cuda; `now` is the host's virtual clock, in seconds.

    policy, seed     see above
    replay_seconds   host time to launch a graph
    call_seconds     host time of a call that only queues, records or returns from a wait
    trace            where to report work and waits; device work only under the policy "timed", which knows its times
    """

    def __init__(
        self,
        policy: str = "timed",
        seed: int = 0,
        replay_seconds: float = 0.0,
        call_seconds: float = 0.0,
        trace: Trace | None = None,
    ):
        if policy not in POLICIES:
            raise ValueError(f"unknown policy {policy!r}: the policies are {', '.join(POLICIES)}")
        self.policy, self.replay_seconds, self.call_seconds = policy, replay_seconds, call_seconds
        self.trace = trace
        self.now = 0.0
        self.finished: list[Operation] = []  # work only, in order of completion
        self._random = random.Random(seed)
        self._streams: list[Stream] = []
        self._number = 0
        self._engine_free = {"h2d": 0.0, "compute": 0.0, "d2h": 0.0}
        self._running: list[Operation] = []
        self._capturing: CUDAGraph | None = None
        self._default = Stream(self)
        self._current = [self._default]

    # --- the names of torch.cuda ---

    def Stream(self) -> Stream:
        return Stream(self)

    def Event(self, enable_timing: bool = False) -> Event:
        return Event(self, enable_timing)

    def CUDAGraph(self) -> CUDAGraph:
        return CUDAGraph(self)

    def graph_pool_handle(self) -> object:
        return object()

    def default_stream(self) -> Stream:
        return self._default

    def current_stream(self) -> Stream:
        return self._current[-1]

    @contextmanager
    def stream(self, stream: Stream | None):
        self._current.append(stream or self.current_stream())
        try:
            yield
        finally:
            self._current.pop()

    @contextmanager
    def graph(self, graph: CUDAGraph, pool: object = None, stream: Stream | None = None):
        """Work submitted inside is captured, not run. Like torch.cuda.graph, it begins with a synchronize."""
        self.synchronize()
        self._capturing, graph.work = graph, []
        try:
            with self.stream(stream):
                yield
        except BaseException:
            graph.work = None  # half a capture is none
            raise
        finally:
            self._capturing = None

    def synchronize(self) -> None:
        """Makes the host wait for all streams."""
        self._may_not_be_capturing("synchronize the device")
        for stream in self._streams:
            stream.synchronize()

    # --- what device.py calls ---

    def submit(
        self,
        what: str,
        engine: str,
        work: Callable[[], None],
        seconds: Callable[[], float] = lambda: 0.0,
        launch_seconds: float = 0.0,
        gradual: bool = False,
        wait: bool = False,
        tag=None,
    ) -> None:
        """Queues work for an engine on the current stream; `launch_seconds` is what that costs the host.

        seconds  how long the engine is busy with it; asked when it is queued, so each time a graph is replayed
        gradual  the work is many kernels: it may start with the first and cannot end before the last is launched
        wait     the host waits until it is done
        tag      what it is for, see Operation
        """
        if self._capturing is not None:
            if engine != "compute" or wait:
                raise RuntimeError(f"{what!r} cannot be captured in a graph")
            self._capturing.work.append((work, seconds))
            self._capturing.tag = tag
            return
        begin = self.now
        self._advance(launch_seconds)
        issued = begin if gradual else self.now
        operation = Operation(self.current_stream(), what, engine, work, seconds(), issued, self.now, tag=tag)
        if self.trace is not None:
            self.trace.add("CPU", what, begin, self.now, operation.batch, operation.slot)
        self._enqueue(operation)
        if wait:
            self._wait_for(operation)

    def host(self, seconds: float) -> None:
        """The host has been busy for `seconds`."""
        self._advance(seconds)
        self._run()

    # --- how queues are run ---

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _may_not_be_capturing(self, what: str) -> None:
        if self._capturing is not None:
            raise RuntimeError(f"cannot {what} while a graph is being captured")

    def _advance(self, seconds: float) -> None:
        self.now += seconds

    def _enqueue(self, operation: Operation) -> None:
        operation.stream.queue.append(operation)
        if operation.engine is None:
            self._advance(self.call_seconds)
        self._run()

    def _look_at(self, operation: Operation | None) -> bool:
        """Whether it is done, for a host that asks and does not wait."""
        self._may_not_be_capturing("query")
        self._advance(self.call_seconds)
        self._run()
        done = operation is None or operation.done
        if not done and self.policy == "lazy":
            self._force(operation)  # a GPU gets on with its work: who asks again and again must be told yes in the end
        return done

    def _run(self) -> None:
        """Runs what the policy runs when the host calls in and does not wait."""
        if self.policy == "timed":
            self._run_until(self.now)
        elif self.policy == "eager":
            while ready := self._ready():
                self._complete(min(ready, key=lambda operation: operation.number))
        elif self.policy == "random":
            while (ready := self._ready()) and self._random.random() < 0.5:
                self._complete(self._random.choice(ready))

    def _wait_for(self, target: Operation) -> None:
        """Runs until `target` is done; the host's clock moves to that moment."""
        begin = self.now
        self._run()
        while not target.done:
            if self.policy == "timed":
                self._step(float("inf"))
            elif self.policy == "lazy":
                self._force(target)
            else:
                self._complete(self._random.choice(self._ready()))
        self.now = max(self.now, target.end) + self.call_seconds
        if self.trace is not None:
            self.trace.add("CPU", "wait", begin, self.now)

    def _ready(self) -> list[Operation]:
        """Operations at the head of a stream that nothing holds back."""
        heads = [stream.queue[0] for stream in self._streams if stream.queue]
        return [head for head in heads if head.after is None or head.after.done]

    def _complete(self, operation: Operation) -> None:
        assert operation.stream.queue.popleft() is operation
        if operation.work is not None:
            operation.work()
            self.finished.append(operation)
            if self.trace is not None and operation.start is not None:
                op, lane = operation, ENGINES[operation.engine]
                self.trace.add(lane, op.what, op.start, op.end, op.batch, op.slot, op.issued)
        if operation.end is None:
            operation.end = self.now  # only the timed policy knows better
        operation.done = True

    def _force(self, target: Operation) -> None:
        """Lazy: completes everything in front of `target` in its stream, and what that waits for, and no more."""
        while not target.done:
            head = target.stream.queue[0]
            if head.after is not None and not head.after.done:
                self._force(head.after)
            self._complete(head)

    def _run_until(self, time: float) -> None:
        while self._step(time):
            pass

    def _step(self, until: float) -> bool:
        """Timed: the next thing to happen no later than `until`; whether there was one.

        An operation's start is fixed once no operation can still become ready before it: the one with the earliest
        start of all is that far, since what is not at the head of a stream yet waits for something that ends later.
        """
        while markers := [head for head in self._ready() if head.engine is None]:
            for marker in markers:
                marker.end = max(marker.stream.time, marker.issued, marker.after.end if marker.after else 0.0)
                marker.stream.time = marker.end
                self._complete(marker)
        ending = min(self._running, key=lambda operation: (operation.end, operation.number), default=None)
        starting = min(
            (head for head in self._ready() if head.start is None),
            key=lambda head: (self._start_of(head), max(head.stream.time, head.issued), head.number),
            default=None,
        )
        start = float("inf") if starting is None else self._start_of(starting)
        if ending is not None and ending.end <= min(until, start):
            self._running.remove(ending)
            ending.stream.time = ending.end
            self._complete(ending)
            return True
        if starting is not None and start <= until:
            starting.start = start
            starting.end = max(start + starting.seconds, starting.launched)
            self._engine_free[starting.engine] = starting.end
            self._running.append(starting)
            return True
        return False

    def _start_of(self, head: Operation) -> float:
        return max(head.stream.time, head.issued, self._engine_free[head.engine])
