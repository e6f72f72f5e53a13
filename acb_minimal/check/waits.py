"""What the host waits for while an engine runs on a simulated GPU: in which line, how long, and what comes of it."""

import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from types import CodeType

from ..sim.device import SimulatedDevice
from ..sim.operations import Observer, Operation, Queue
from ..trace.spans import Trace
from . import lines
from .lines import Line


@dataclass(frozen=True)
class HostWait:
    """One of the engine's lines in which the host waits; figures are means over steps.

    Attributes:
        line: the line.
        what: what it waits for: "upload", "forward", "replay", "download"...
        times: how often, per step.
        seconds: how long, per step.
        ahead: how many batches have been launched by then behind the one it waits for, as a rule; 0 if the GPU has
            nothing else to do.
        bubble: seconds per step of bubbles that began while the host waited here, with no other batch launched.
    """

    line: Line
    what: str
    times: float
    seconds: float
    ahead: int
    bubble: float


@dataclass(slots=True)
class _Wait:
    """One wait: in which line, for what work, from when to when, and with how many batches launched behind that."""

    line: Line
    operation: Operation
    begin: float
    end: float
    ahead: int

    def runs_dry(self, when: float) -> bool:
        """Whether the host was waiting here at that time, and had launched nothing else."""
        return self.begin <= when <= self.end and not self.ahead


class Waits(Observer):
    """Looks on while an engine runs, and notes where the host waits and for what. To ask an event again and again,
    whether it is done, is to wait for it."""

    def __init__(self, below: CodeType):
        """
        Args:
            below: the code that runs the engine: lines are looked for in what it has called.
        """
        self.below = below
        self.device: SimulatedDevice | None = None  # whose clock to go by
        self._waits: list[_Wait] = []
        self._latest: dict[Queue, Operation] = {}  # the newest work in it, or work that it waits for, if that is newer
        self._work: dict[Operation, Operation] = {}  # of a record or wait: the work that it comes after
        self._launched = -1  # number of the newest batch that has been
        self._asking: tuple[Operation, float] | None = None  # what the host asks for again and again, and since when

    def queued(self, operation: Operation) -> None:
        self._asking = None
        if operation.engine is not None:
            self._latest[operation.queue] = operation
        elif operation.after in self._work:
            self._latest[operation.queue] = self._work[operation.after]
        if operation.queue in self._latest:
            self._work[operation] = self._latest[operation.queue]
        if operation.engine == "compute" and operation.batch_number is not None:
            self._launched = max(self._launched, operation.batch_number)

    def asked(self, operation: Operation) -> None:
        if self._asking is None or self._asking[0] is not operation:
            self._asking = operation, self.device.clock()

    def saw(self, operation: Operation) -> None:
        now = self.device.clock()
        begin = self._asking[1] if self._asking is not None and self._asking[0] is operation else now
        self._asking = None
        work, line = self._work.get(operation), lines.of_engine(sys._getframe(1), self.below)
        if line is not None and work is not None and work.batch_number is not None:  # else it is none of the engine's
            ahead = max(self._launched - work.batch_number, 0)
            self._waits.append(_Wait(line, work, begin, max(now, operation.end), ahead))

    def by_line(self, trace: Trace, numbers: list[int]) -> tuple[HostWait, ...]:
        """What was noted, means over some batches, in the order in which they first came.

        Args:
            trace: of the run.
            numbers: of the batches; not the first of the run.
        """
        windows, bubbles = trace.batches(), trace.bubbles()
        dry = [(windows[number - 1][1], bubbles[number]) for number in numbers]  # when the GPU had no more to do
        by_line: dict[tuple[Line, str], list[_Wait]] = defaultdict(list)
        for wait in self._waits:
            by_line[wait.line, wait.operation.what].append(wait)
        found = []
        for (line, what), waits in by_line.items():
            bubble = sum(bubble for when, bubble in dry if any(wait.runs_dry(when) for wait in waits))
            if counted := [wait for wait in waits if wait.operation.batch_number in numbers]:
                seconds = sum(wait.end - wait.begin for wait in counted)
                ahead = statistics.median_low(wait.ahead for wait in counted)
                times, seconds, bubble = (each / len(numbers) for each in (len(counted), seconds, bubble))
                found.append(HostWait(line, what, times, seconds, ahead, bubble))
        return tuple(found)
