"""Runs an engine through small adversarial cases, under many schedules, and says what went wrong and when.

The cases are served by a network of one attention layer that is as fast as a network can be and forgets nothing: its
next token depends on every token so far, so a wrong token anywhere changes those after it. Scheduler, slots, paged
cache and attention are the real ones. This file runs one schedule at a time; which ones, search.py decides.
"""

import traceback
from contextlib import suppress
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..kv_cache import KVCache, PagePool
from ..model import Model
from ..request import Batch, Request
from ..scheduler import Scheduler
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.policies import Lazy
from ..sim.queues import Policy
from ..slot import SlotSize
from .cases import NETWORK, POSITIONS, VOCAB, Case
from .hazards import Checker, Hazard

COSTS = "llama-3.1-8b"  # whose times the policy "timed" goes by
MOST_CALLS = 2000  # of has_work and schedule, by an engine that is getting somewhere


class WrongTokenError(Exception):
    """A token that is not the one the network gives."""

    def __init__(self, batch: int, request: str, place: int, token: int, right: int):
        self.batch = batch
        super().__init__(f"batch {batch} gave request {request} token {token} as its number {place}; right is {right}")


class Referee(Scheduler):
    """A scheduler that knows what the tokens should be, and stops an engine that does not get on."""

    def __init__(self, case: Case, device: SimulatedDevice):
        pool = PagePool(case.pages, page_size=2)
        super().__init__(pool, case.max_running, case.max_batch_tokens, VOCAB, POSITIONS, device)
        self.right = [tokens for _, tokens, _ in case.served]
        self._calls = 0
        for request in case.requests():
            self.add(request)

    def has_work(self) -> bool:
        self._calls += 1
        if self._calls > MOST_CALLS:
            raise RuntimeError(f"the engine has looked for work {MOST_CALLS:,} times and is not done")
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
                raise WrongTokenError(batch.number, request.id, place, token, right)
        return finished


@dataclass(frozen=True)
class Outcome:
    """What became of a case under one schedule.

    hazards      all that were found
    failure      the first wrong token, or the error the engine ended in; None if it did everything right
    wrong_batch  the batch of that token; None if there was none
    checker      who looked on; `checker.events` is what happened, in order
    """

    hazards: list[Hazard]
    failure: str | None
    wrong_batch: int | None
    checker: Checker

    @property
    def clean(self) -> bool:
        return not self.hazards and self.failure is None

    @property
    def schedule(self) -> int:
        """A number that two outcomes share if the same things happened in the same order. Records and waits count
        where the host issues them; when the device gets to them makes no difference to anything."""
        return hash(tuple((kind, action.number) for kind, action in self.checker.events))


class Stopped(BaseException):
    """Raised by a policy that has seen enough of a schedule. No Exception: an engine must not catch it."""


def serve(
    engine_class: type, case: Case, policy: Policy | None = None, checker: Checker | None = None
) -> Outcome:
    """Runs a case on the simulator under one schedule, `checker` looking on. The Outcome says whatever goes wrong."""
    try:
        file = engine_class.run.__code__.co_filename
    except AttributeError:
        raise InputError("the Engine has no method `run`") from None
    checker = checker or Checker()
    checker.file = file
    device = SimulatedDevice(_COSTS, policy, observer=checker)
    scheduler = Referee(case, device)
    cache = KVCache(NETWORK.layers, case.pages, 2, torch.float64, device.torch_device)
    size = SlotSize(case.max_running, case.max_batch_tokens, case.pages)
    model = Model(NETWORK, NETWORK.layers, cache, size, device)
    failure = wrong_batch = None
    finished = []
    try:
        engine = engine_class(model, scheduler, device.cuda)
        checker.name_streams(engine, device.cuda.default_stream())
        for request in engine.run():
            finished.append(request.id)
        device.finish()
        if missing := [id for id in map(str, range(len(case.prompts))) if id not in finished]:
            failure = f"the engine stopped without finishing request {', '.join(missing)}"
    except WrongTokenError as error:
        failure, wrong_batch = str(error), error.batch
    except InputError:
        raise  # not the engine's: the policy's
    except Exception as error:
        failure = _where(error, file)
    finally:
        model.close()
    if failure is not None:
        # What was still queued then counts too: run late, it cannot have been in order with what came before.
        device.cuda.queues.policy = Lazy()
        with suppress(Exception):
            device.finish()
    return Outcome(checker.hazards, failure, wrong_batch, checker)


_COSTS = Costs.of(COSTS)


def _where(error: Exception, file: str) -> str:
    """The error on one line, with the engine's line that it came through."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{text} (line {lines[-1].lineno}: {lines[-1].line})" if lines else text
