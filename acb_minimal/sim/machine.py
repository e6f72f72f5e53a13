"""What streams and graphs of the simulated GPU are part of: its queues, the current stream, the capture that goes on.

While a graph is captured, a machine refuses for one of two reasons, and says which. Some calls CUDA itself does not let
through: those that make the host wait, as was tried on an H200 (tests/sim/test_conformance.py). Others CUDA captures as
well, and the simulator does not know how: copies, records and waits between streams, replays. These are its limits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..device import Work
from .limits import Limit
from .operations import Cost, Operation, Queue
from .queues import Queues


@dataclass
class Capture:
    """What a graph is made of, while it is captured and afterwards.

    Attributes:
        queue: of the stream that is captured.
        parts: what to run, and how to ask what that takes the GPU.
        work: what the last of it was for.
    """

    queue: Queue
    parts: list[tuple[Callable[[], None], Callable[[], Cost]]] = field(default_factory=list)
    work: Work | None = None


class InQueue(Protocol):
    """A stream, as far as it matters here.

    Attributes:
        queue: what it is given.
    """

    queue: Queue


class Machine:
    """A host and a GPU.

    Attributes:
        queues: of the GPU's work.
        replay_seconds: host time to launch a graph.
        current: the streams that the host has entered; the last of them is the current one.
        capture: what is being captured; None unless that goes on.
    """

    def __init__(self, queues: Queues, replay_seconds: float):
        self.queues, self.replay_seconds = queues, replay_seconds
        self.current: list[InQueue] = []
        self.capture: Capture | None = None

    @property
    def now(self) -> float:
        """The host's virtual clock, in seconds."""
        return self.queues.now

    @property
    def finished(self) -> list[Operation]:
        """The work that has run, in order of completion."""
        return self.queues.finished

    @property
    def capturing(self) -> bool:
        """Whether what is submitted now is captured."""
        return self.capture is not None and self.current[-1].queue is self.capture.queue

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
        """Queues device work on the current stream, or captures it.

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

        Raises:
            RuntimeError: the host would wait while a graph is captured.
            Limit: it is no compute work, and would be captured.
        """
        if wait:
            self.no_wait_in_capture(f"wait for the {what}")
        if self.capturing:
            if engine != "compute":
                raise Limit(f"the simulator captures no copies, and this is one ({what})")
            self.capture.parts.append((run, graph_cost or cost))
            self.capture.work = work
            return
        queues, begin = self.queues, self.now
        queues.now += launch_seconds
        issued = begin if gradual else self.now
        operation = Operation(self.current[-1].queue, what, issued, engine, run, cost(), launched=self.now, work=work)
        if queues.trace is not None and self.now > begin:
            queues.trace.add("CPU", what, begin, self.now, operation.batch_number, operation.slot)
        queues.add(operation)
        if wait:
            queues.wait_for(operation)

    def host(self, seconds: float) -> None:
        """The host has been busy for `seconds`."""
        self.queues.now += seconds
        self.queues.run()

    def no_wait_in_capture(self, what: str) -> None:
        """Raises RuntimeError, as torch does, if a graph is being captured: CUDA lets nobody wait meanwhile.

        Args:
            what: what the host would do.
        """
        if self.capture is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: CUDA lets no host {what} then")

    def none_in_capture(self, what: str) -> None:
        """Raises Limit if a graph is being captured.

        Args:
            what: what the simulator cannot do then.
        """
        if self.capture is not None:
            raise Limit(f"the simulator cannot {what} while a graph is captured")
