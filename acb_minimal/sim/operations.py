"""What queues of device work hold, what it costs, and who is told of it."""

from __future__ import annotations  # a Queue holds Operations, which know their Queue and can wait for another

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..device import Work


class Limit(Exception):
    """Something that a GPU may do and the simulator cannot: no fault of who asks for it."""

    def __init__(self, what: str):
        super().__init__(f"{what}; that is a limit of the simulator")


class Cost(NamedTuple):
    """What an operation takes its engine, in seconds."""

    busy: float = 0.0  # with a kernel, or the copy, running
    gaps: float = 0.0  # between its kernels, though all of them are queued
    # From the launch of the first kernel until the host is so far ahead that the engine finds the next one queued
    # whenever it is done with one. An engine that starts later has that much less to wait.
    ramp: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(eq=False)
class Queue:
    """Operations that run in order."""

    stream: object  # what the host calls it
    operations: deque[Operation] = field(default_factory=deque)  # those that have not run
    last: Operation | None = None  # the newest of all


@dataclass(eq=False)
class Operation:
    """Something in a queue: work for an engine, the record of an event, or the wait for one."""

    queue: Queue
    what: str  # a name, for traces
    issued: float  # when the host began to issue it, in seconds; it cannot start earlier
    engine: str | None = None  # "h2d", "compute", "d2h"; None for records and waits, which take no time
    run: Callable[[], None] | None = None  # what it does when it completes
    cost: Cost = Cost()
    launched: float = 0.0  # when the host had issued all of it; it cannot end earlier
    after: Operation | None = None  # for a wait, the record it waits for
    batch_number: int | None = None  # of the batch that it was for when it was queued
    slot: str | None = None  # the letter of that batch's slot
    number: int = -1  # its place among all operations, by when it was queued
    start: float | None = None  # when its engine began with it, in seconds; only the policy Timed knows
    end: float | None = None  # when it was done, in seconds
    done: bool = False


class Captured(NamedTuple):
    """A piece of a graph."""

    run: Callable[[], None]
    cost: Callable[[], Cost]
    work: Work | None  # what it was for


class Observer:
    """Who looks on: is told of everything that has to do with the order of things. This one looks away."""

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None) -> None:
        """Host and device share `memory`; a KV cache has a page size."""

    def queued(self, operation: Operation) -> None:
        """The host has issued it."""

    def run(self, operation: Operation) -> None:
        """Its time has come: runs it."""
        operation.run()

    def replayed(self, pool: object) -> None:
        """What runs uses the memory of a graph pool."""

    def asked(self, operation: Operation) -> None:
        """The host asks whether it is done."""

    def saw(self, operation: Operation) -> None:
        """The host has waited for it, or asked, and knows that it is done."""

    def recorded(self, event: object, record: Operation) -> None:
        """The host has recorded the event."""

    def waits(self, queue: Queue | None, event: object, record: Operation | None) -> None:
        """The host makes a queue (None: itself) wait for the event, and `record` is what it finds in it."""

    def touched(self, memory: np.ndarray, writes: bool) -> None:
        """The host itself reads or writes pinned memory."""

    def did(self, what: str, batch_number: int | None, slot: str | None) -> None:
        """What the host has touched since the last of these calls, it has touched for this."""
