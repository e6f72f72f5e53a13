"""When the queued work of a simulated GPU runs: a policy for each way to look at it.

The simulator knows what is ready; a policy decides which of it is next.
"""

import random
from abc import abstractmethod
from collections import defaultdict

from .operations import Operation, Queue
from .simulator import Policy, Simulator

NOES = 8  # before the first yes, to who asks whether something is done: who goes on after a few has not waited


class Timed(Policy):
    """In order of virtual time: durations come from a cost model (costs.py), and figures are simulated figures. The
    engines run side by side, and each takes what is ready first."""

    def __init__(self):
        self._running: list[Operation] = []
        self._busy_until: dict[Queue | str, float] = defaultdict(float)  # until when queues and engines have been busy

    def run(self, simulator: Simulator) -> None:
        while self._step(simulator, simulator.now):
            pass

    def run_towards(self, target: Operation, simulator: Simulator) -> None:
        if not self._step(simulator, float("inf")):
            raise RuntimeError(f"nothing can run any more, and {target.what!r} is not done")

    def _step(self, simulator: Simulator, until: float) -> bool:
        """The next thing to happen in virtual time, no later than `until` (seconds); whether there was one.

        An operation's start is fixed once no operation can still become ready before it: the one with the earliest
        start of all is that far, since what is not at the head of a queue yet waits for something that ends later.
        """
        ready = simulator.ready()
        if markers := [head for head in ready if head.engine is None]:
            for marker in markers:
                self._complete(simulator, marker, max(self._queued(marker), marker.after.end if marker.after else 0.0))
            return True  # whoever waits for one of them must look before anything else happens
        ending = min(self._running, key=lambda operation: (operation.end, operation.number), default=None)
        starting = min(
            (head for head in ready if head.start is None),
            key=lambda head: (self._start(head), self._queued(head), head.number),
            default=None,
        )
        start = float("inf") if starting is None else self._start(starting)
        if ending is not None and ending.end <= min(until, start):
            self._running.remove(ending)
            self._complete(simulator, ending, ending.end)
            return True
        if starting is not None and start <= until:
            starting.start = start
            busy, gaps, ramp = starting.cost
            ramp = max(0.0, ramp - (start - starting.issued))  # in this order: an endless host makes it no number
            starting.end = max(start + busy + gaps + ramp, starting.launched)
            self._busy_until[starting.engine] = starting.end
            self._running.append(starting)
            return True
        return False

    def _complete(self, simulator: Simulator, operation: Operation, end: float) -> None:
        operation.end = self._busy_until[operation.queue] = end
        simulator.complete(operation)

    def _queued(self, head: Operation) -> float:
        """When it is there and its queue has got to it."""
        return max(self._busy_until[head.queue], head.issued)

    def _start(self, head: Operation) -> float:
        return max(self._queued(head), self._busy_until[head.engine])


class Eager(Policy):
    """As soon as nothing holds it back, in the order of issue."""

    def run(self, simulator: Simulator) -> None:
        while ready := simulator.ready():
            simulator.complete(min(ready, key=lambda operation: operation.number))

    def run_towards(self, target: Operation, simulator: Simulator) -> None:
        self.run(simulator)


def force(target: Operation, simulator: Simulator) -> None:
    """Completes everything in front of `target` in its queue, and what that waits for, and no more."""
    while not target.done:
        head = target.queue.operations[0]
        if head.after is not None and not head.after.done:
            force(head.after, simulator)
        simulator.complete(head)


class Reluctant(Policy):
    """Who asks again and again is told no a few times in a row, and then yes."""

    _asked: Operation | None = None
    _noes = 0

    def asked_for(self, target: Operation, simulator: Simulator) -> None:
        self._noes = self._noes + 1 if target is self._asked else 1
        self._asked = target
        if self._noes >= NOES:
            force(target, simulator)


class Lazy(Reluctant):
    """Not before the host waits for it, and then only what it waits for."""

    def run(self, simulator: Simulator) -> None:
        pass

    def run_towards(self, target: Operation, simulator: Simulator) -> None:
        force(target, simulator)


class Choosing(Policy):
    """Whatever `choose` picks among the operations that are ready, at any point where the host calls in."""

    @abstractmethod
    def choose(self, ready: list[Operation], must: bool) -> Operation | None:
        """The one that runs next; None, unless one of them `must`: none."""

    def run(self, simulator: Simulator) -> None:
        while (ready := simulator.ready()) and (chosen := self.choose(ready, False)):
            simulator.complete(chosen)

    def run_towards(self, target: Operation, simulator: Simulator) -> None:
        simulator.complete(self.choose(simulator.ready(), True))

    def asked_for(self, target: Operation, simulator: Simulator) -> None:
        force(target, simulator)


class Random(Reluctant, Choosing):
    """Any of those that are ready, or none; the seed picks the schedule."""

    def __init__(self, seed: int = 0):
        self._random = random.Random(seed)

    def choose(self, ready: list[Operation], must: bool) -> Operation | None:
        return self._random.choice(ready) if must or self._random.random() < 0.5 else None


POLICIES = {"timed": Timed, "eager": Eager, "lazy": Lazy, "random": Random}


def named(name: str, seed: int = 0) -> Policy:
    """A policy by name; the seed matters to "random" alone."""
    return Random(seed) if name == "random" else POLICIES[name]()
