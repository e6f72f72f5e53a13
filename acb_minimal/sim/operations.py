"""What is queued on a simulated GPU, and who looks on while it is.

An operation has its effect when it *completes*: whoever looks at its target too early sees the old content, and
whoever overwrites its source too early corrupts it. That is the latest moment at which hardware may do either, and so
the one at which a missing wait hurts most. When operations run is the business of queues.py.
"""

from __future__ import annotations  # an Operation can wait for another

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ..device import Work
from ..trace.spans import number_of


class Cost(NamedTuple):
    """What an operation takes its engine, in seconds.

    Attributes:
        busy: with a kernel, or the copy, running.
        gaps: between its kernels, though all of them are queued.
        ramp: from the launch of the first kernel until the host is so far ahead that the engine finds the next one
            queued whenever it is done with one. An engine that starts later has that much less to wait.
    """

    busy: float = 0.0
    gaps: float = 0.0
    ramp: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Queue:
    """Operations that run in order.

    Attributes:
        operations: those that have not run.
        last: the newest of all.
        time: when the last one that ran was done, in seconds.
    """

    def __init__(self):
        self.operations: deque[Operation] = deque()
        self.last: Operation | None = None
        self.time = 0.0


class Operation:
    """Something in a queue: work for an engine, the record of an event, or the wait for one.

    Attributes:
        batch_number: of the batch that it was for when it was queued; None if it is for none.
        slot: the letter of that batch's slot; None likewise.
        number: its place among all operations, by when it was queued.
        start: when its engine began with it, in seconds; only the policy Timed knows.
        end: when it was done, in seconds.
        done: whether it is.
    """

    def __init__(
        self,
        queue: Queue,
        what: str,
        issued: float,
        engine: str | None = None,
        run: Callable[[], None] | None = None,
        cost: Cost | None = None,
        launched: float = 0.0,
        after: Operation | None = None,
        work: Work | None = None,
    ):
        """
        Args:
            what: a name, for traces.
            issued: when the host began to issue it, in seconds; it cannot start earlier.
            engine: "h2d", "compute", "d2h"; None for records and waits, which take no time.
            run: what it does when it completes.
            cost: what it takes the engine.
            launched: when the host had issued all of it; it cannot end earlier.
            after: for a wait, the record it waits for.
            work: what it is for.
        """
        self.queue, self.what, self.engine, self.run, self.cost = queue, what, engine, run, cost or Cost()
        self.issued, self.launched, self.after = issued, launched, after
        # Read now: by the time it runs, the slot may have been written for another batch.
        self.batch_number, self.slot = number_of(work), work.name if work is not None else None
        self.number = -1
        self.start: float | None = None
        self.end: float | None = None
        self.done = False


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
