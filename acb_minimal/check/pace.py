"""How fast an engine is beside a chapter, on the simulated GPU, and what its host waits for, line by line.

The setting is that of the workload `demo`, where each chapter's effect shows: an 8B model in batches so wide that
kernels take longer than launching them, and a host that has so much to do that it shows when a GPU waits for it.
Nothing is computed, only time passes: so it takes a moment, and says nothing of tokens. All figures are simulated.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cache

from ..errors import EngineError, InputError
from ..measure.metrics import Breakdown, widest_decodes
from ..run.checkpoint import Checkpoint
from ..run.engines import chapter_path, chapter_paths, load_chapter
from ..run.options import Options
from ..run.session import Session
from ..run.workload import workload
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.operations import Operation
from ..sim.policies import Timed
from ..sim.queues import Queues
from . import lines
from .endings import Broken, watchdog
from .waits import HostWait, Waits

DEMO = workload("demo")
# As many requests as run at a time, with room for all their prompts in the first batch: then nothing but decodes.
WORKLOAD = replace(DEMO, model=DEMO.scale.model, requests=DEMO.max_running, prompt_tokens=4, new_tokens=14)
DIALS = Options(host_work=DEMO.host_work, scale=DEMO.scale)
SETTING = f"as in the workload `demo`, on a {Costs.of(DEMO.scale.model).gpu}"
SAME = 0.01  # share of a step by which two count as equally fast
PATIENCE = 10.0  # seconds for a run, which takes a tenth of one
MOST_QUESTIONS = 100


@dataclass(frozen=True)
class Pace:
    """How fast an engine is. Simulated.

    Attributes:
        name: what to call it.
        file: its source file; a line of it is told without its name.
        parts: where the time of a decode step goes.
        waits: where the host waits, in the order in which it first does.
    """

    name: str
    file: str | None
    parts: Breakdown
    waits: tuple[HostWait, ...]

    @property
    def host_waits(self) -> float:
        """How often the host waits, per step."""
        return sum(wait.times for wait in self.waits)

    @property
    def blamed(self) -> list[HostWait]:
        """The lines in which the host waits while the GPU runs dry, the most expensive first."""
        return sorted((wait for wait in self.waits if wait.bubble > 0), key=lambda wait: -wait.bubble)

    def slower(self, other: "Pace") -> float:
        """How much longer a step takes than the other's, as a share of that; negative if it takes less."""
        return self.parts.step / other.parts.step - 1

    def as_fast(self, other: "Pace") -> bool:
        """Whether a step takes no longer than the other's, as far as that matters."""
        return self.slower(other) <= SAME


def pace(engine_class: type, name: str) -> Pace:
    """Runs an engine that is in order, and times it.

    Args:
        name: what to call it.

    Raises:
        InputError: it does not come to its end here; the message says why.
    """
    file = lines.file_of(engine_class)
    waits = Waits(pace.__code__)
    scale = DIALS.scale
    costs = Costs.of(scale.model).scaled(scale.rows, scale.positions)
    device = SimulatedDevice(costs, Patient(), arithmetic=False, trace=True, observer=waits)
    waits.device = device
    try:
        with ExitStack() as serving:
            session = Session(WORKLOAD.job(_checkpoint().vocab_size), engine_class, _checkpoint(), device, DIALS)
            limit = watchdog(PATIENCE, "the engine", pace.__code__, file)
            session.progress = lambda text: None if text else serving.enter_context(limit)
            session.serve()
        trace, steps = session.trace, session.scheduler.steps
        return Pace(name, file, Breakdown.simulated(trace, steps), waits.by_line(trace, widest_decodes(steps)))
    except (Broken, EngineError) as error:
        raise InputError(f"the engine cannot be timed: {error}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"the engine cannot be timed: {lines.where(error, file)}") from None


class Patient(Timed):
    """In order of virtual time, but of who asks whether work is done, and does nothing else, again and again, the clock
    moves on to when it is: thousands of questions say no more than a hundred."""

    def __init__(self):
        self._asked: tuple[Operation, float] | None = None
        self._times = 0

    def asked_for(self, target: Operation, queues: Queues) -> None:
        again = self._asked is not None and self._asked[0] is target
        again = again and queues.now - self._asked[1] <= 1.5 * queues.call_seconds
        self._times = self._times + 1 if again else 0
        if self._times > MOST_QUESTIONS:
            while not target.done:
                self.run_towards(target, queues)
            queues.now = max(queues.now, target.end)
        self._asked = target, queues.now


@cache
def of_chapter(chapter: str) -> Pace:
    """A chapter's pace.

    Args:
        chapter: as for `engines.chapter_path`.
    """
    return pace(load_chapter(chapter), chapter_path(chapter).stem)


def nearest(file: str) -> str:
    """The chapter whose text is most like that of an engine's file; the later one of two that are equally like it.

    Args:
        file: as for `engines.chapter_path`.
    """
    mine = _statements(chapter_path(file).read_text())
    return max(chapter_paths(), key=lambda name: SequenceMatcher(None, mine, _chapter(name), False).ratio())


@cache
def _checkpoint() -> Checkpoint:
    return Checkpoint(WORKLOAD.model)


@cache
def _chapter(name: str) -> list[str]:
    return _statements(chapter_path(name).read_text())


def _statements(source: str) -> list[str]:
    """The lines of a source, without comments and blank ones."""
    return [text for line in source.splitlines() if (text := line.split("#")[0].strip())]
