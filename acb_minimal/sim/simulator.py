"""The inside of the simulated GPU: queues of device work, the engines that do it, and the host's virtual clock.

One engine copies to the device, one computes, one copies back. Work is ordinary Python over CPU tensors that stand for
device memory, and has its effect when it *completes*: whoever looks at its target too early sees the old content, and
whoever overwrites its source too early corrupts it. That is the latest moment at which hardware may do either, and so
the one at which a missing wait hurts most.

What runs when is up to a policy (policies.py). What the host calls all this, streams, events and graphs, is in cuda.py.
"""

from __future__ import annotations  # a Policy is asked about a Simulator

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ..device import Work
from ..trace.spans import ENGINES, Trace, number_of
from .operations import Captured, Cost, Limit, Observer, Operation, Queue


class Policy(ABC):
    """When queued operations run."""

    @abstractmethod
    def run(self, simulator: Simulator) -> None:
        """The host calls in and does not wait: runs what is to run by now."""

    @abstractmethod
    def run_towards(self, target: Operation, simulator: Simulator) -> None:
        """The host waits for `target`: runs something that brings it nearer."""

    def asked_for(self, target: Operation, simulator: Simulator) -> None:  # noqa: B027  (most need not)
        """The host has asked whether `target` is done, and it was not. A GPU gets on with its work: who asks again and
        again must be told yes in the end."""


class Simulator:
    """A host and a GPU.

    Attributes:
        replay_seconds: host time to launch a graph.
        call_seconds: host time of a call that only queues, records, looks or returns from a wait.
        trace: where to report waits and, under the policy Timed, which alone knows its times, device work.
    """

    def __init__(
        self,
        policy: Policy,
        replay_seconds: float = 0.0,
        call_seconds: float = 0.0,
        trace: Trace | None = None,
        observer: Observer | None = None,
    ):
        self.policy, self.replay_seconds, self.call_seconds, self.trace = policy, replay_seconds, call_seconds, trace
        self.observer = observer or Observer()
        self.around: Callable[[], AbstractContextManager] = nullcontext  # to be entered around device work
        self.now = 0.0  # the host's clock, in seconds
        self.queued = 0  # how many operations there have been
        self.current: list[Queue] = []  # those whose streams the host has entered; the last is the current one
        self.capturing: Queue | None = None  # whose stream is being captured
        self.captured: list[Captured] = []  # what has been captured of it
        self._queues: list[Queue] = []
        self._thread = threading.get_ident()

    # --- what the host does ---

    def new_queue(self, stream: object) -> Queue:
        self._queues.append(Queue(stream))
        return self._queues[-1]

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
        more: bool = False,
    ) -> Operation | None:
        """Queues device work on the current stream, or captures it, and returns None. `what`, `engine` and `run` are as
        in an Operation.

        Args:
            cost: what it takes the engine; asked when it is queued, so each time a graph is replayed.
            launch_seconds: what queueing it costs the host.
            gradual: it is many kernels, and may start with the first but cannot end before the last is launched.
            wait: the host waits until it is done.
            work: what it is for.
            graph_cost: what it takes as part of a graph; by default the same.
            more: something may be added to it before the host's next call, until which nothing runs.

        Raises:
            RuntimeError: the host would wait while a graph is captured.
            Limit: it is no compute work, and would be captured.
        """
        if wait:
            self.no_wait_in_capture(f"wait for the {what}")
        if self.capturing is self.current[-1]:
            if engine != "compute":
                raise Limit(f"the simulator captures no copies, and this is one ({what})")
            self.now += launch_seconds  # the host's part of it is to launch it once, into the graph
            self.captured.append(Captured(run, graph_cost or cost, work))
            return None
        begin = self.now
        self.now += launch_seconds
        operation = Operation(self.current[-1], what, begin if gradual else self.now, engine, run, cost(), self.now)
        if work is not None:  # read now: by the time it runs, the slot may have been written for another batch
            operation.batch_number, operation.slot = number_of(work), work.name
        if self.trace is not None and self.now > begin:
            self.trace.add("CPU", what, begin, self.now, operation.batch_number, operation.slot)
        self.add(operation, run=not more)
        if wait:
            self.wait_for(operation)
        return operation

    def add(self, operation: Operation, run: bool = True) -> None:
        """Queues an operation. `run`: the policy is asked at once what is to run now, not at the host's next call."""
        self._one_thread()
        operation.number = self.queued
        self.queued += 1
        operation.queue.operations.append(operation)
        operation.queue.last = operation
        self.observer.queued(operation)
        if operation.engine is None:
            self.now += self.call_seconds
        if run:
            self.policy.run(self)

    def host(self, seconds: float) -> None:
        """The host has been busy for `seconds`."""
        self.now += seconds
        self.policy.run(self)

    def look_at(self, operation: Operation | None) -> bool:
        """Whether it is done (None: nothing to be done), for a host that asks and does not wait."""
        self._one_thread()
        self.now += self.call_seconds
        if operation is None:
            return True
        self.observer.asked(operation)
        self.policy.run(self)
        done = operation.done
        if done:
            self.observer.saw(operation)
        else:
            self.policy.asked_for(operation, self)
        return done

    def wait_for(self, target: Operation) -> None:
        """Runs until `target` is done; the host's clock moves to that moment."""
        self._one_thread()
        begin = self.now
        while not target.done:
            self.policy.run_towards(target, self)
        self.observer.saw(target)
        self.now = max(self.now, target.end) + self.call_seconds
        if self.trace is not None:
            self.trace.add("CPU", "wait", begin, self.now)
        self.policy.run(self)  # before the host goes on, and looks at memory

    def drain(self, *queues: Queue) -> None:
        """Runs until these queues are empty; without any, all of them."""
        self._one_thread()
        for queue in queues or self._queues:
            if queue.operations:
                self.wait_for(queue.operations[-1])
            elif queue.last is not None:
                self.observer.saw(queue.last)

    def _one_thread(self) -> None:
        """Raises Limit if it is another thread that calls: the simulator follows one alone."""
        if threading.get_ident() != self._thread:
            raise Limit("the simulator follows one thread of an engine, and a second one calls it")

    # --- captures ---
    # A simulator refuses for one of two reasons, and says which. Some calls CUDA itself does not let through: those
    # that make the host wait, as was tried on an H200 (tests/sim/test_graphs.py). Others CUDA captures as well,
    # and the simulator does not know how: copies, records and waits between streams, replays. These are its limits.

    def no_wait_in_capture(self, what: str) -> None:
        """Raises RuntimeError, as torch does, if a graph is being captured: the host would `what`, and so wait."""
        if self.capturing is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: CUDA lets no host {what} then")

    def none_in_capture(self, what: str) -> None:
        """Raises Limit if a graph is being captured: the simulator cannot `what` then."""
        if self.capturing is not None:
            raise Limit(f"the simulator cannot {what} while a graph is captured")

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
            if self.trace is not None and operation.start is not None and operation.end > operation.start:
                op, lane = operation, ENGINES[operation.engine]
                parts = op.cost[:2] if op.engine == "compute" else ()
                self.trace.add(lane, op.what, op.start, op.end, op.batch_number, op.slot, op.issued, *parts)
        if operation.end is None:
            operation.end = self.now  # only Timed knows better
        operation.done = True
