"""Queues of device work and the policies by which they run, in virtual time: the inside of the simulated GPU.

One engine copies to the device, one computes, one copies back; the three run side by side, each takes what is ready
first. Work is ordinary Python over CPU tensors that stand for device memory, and an operation has its effect when it
*completes*: whoever looks at its target too early sees the old content, and whoever overwrites its source too early
corrupts it. That is the latest moment at which hardware may do either, and so the one at which a missing wait hurts
most.

When queued operations run is the policy:

    timed   in order of virtual time: durations come from a cost model (costs.py). Its figures are simulated figures.
    eager   as soon as nothing holds them back
    lazy    not before the host waits for them, and then only those it waits for
    random  any of those that are ready, at any point where the host calls in; the seed picks the schedule

A function can be the policy too: it is asked at the same points as `random` and picks for itself.

This file knows operations and order. What the host calls them (streams, events, graphs) is in sim.py.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from .trace import ENGINES, Trace

POLICIES = ("timed", "lazy", "eager", "random")


class Tag(Protocol):
    """What device work is for: the slot's name and the number of the batch it holds."""

    name: str
    batch: int | None


class Queue:
    """Operations that run in order: `operations` have not, `last` is the newest of all. `time` is when the last one
    finished, in seconds."""

    def __init__(self):
        self.operations: deque[Operation] = deque()
        self.last: Operation | None = None
        self.time = 0.0


class Operation:
    """Something in a queue: work for an engine, the record of an event, or the wait for one.

    what      a name, for traces
    engine    "h2d", "compute", "d2h"; None for records and waits, which take no time
    work      what it does when it completes
    seconds   how long the engine is busy with it
    issued    when the host began to issue it; it cannot start earlier
    launched  when the host had issued all of it; it cannot end earlier
    after     for a wait: the record it waits for
    """

    def __init__(
        self,
        queue: Queue,
        what: str,
        issued: float,
        engine: str | None = None,
        work: Callable[[], None] | None = None,
        seconds: float = 0.0,
        launched: float = 0.0,
        after: "Operation | None" = None,
        tag: Tag | None = None,
    ):
        self.queue, self.what, self.engine, self.work, self.seconds = queue, what, engine, work, seconds
        self.issued, self.launched, self.after = issued, launched, after
        # Read now: by the time the work runs, the slot may have been written for another batch.
        self.batch, self.slot = (tag.batch, tag.name) if tag is not None else (None, None)
        self.number = -1  # its place among all operations, by when it was queued
        self.start: float | None = None
        self.end: float | None = None
        self.done = False


# From the operations that are ready and whether one of them has to run: the one that runs next.
Choice = Callable[[list[Operation], bool], Operation | None]


def _at_random(seed: int) -> Choice:
    rng = random.Random(seed)
    return lambda ready, must: rng.choice(ready) if must or rng.random() < 0.5 else None


class Observer:
    """Who looks on (hazards.py): is told of everything that has to do with the order of things. This one looks away."""

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None) -> None:
        """Host and device share `memory`; a KV cache has a page size."""

    def queued(self, operation: Operation) -> None:
        """The host has issued it."""

    def run(self, operation: Operation) -> None:
        """Its time has come: runs its work."""
        operation.work()

    def replayed(self, pool: object) -> None:
        """The work that runs uses the memory of a graph pool."""

    def asked(self, operation: Operation) -> None:
        """The host asks whether it is done."""

    def saw(self, operation: Operation) -> None:
        """The host has waited for it, or asked, and knows that it is done."""

    def touched(
        self, what: str, batch: int | None, slot: str | None, reads: np.ndarray | None, writes: torch.Tensor | None
    ) -> None:
        """The host itself has read and written this memory; None: none."""


class Queues:
    """All queues of a simulated GPU, and the host's clock.

    policy, seed   see above; a function gets the operations that are ready and whether one of them has to run now,
                   and returns one of them, or None for none
    call_seconds   host time of a call that only queues, records, looks or returns from a wait
    trace          where to report waits and, under the policy "timed", which alone knows its times, device work
    observer       who looks on

    `now` is the host's clock in seconds; `finished` is the work that has run, in order of completion.
    """

    def __init__(
        self,
        policy: str | Choice,
        seed: int = 0,
        call_seconds: float = 0.0,
        trace: Trace | None = None,
        observer: Observer | None = None,
    ):
        if not callable(policy) and policy not in POLICIES:
            raise ValueError(f"unknown policy {policy!r}: the policies are {', '.join(POLICIES)}")
        self.policy, self.call_seconds, self.trace = policy, call_seconds, trace
        self.observer = observer or Observer()
        self.now = 0.0
        self.finished: list[Operation] = []
        self._choose = policy if callable(policy) else _at_random(seed)
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
        elif self.policy == "lazy" or callable(self.policy):
            self._force(operation)  # a GPU gets on with its work: who asks again and again must be told yes in the end
        return done

    def run(self) -> None:
        """Runs what the policy runs when the host calls in and does not wait."""
        if self.policy == "timed":
            while self._step(self.now):
                pass
        elif self.policy == "eager":
            while ready := self._ready():
                self._complete(min(ready, key=lambda operation: operation.number))
        elif self.policy != "lazy":
            while (ready := self._ready()) and (chosen := self._choose(ready, False)):
                self._complete(chosen)

    def wait_for(self, target: Operation) -> None:
        """Runs until `target` is done; the host's clock moves to that moment."""
        begin = self.now
        while not target.done:
            if self.policy == "timed":
                self._step(float("inf"))
            elif self.policy == "lazy":
                self._force(target)
            else:
                self._complete(self._choose(self._ready(), True))
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

    def _ready(self) -> list[Operation]:
        """Operations at the head of a queue that nothing holds back."""
        heads = [queue.operations[0] for queue in self._queues if queue.operations]
        return [head for head in heads if head.after is None or head.after.done]

    def _complete(self, operation: Operation) -> None:
        assert operation.queue.operations.popleft() is operation
        if operation.work is not None:
            self.observer.run(operation)
            self.finished.append(operation)
            if self.trace is not None and operation.start is not None:
                op, lane = operation, ENGINES[operation.engine]
                kernels = op.seconds if op.engine == "compute" else None
                self.trace.add(lane, op.what, op.start, op.end, op.batch, op.slot, op.issued, kernels)
        if operation.end is None:
            operation.end = self.now  # only the timed policy knows better
        operation.done = True

    def _force(self, target: Operation) -> None:
        """Lazy: completes everything in front of `target` in its queue, and what that waits for, and no more."""
        while not target.done:
            head = target.queue.operations[0]
            if head.after is not None and not head.after.done:
                self._force(head.after)
            self._complete(head)

    def _step(self, until: float) -> bool:
        """Timed: the next thing to happen no later than `until`; whether there was one.

        An operation's start is fixed once no operation can still become ready before it: the one with the earliest
        start of all is that far, since what is not at the head of a queue yet waits for something that ends later.
        """
        if markers := [head for head in self._ready() if head.engine is None]:
            for marker in markers:
                marker.end = max(marker.queue.time, marker.issued, marker.after.end if marker.after else 0.0)
                marker.queue.time = marker.end
                self._complete(marker)
            return True  # whoever waits for one of them must look before anything else happens
        ending = min(self._running, key=lambda operation: (operation.end, operation.number), default=None)
        starting = min(
            (head for head in self._ready() if head.start is None),
            key=lambda head: (self._start_of(head), max(head.queue.time, head.issued), head.number),
            default=None,
        )
        start = float("inf") if starting is None else self._start_of(starting)
        if ending is not None and ending.end <= min(until, start):
            self._running.remove(ending)
            ending.queue.time = ending.end
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
        return max(head.queue.time, head.issued, self._engine_free[head.engine])
