"""Streams, events and graphs of the simulated GPU: what torch.cuda's classes of these names do.

What they queue is in operations.py, and what they are part of in machine.py.
"""

from __future__ import annotations  # Stream and Event know each other

from .limits import Unknown
from .machine import Capture, Machine
from .operations import Cost, Operation


class Stream:
    """A queue of operations that run in order. Like PyTorch's, it and the default stream do not wait for each other.

    Attributes:
        priority: kept, and of no effect here: what runs when, a policy decides.
    """

    def __init__(self, cuda: Machine, priority: int = 0):
        self.cuda, self.queue, self.priority = cuda, cuda.queues.new_queue(), priority

    def __enter__(self) -> Stream:
        self.cuda.current.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.cuda.current.pop()

    def __getattr__(self, name: str):
        raise Unknown(f"Stream.{name}")

    def wait_event(self, event: Event) -> None:
        """Holds this stream's later work until the record that `event` has *now* is done; never recorded: no-op."""
        self.cuda.none_in_capture("make a stream wait for an event")
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
        self.cuda.no_wait_in_capture("synchronize a stream")
        self.cuda.queues.wait_for_all(self.queue)

    def query(self) -> bool:
        """Whether everything queued here is done."""
        self.cuda.none_in_capture("query a stream")
        return self.cuda.queues.look_at(self.queue.last)


class Event:
    """A marker in a stream. Recording again moves it; who waited for the earlier record still waits for that one.

    latest  its latest record; None before the first
    """

    def __init__(self, cuda: Machine, enable_timing: bool = False):
        self.cuda, self.enable_timing = cuda, enable_timing
        self.latest: Operation | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.cuda.none_in_capture("record an event")
        self.latest = Operation((stream or self.cuda.current[-1]).queue, "record", self.cuda.now)
        self.cuda.queues.add(self.latest)
        self.cuda.queues.observer.recorded(self, self.latest)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.cuda.current[-1]).wait_event(self)

    def synchronize(self) -> None:
        """Makes the host wait for the latest record; returns at once if there is none."""
        self.cuda.no_wait_in_capture("synchronize an event")
        self.cuda.queues.observer.waits(None, self, self.latest)
        if self.latest is not None:
            self.cuda.queues.wait_for(self.latest)

    def query(self) -> bool:
        """Whether the latest record is done; True if there is none."""
        self.cuda.none_in_capture("query an event")
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
        captured: the work; None before a capture that went well.
        pool: stands for the memory that lies between its inputs and outputs; graphs can share it.
    """

    def __init__(self, cuda: Machine):
        self.cuda = cuda
        self.captured: Capture | None = None
        self.pool: object = None

    def __getattr__(self, name: str):
        raise Unknown(f"CUDAGraph.{name}")

    def replay(self) -> None:
        self.cuda.none_in_capture("replay a graph")
        if self.captured is None:
            raise RuntimeError("the graph was replayed before it was captured")
        parts = self.captured.parts

        def run_all() -> None:
            self.cuda.queues.observer.replayed(self.pool)
            for run, _ in parts:
                run()

        self.cuda.submit(
            "replay",
            "compute",
            run_all,
            lambda: sum((cost() for _, cost in parts), Cost()),
            self.cuda.replay_seconds,
            work=self.captured.work,
        )
