"""Queues of device work, in virtual time: the inside of the simulated GPU.

One engine copies to the device, one computes, one copies back; the three run side by side, each takes what is ready
first. Work is ordinary Python over CPU tensors that stand for device memory (operations.py). When it runs is decided by
a policy (policies.py).

This file knows operations and order. What the host calls them (streams, events, graphs) is in streams.py.
"""

from __future__ import annotations  # a Policy is asked about Queues

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ..trace.spans import ENGINES, Trace
from .operations import Observer, Operation, Queue


class Policy(ABC):
    """When queued operations run."""

    @abstractmethod
    def run(self, queues: Queues) -> None:
        """The host calls in and does not wait: runs what is to run by now."""

    @abstractmethod
    def run_towards(self, target: Operation, queues: Queues) -> None:
        """The host waits for `target`: runs something that brings it nearer."""

    def asked_for(self, target: Operation, queues: Queues) -> None:  # noqa: B027  (a policy that runs at every call need not)
        """The host has asked whether `target` is done, and it was not. A GPU gets on with its work: who asks again and
        again must be told yes in the end."""


class Queues:
    """All queues of a simulated GPU, and the host's clock.

    Attributes:
        now: the host's clock, in seconds.
        finished: the work that has run, in order of completion.
        policy: when queued operations run.
        observer: who looks on.
        around: to be entered around device work.
    """

    def __init__(
        self,
        policy: Policy,
        call_seconds: float = 0.0,
        trace: Trace | None = None,
        observer: Observer | None = None,
    ):
        """
        Args:
            policy: when queued operations run.
            call_seconds: host time of a call that only queues, records, looks or returns from a wait.
            trace: where to report waits and, under the policy Timed, which alone knows its times, device work.
        """
        self.policy, self.call_seconds, self.trace = policy, call_seconds, trace
        self.observer = observer or Observer()
        self.around: Callable[[], AbstractContextManager] = nullcontext
        self.now = 0.0
        self.finished: list[Operation] = []
        self._queues: list[Queue] = []
        self._queued = 0
        self._engine_free = {engine: 0.0 for engine in ENGINES}
        self._running: list[Operation] = []

    def new_queue(self) -> Queue:
        self._queues.append(Queue())
        return self._queues[-1]

    def add(self, operation: Operation) -> None:
        """Queues an operation."""
        operation.number = self._queued
        self._queued += 1
        operation.queue.operations.append(operation)
        operation.queue.last = operation
        self.observer.queued(operation)
        if operation.engine is None:
            self.now += self.call_seconds
        self.run()

    def look_at(self, operation: Operation | None) -> bool:
        """Whether it is done (None: nothing to be done), for a host that asks and does not wait."""
        self.now += self.call_seconds
        if operation is None:
            return True
        self.observer.asked(operation)
        self.run()
        done = operation.done
        if done:
            self.observer.saw(operation)
        else:
            self.policy.asked_for(operation, self)
        return done

    def run(self) -> None:
        """Runs what the policy runs when the host calls in and does not wait."""
        self.policy.run(self)

    def wait_for(self, target: Operation) -> None:
        """Runs until `target` is done; the host's clock moves to that moment."""
        begin = self.now
        while not target.done:
            self.policy.run_towards(target, self)
        self.observer.saw(target)
        self.now = max(self.now, target.end) + self.call_seconds
        if self.trace is not None:
            self.trace.add("CPU", "wait", begin, self.now)
        self.run()  # before the host goes on, and looks at memory

    def wait_for_all(self, queue: Queue) -> None:
        """Runs until the queue is empty."""
        if queue.operations:
            self.wait_for(queue.operations[-1])
        elif queue.last is not None:
            self.observer.saw(queue.last)

    def drain(self) -> None:
        """Runs until every queue is empty."""
        for queue in self._queues:
            self.wait_for_all(queue)

    # --- what a policy goes by ---

    def ready(self) -> list[Operation]:
        """Operations at the head of a queue that nothing holds back."""
        heads = [queue.operations[0] for queue in self._queues if queue.operations]
        return [head for head in heads if head.after is None or head.after.done]

    def complete(self, operation: Operation) -> None:
        """Runs an operation that is ready."""
        assert operation.queue.operations.popleft() is operation
        if operation.run is not None:
            with self.around():
                self.observer.run(operation)
            self.finished.append(operation)
            if self.trace is not None and operation.start is not None and operation.end > operation.start:
                op, lane = operation, ENGINES[operation.engine]
                kernels = op.cost.busy if op.engine == "compute" else None
                self.trace.add(lane, op.what, op.start, op.end, op.batch_number, op.slot, op.issued, kernels)
        if operation.end is None:
            operation.end = self.now  # only Timed knows better
        operation.done = True

    def force(self, target: Operation) -> None:
        """Completes everything in front of `target` in its queue, and what that waits for, and no more."""
        while not target.done:
            head = target.queue.operations[0]
            if head.after is not None and not head.after.done:
                self.force(head.after)
            self.complete(head)

    def step(self, until: float) -> bool:
        """The next thing to happen in virtual time, no later than `until` (seconds); whether there was one.

        An operation's start is fixed once no operation can still become ready before it: the one with the earliest
        start of all is that far, since what is not at the head of a queue yet waits for something that ends later.
        """
        if markers := [head for head in self.ready() if head.engine is None]:
            for marker in markers:
                marker.end = max(marker.queue.time, marker.issued, marker.after.end if marker.after else 0.0)
                marker.queue.time = marker.end
                self.complete(marker)
            return True  # whoever waits for one of them must look before anything else happens
        ending = min(self._running, key=lambda operation: (operation.end, operation.number), default=None)
        starting = min(
            (head for head in self.ready() if head.start is None),
            key=lambda head: (self._start_of(head), max(head.queue.time, head.issued), head.number),
            default=None,
        )
        start = float("inf") if starting is None else self._start_of(starting)
        if ending is not None and ending.end <= min(until, start):
            self._running.remove(ending)
            ending.queue.time = ending.end
            self.complete(ending)
            return True
        if starting is not None and start <= until:
            starting.start = start
            busy, gaps, ramp = starting.cost
            ramp = max(0.0, ramp - (start - starting.issued))  # in this order: an endless host makes it no number
            starting.end = max(start + busy + gaps + ramp, starting.launched)
            self._engine_free[starting.engine] = starting.end
            self._running.append(starting)
            return True
        return False

    def _start_of(self, head: Operation) -> float:
        return max(head.queue.time, head.issued, self._engine_free[head.engine])
