"""How fast an engine is beside a chapter, on the simulated GPU, and what its host waits for, line by line.

The setting is that of the workload `demo`, where each chapter's effect shows: an 8B model in batches so wide that
kernels take longer than launching them, and a host that has so much to do that it shows when a GPU waits for it. What
is computed is the small network of the other cases, so that tokens and order are looked at here as well. All figures
are simulated.
"""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from ..errors import EngineError, InputError
from ..run.engines import chapter_path, chapter_paths, load_chapter
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.operations import Operation, Queue
from ..sim.policies import Timed
from ..sim.simulator import Simulator
from ..trace.idle import typical_of
from ..trace.law import Breakdown
from ..trace.spans import Trace
from ..trace.steps import Typical, typical_decodes
from .cases import DEMO, WIDE, Case, Prompt
from .judge import Outcome, serve
from .lines import Line
from .race_detector import RaceDetector

SETTING = f"as in the workload `demo`, on a {Costs.of(DEMO.scale.model).gpu}"
PIECES = ("upload", "count", "correct", "draft", "forward", "logits", "sample", "replay", "download")
SAME = 0.01  # share of a step by which two count as equally fast
MOST_QUESTIONS = 100
# Requests that begin one by one, as others end, on a model that takes longer to launch than to run.
ONE_BY_ONE = Case("one by one", tuple(Prompt(2, count) for count in (5, 3, 6, 4, 3, 5)), 24, 2, 6, host_work=2e-3)
LAUNCHED = "llama-3.2-1b"


class HostWait(NamedTuple):
    """One of the engine's lines in which the host waits; figures are means over steps."""

    line: Line
    what: str  # what it waits for: "upload", "forward", "replay", "download"...
    times: float  # how often, per step
    seconds: float  # how long, per step
    ahead: int  # batches launched by then behind the one it waits for, as a rule; 0 if the GPU has nothing else to do
    bubble: float  # seconds per step of bubbles that began while the host waited here, with no other batch launched


class _Wait(NamedTuple):
    """One wait: in which line, for what work, from when to when, and with how many batches launched behind that."""

    line: Line
    operation: Operation
    begin: float
    end: float
    ahead: int


class Waits(RaceDetector):
    """Looks on while an engine runs, and notes besides where the host waits and for what. To ask an event again and
    again, whether it is done, is to wait for it. Attribute `device`: whose clock to go by."""

    def __init__(self):
        super().__init__()
        self.device: SimulatedDevice | None = None
        self._found: list[_Wait] = []
        self._latest: dict[Queue, Operation] = {}  # the newest work in it, or work that it waits for, if that is newer
        self._work: dict[Operation, Operation] = {}  # of a record or wait: the work that it comes after
        self._launched = -1  # number of the newest batch that has been
        self._asking: tuple[Operation | None, float] = None, 0.0  # what the host asks for again and again, since when

    def queued(self, operation: Operation) -> None:
        super().queued(operation)
        self._asking = None, 0.0
        if operation.engine is not None:
            self._latest[operation.queue] = operation
        elif operation.after in self._work:
            self._latest[operation.queue] = self._work[operation.after]
        if operation.queue in self._latest:
            self._work[operation] = self._latest[operation.queue]
        if operation.engine == "compute" and operation.batch_number is not None:
            self._launched = max(self._launched, operation.batch_number)

    def asked(self, operation: Operation) -> None:
        super().asked(operation)
        if self._asking[0] is not operation:
            self._asking = operation, self.device.clock()

    def saw(self, operation: Operation) -> None:
        super().saw(operation)
        now, (asking, since), self._asking = self.device.clock(), self._asking, (None, 0.0)
        work, line = self._work.get(operation), self._line()
        if line is not None and work is not None and work.batch_number is not None:  # else it is none of the engine's
            ahead = max(self._launched - work.batch_number, 0)
            begin = since if asking is operation else now
            self._found.append(_Wait(line, work, begin, max(now, operation.end), ahead))

    def by_line(self, trace: Trace, numbers: list[int]) -> tuple[HostWait, ...]:
        """What was noted in a run, means over the batches of these numbers, not the first of the run, in the order in
        which they first came."""
        windows, bubbles = trace.batches(), trace.bubbles()
        dry = [(windows[number - 1][1], bubbles[number]) for number in numbers]  # when the GPU had no more to do
        by_line: dict[tuple[Line, str], list[_Wait]] = defaultdict(list)
        for wait in self._found:
            by_line[wait.line, wait.operation.what].append(wait)
        found = []
        for (line, what), waits in by_line.items():
            idle = [(wait.begin, wait.end) for wait in waits if not wait.ahead]
            bubble = sum(bubble for when, bubble in dry if any(begin <= when <= end for begin, end in idle))
            if counted := [wait for wait in waits if wait.operation.batch_number in numbers]:
                seconds = sum(wait.end - wait.begin for wait in counted)
                ahead = statistics.median_low(wait.ahead for wait in counted)
                times, seconds, bubble = (each / len(numbers) for each in (len(counted), seconds, bubble))
                found.append(HostWait(line, what, times, seconds, ahead, bubble))
        return tuple(found)


@dataclass(frozen=True)
class Pace:
    """How fast an engine is. Simulated."""

    name: str  # what to call it
    file: str | None  # its source file; a line of it is told without its name
    typical: Typical  # what the typical decodes of its run have in common
    waits: tuple[HostWait, ...]  # in the order in which the host first does
    trace: Trace  # of the run
    decodes: list[int]  # the numbers of the batches that the other figures are of
    streams: int  # in how many of them its uploads, forward passes and downloads are

    @property
    def ways(self) -> tuple[bool, ...]:
        """What it does: it replays graphs; it launches a batch, or writes it, before it has the tokens of the one
        before; it uses several streams; its host waits no more than once a step."""
        home = {span.batch_number: span.end for span in self.trace.lane("D2H")}

        def before(*names: str) -> bool:
            begun = {span.batch_number: span.start for span in self.trace.lane("CPU") if span.name in names}
            known = [number for number in self.decodes if number in begun and number - 1 in home]
            return sum(begun[number] < home[number - 1] for number in known) > len(known) / 2

        replays = any(span.name == "replay" for span in self.trace.lane("compute"))
        waits_once = round(self.host_waits) <= 1
        return replays, before("forward", "logits", "replay"), before("write"), self.streams > 1, waits_once

    @property
    def parts(self) -> Breakdown:
        return self.typical.parts

    @property
    def host_waits(self) -> float:
        """How often the host waits, per step."""
        return sum(wait.times for wait in self.waits)

    def slower(self, other: "Pace") -> float:
        """How much longer a step takes than the other's, as a share of that; negative if it takes less."""
        return self.parts.step / other.parts.step - 1

    def as_fast(self, other: "Pace") -> bool:
        """Whether a step takes no longer than the other's, as far as that matters."""
        return self.slower(other) <= SAME


class Patient(Timed):
    """In order of virtual time, but of who asks whether work is done, and does nothing else, again and again, the clock
    moves on to when it is: thousands of questions say no more than a hundred."""

    def __init__(self):
        super().__init__()
        self._asked, self._when, self._times = None, 0.0, 0

    def asked_for(self, target: Operation, simulator: Simulator) -> None:
        again = self._asked is target and simulator.now - self._when <= 1.5 * simulator.call_seconds
        self._times = self._times + 1 if again else 0
        if self._times > MOST_QUESTIONS:
            while not target.done:
                self.run_towards(target, simulator)
            simulator.now = max(simulator.now, target.end)
        self._asked, self._when = target, simulator.now


def serve_timed(
    engine_class: type,
    detector: RaceDetector,
    any_tokens: bool = False,
    case: Case = WIDE,
    costs: Costs | None = None,
) -> tuple[Outcome, SimulatedDevice]:
    """Runs the case that engines are timed with, or another, by these costs, or those of SETTING: what became of it,
    and the device, which has the trace. Wrong tokens can be let pass, as for `serve`."""
    costs = costs or Costs.of(DEMO.scale.model).scaled(DEMO.scale.rows, DEMO.scale.positions)
    device = SimulatedDevice(costs, Patient(), trace=True, observer=detector)
    detector.device = device
    return serve(engine_class, case, detector=detector, device=device, any_tokens=any_tokens), device


def _timed(engine_class: type, *case: Case | Costs) -> tuple[Outcome, Waits, Trace]:
    """As `serve_timed` has it, whether or not tokens are right, and what the host waited for.

    Raises:
        InputError: it does not come to its end; the message says why.
    """
    waits = Waits()
    outcome, device = serve_timed(engine_class, waits, True, *case)
    if outcome.failure:
        raise InputError(f"the engine cannot be timed: {outcome.failure}")
    return outcome, waits, device.trace.told(outcome.steps)


def pace(engine_class: type, name: str) -> Pace:
    """Times an engine, whether or not its tokens are right. `name`: what to call it.

    Raises:
        InputError: it does not come to its end; the message says why.
    """
    outcome, waits, trace = _timed(engine_class)
    try:
        typical = typical_of(trace)
    except EngineError as error:
        raise InputError(f"the engine cannot be timed: {error}") from None
    if typical is None:
        raise InputError("the engine cannot be timed: no two of its batches of decodes follow one another")
    decodes = typical_decodes(outcome.steps)
    streams = len({action.actor for action in waits.actions[1:] if action.what in PIECES})
    return Pace(name, outcome.file, typical, waits.by_line(trace, decodes), trace, decodes, streams)


def first_token_lies(engine_class: type) -> float:
    """Seconds for which a first token has been in host memory before the engine takes it in, on average, where the host
    is what takes long: requests that begin ONE_BY_ONE, each kernel launched by itself. Simulated.

    Raises:
        InputError: it does not come to its end.
    """
    outcome, _, trace = _timed(engine_class, ONE_BY_ONE, Costs.of(LAUNCHED))
    there = {span.batch_number: span.end for span in trace.lane("D2H")}
    taken = {span.batch_number: span.start for span in trace.lane("CPU") if span.name == "update"}
    firsts = [number for number, step in enumerate(outcome.steps) if not step.decodes]
    return statistics.mean(taken[number] - there[number] for number in firsts)


@cache
def of_chapter(chapter: str) -> Pace:
    """The pace of a chapter, by what `engines.chapter_path` takes."""
    return pace(load_chapter(chapter), chapter_path(chapter).stem)


def nearest(mine: Pace) -> str:
    """The chapter that does most of what an engine does, the most telling first; of several, the first."""
    return max(
        chapter_paths(),
        key=lambda name: [mine == theirs for mine, theirs in zip(mine.ways, of_chapter(name).ways, strict=True)],
    )
