"""When the queued work of a simulated GPU runs: a policy for each way to look at it.

    Timed      in order of virtual time: durations come from a cost model (costs.py). Its figures are simulated figures.
    Eager      as soon as nothing holds it back
    Lazy       not before the host waits for it, and then only what it waits for
    Choosing   whatever a subclass picks among what is ready, at any point where the host calls in
    Random     Choosing, at random; the seed picks the schedule

A policy decides; queues.py does what it says and knows what is ready.
"""

import random
from abc import abstractmethod

from .operations import Operation
from .queues import Policy, Queues


class Timed(Policy):
    """In order of virtual time."""

    def run(self, queues: Queues) -> None:
        while queues.step(queues.now):
            pass

    def run_towards(self, target: Operation, queues: Queues) -> None:
        if not queues.step(float("inf")):
            raise RuntimeError(f"nothing can run any more, and {target.what!r} is not done")


class Eager(Policy):
    """As soon as nothing holds it back, in the order of issue."""

    def run(self, queues: Queues) -> None:
        while ready := queues.ready():
            queues.complete(min(ready, key=lambda operation: operation.number))

    def run_towards(self, target: Operation, queues: Queues) -> None:
        self.run(queues)


class Lazy(Policy):
    """Not before the host waits for it, and then only what it waits for."""

    def run(self, queues: Queues) -> None:
        pass

    def run_towards(self, target: Operation, queues: Queues) -> None:
        queues.force(target)

    def asked_for(self, target: Operation, queues: Queues) -> None:
        queues.force(target)


class Choosing(Policy):
    """Whatever `choose` picks among the operations that are ready."""

    @abstractmethod
    def choose(self, ready: list[Operation], must: bool) -> Operation | None:
        """The one that runs next; None, unless one of them `must`: none."""

    def run(self, queues: Queues) -> None:
        while (ready := queues.ready()) and (chosen := self.choose(ready, False)):
            queues.complete(chosen)

    def run_towards(self, target: Operation, queues: Queues) -> None:
        queues.complete(self.choose(queues.ready(), True))

    def asked_for(self, target: Operation, queues: Queues) -> None:
        queues.force(target)


class Random(Choosing):
    """Any of those that are ready, or none."""

    def __init__(self, seed: int = 0):
        self._random = random.Random(seed)

    def choose(self, ready: list[Operation], must: bool) -> Operation | None:
        return self._random.choice(ready) if must or self._random.random() < 0.5 else None


POLICIES = {"timed": Timed, "eager": Eager, "lazy": Lazy, "random": Random}


def named(name: str, seed: int = 0) -> Policy:
    """A policy by name; the seed matters to "random" alone.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}: the policies are {', '.join(POLICIES)}")
    return Random(seed) if name == "random" else POLICIES[name]()
