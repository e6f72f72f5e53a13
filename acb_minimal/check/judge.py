"""Runs an engine through a small adversarial case under one schedule, and says what went wrong and when.

The cases, and the network that serves them, are in cases.py; which schedules an engine is tried under, schedules.py
decides.
"""

import sys
from contextlib import closing, suppress
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..kv_cache import KVCache, PagePool
from ..request import Batch, Request
from ..run.engines import chapter_path, load_chapter
from ..run.timed import TimedModel, TimedScheduler
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.policies import Lazy
from ..sim.simulator import Limit, Policy
from ..slot import SlotSize
from . import lines
from .cases import NETWORK, POSITIONS, VOCAB, Case
from .race_detector import Hazard, RaceDetector
from .watchdog import Broken, Hung, Refusal, watchdog

COSTS = "llama-3.1-8b"  # whose times the policy "timed" goes by
MOST_CALLS = 2000  # of has_work and schedule, by an engine that is getting somewhere
PATIENCE = 10.0  # seconds for a case, which takes a right engine a tenth of one


class WrongTokenError(Broken):
    """A token that is not the one the network gives.

    Attributes:
        batch_number: of the batch that it came from.
    """

    def __init__(self, batch_number: int, request: str, place: int, token: int, right: int):
        self.batch_number = batch_number
        super().__init__(
            f"batch {batch_number} gave request {request} token {token} as its number {place}; right is {right}"
        )


class YieldError(Broken):
    """A request was not yielded exactly once, when it had its finish_reason."""

    def __init__(self, what: str):
        super().__init__(f"{what}; it has to yield each request exactly once, with its finish_reason")


class StalledError(Broken):
    """The engine goes on and on and does not get anywhere."""


class Referee(TimedScheduler):
    """A scheduler that knows what the tokens should be and what is yielded, and stops an engine that does not get on.

    Attributes:
        right: the tokens of every request, by number.
        broken: the first thing that was wrong; whoever goes on all the same is told again at every call.
    """

    def __init__(self, case: Case, device: SimulatedDevice, file: str | None = None):
        """
        Args:
            file: the engine's; a line of it is told without its name.
        """
        pool = PagePool(case.pages, page_size=2)
        super().__init__(pool, case.max_running, case.max_batch_tokens, VOCAB, POSITIONS, device)
        self.right = [tokens for _, tokens, _ in case.served]
        self.broken: Broken | None = None
        self.file = file
        self._calls = 0
        self._to_yield = {request.id: request for request in case.requests()}
        for request in self._to_yield.values():
            self.add(request)

    def has_work(self) -> bool:
        self._calls += 1
        if self._calls > MOST_CALLS:
            line = lines.of_engine(sys._getframe(), serve.__code__)
            where = f" ({line.told(self.file)}: {line.text})" if line else ""
            self.broken = self.broken or StalledError(
                f"the engine has looked for work {MOST_CALLS:,} times and is not done{where}"
            )
        if self.broken:
            raise self.broken
        return super().has_work()

    def schedule(self) -> Batch | None:
        self.has_work()
        return super().schedule()

    def update(self, batch: Batch, tokens) -> list[Request]:
        rows = (batch.rows[index].request for index in batch.sampled)
        expected = [(request, len(request.generated)) for request in rows if request.finish_reason is None]
        finished = super().update(batch, tokens)
        for request, place in expected:
            token, right = request.generated[place], self.right[int(request.id)][place]
            if token != right:
                self.broken = self.broken or WrongTokenError(batch.number, request.id, place, token, right)
                raise self.broken
        return finished

    def yielded(self, request: Request) -> None:
        """Takes what the engine has yielded.

        Raises:
            YieldError: it is not a request that has just got its finish_reason.
        """
        if not isinstance(request, Request):
            raise YieldError(f"run yielded {request!r}")
        if request.finish_reason is None:
            raise YieldError(f"run yielded request {request.id} before it was finished")
        if self._to_yield.pop(request.id, None) is not request:
            raise YieldError(f"run yielded request {request.id} twice")

    def ended(self) -> None:
        """Looks at what the engine has left undone.

        Raises:
            YieldError: it did not yield every request.
        """
        if self._to_yield:
            raise YieldError(f"run ended without yielding request {', '.join(self._to_yield)}")


@dataclass(frozen=True)
class Outcome:
    """What became of a case under one schedule.

    Attributes:
        hazards: all that were found.
        failure: the first wrong token, or the error the engine ended in; None if it did everything right.
        wrong_batch_number: of the batch of that token; None if there was none.
        detector: who looked on; `detector.events` is what happened, in order.
    """

    hazards: list[Hazard]
    failure: str | None
    wrong_batch_number: int | None
    detector: RaceDetector

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not self.hazards and self.failure is None

    @property
    def schedule(self) -> int:
        """A number that two outcomes share if the same things happened in the same order. Records and waits count
        where the host issues them; when the device gets to them makes no difference to anything."""
        return hash(tuple((kind, action.number) for kind, action in self.detector.events))


def load(chapter: str) -> type:
    """The `Engine` of a chapter, if its file can be imported and comes to an end.

    Args:
        chapter: as for `engines.chapter_path`.

    Raises:
        InputError: there is none, or it cannot.
    """
    file = str(chapter_path(chapter))
    try:
        with watchdog(PATIENCE, f"importing {chapter!r}", load.__code__, file):
            return load_chapter(chapter)
    except SystemExit as error:
        where = lines.where(error, file)
        raise InputError(f"chapter {chapter!r} cannot be used: importing it calls exit: {where}") from None
    except Hung as error:
        raise InputError(f"chapter {chapter!r} cannot be used: {error}") from None


def serve(
    engine_class: type, case: Case, policy: Policy | None = None, detector: RaceDetector | None = None
) -> Outcome:
    """Runs a case on the simulator under one schedule. The Outcome says whatever goes wrong.

    Args:
        policy: what makes the schedule; by default the order of virtual time.
        detector: who looks on.

    Raises:
        InputError: the class is no engine, or uses what the simulator does not know, or the policy cannot go on with
            it.
    """
    if not callable(getattr(engine_class, "run", None)):
        raise InputError("the Engine has no method `run`")
    file = lines.file_of(engine_class)
    detector = detector or RaceDetector()
    detector.file, detector.below = file, serve.__code__
    device = SimulatedDevice(_COSTS, policy, observer=detector)
    scheduler = Referee(case, device, file)
    cache = KVCache(NETWORK.layers, case.pages, 2, torch.float64, device.torch_device)
    size = SlotSize(case.max_running, case.max_batch_tokens, case.pages)
    model = TimedModel(NETWORK, NETWORK.layers, cache, size, device)
    failure = None
    with closing(model):
        try:
            with watchdog(PATIENCE, "the engine", serve.__code__, file), device.engine_code():
                engine = engine_class(model, scheduler, device.cuda)
                detector.name_streams(engine, device.cuda.default_stream())
                for request in engine.run() or ():  # a `run` without a yield is a function that returns None
                    scheduler.yielded(request)
            device.finish()
            scheduler.ended()
        except Refusal as refusal:
            raise InputError(str(refusal)) from None
        except Broken as error:
            scheduler.broken = scheduler.broken or error
        except Limit as error:
            raise InputError(f"the engine cannot be checked: {lines.where(error, file)}") from None
        except SystemExit as error:
            failure = f"the engine calls exit, and nothing of it may: {lines.where(error, file)}"
        except Exception as error:
            failure = lines.where(error, file)
        if scheduler.broken:  # whatever came of it
            failure = str(scheduler.broken)
        if failure is not None:
            # What was still queued then counts too: run late, it cannot have been in order with what came before.
            device.simulator.policy = Lazy()
            with suppress(Exception):
                device.finish()
    return Outcome(detector.hazards, failure, getattr(scheduler.broken, "batch_number", None), detector)


_COSTS = Costs.of(COSTS)
