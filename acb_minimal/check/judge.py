"""Runs an engine through a small adversarial case under one schedule, and says what went wrong and when.

The cases, and the network that serves them, are in cases.py; which schedules an engine is tried under, schedules.py
decides. What a wrong token comes from is found in evidence.py.
"""

import sys
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field

from ..errors import EngineError, InputError
from ..kv_cache import KVCache, PagePool
from ..model import Model
from ..request import Batch, Request
from ..run.engines import chapter_path, copies_pages, keeps_state, load_chapter, samples, verifies
from ..run.parts import KINDS
from ..run.preempting import MODES, NamedBerths
from ..run.streams import StreamingScheduler
from ..run.timed import BatchDone, TimedModel, TimedScheduler, bases, timed
from ..sampling import Asked
from ..scheduler import Scheduler
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.policies import Lazy
from ..sim.simulator import Limit, Policy
from ..speculation import SpeculatingModel, SpeculatingScheduler
from . import lines, rules
from .cases import NETWORK, POSITIONS, VOCAB, Case
from .drafting import Step
from .evidence import Evidence
from .race_detector import Action, EarlyWait, Hazard, RaceDetector
from .watchdog import Broken, Hung, Refusal, Stopped, watchdog

COSTS = "llama-3.1-8b"  # whose times the policy "timed" goes by
MOST_CALLS = 2000  # of has_work and schedule, by an engine that is getting somewhere
PATIENCE = 10.0  # seconds for a case, which takes a right engine a tenth of one
DRAFTS = 1  # of an engine that verifies, in a case that says nothing of them: its batches have no room for more
LEAVE = 0.5  # seconds that a thread may go on after `run` has ended


class WrongTokenError(Broken):
    """A token that is not the one the network gives.

    Attributes:
        batch_number: of the batch that it came from.
        why: what it comes from; None if that is not known.
    """

    def __init__(self, batch_number: int, request: str, place: int, token: int, right: int, why: str | None):
        self.batch_number, self.why = batch_number, why
        which = f"token {token} as its {ordinal(place + 1)} token"
        super().__init__(f"batch {batch_number} gave request {request} {which}; right is {right}")


class IllegalTokenError(Broken):
    """A token that a request's grammar forbids.

    Attributes:
        batch_number: of the batch that it came from.
    """

    def __init__(self, batch_number: int, error: EngineError):
        self.batch_number = batch_number
        super().__init__(f"batch {batch_number}: {error}")


class OwnerError(Broken):
    """A batch writes to KV pages that are not its requests'.

    Attributes:
        batch_number: of the batch.
    """

    def __init__(self, batch_number: int, what: str):
        self.batch_number = batch_number
        super().__init__(what)


class AcceptanceError(Broken):
    """Other drafts were right than those that are: tokens are right all the same, only fewer at a time.

    Attributes:
        batch_number: of the batch.
        why: what drafts there were.
    """

    def __init__(self, batch_number: int, request: str, accepted: int, step: Step, why: str | None):
        self.batch_number, self.why = batch_number, why
        super().__init__(
            f"batch {batch_number} has accepted {accepted} of {len(step.drafts)} drafts of request {request}; right "
            f"are {step.accepted}"
        )


class YieldError(Broken):
    """A request was not yielded exactly once, when it had its finish_reason."""

    def __init__(self, what: str):
        super().__init__(f"{what}; it has to yield each request exactly once, with its finish_reason")


class Books:
    """What the judge knows of a run, and an engine is not handed: what is right, and what has been yielded.

    Attributes:
        broken: the first thing that was wrong; whoever goes on all the same is told again at every call.
        notes: what there is to tell of the host's actions, by number.
        steps: of each batch that was scheduled; without a time.
        evidence: of what device work was given.
        calls: how often the engine has asked for work.
    """

    def __init__(
        self, case: Case, detector: RaceDetector, any_tokens: bool = False, sampled: bool = False, drafts: int = 0
    ):
        self.case, self.detector, self.any_tokens, self.drafts = case, detector, any_tokens, drafts
        self.right = [tokens for _, tokens, _ in case.served]
        self.broken: Broken | None = None
        self.notes: dict[int, str] = {}
        self.steps: list[BatchDone] = []
        self.evidence = Evidence(case, detector)
        self.calls = 0
        self._updates: list[int] = []  # the numbers of batches that have come back
        self.requests = case.requests(sampled, drafts)
        self._steps = case.steps(drafts) if drafts else []
        self._to_yield = {request.id: request for request in self.requests}

    def scheduler(self, device: SimulatedDevice, kind: type[Scheduler], engine_class: type) -> TimedScheduler:
        """One of that kind that keeps these books, and looks like any other. Its pages are given as the case says, and
        copied if the engine copies them."""
        books, case = self, self.case
        kinds = (StreamingScheduler, TimedScheduler, kind)[not case.streamed :]
        kinds += (MODES["swap" if copies_pages(engine_class) else "recompute"],) if case.berths else ()

        class Kept(*bases(*kinds)):
            num_berths, drafts = case.berths, books.drafts

            def has_work(self) -> bool:
                books.asked()
                return super().has_work()

            def schedule(self) -> Batch | None:
                books.asked()
                batch = super().schedule()
                books.evidence.moving(self)
                if batch is not None:
                    books.scheduled(batch)
                return batch

            def update(self, batch: Batch, tokens) -> list[Request]:
                rows = [batch.rows[index].request for index in batch.sampled]
                places = [None if request.finish_reason else len(request.generated) for request in rows]
                try:
                    finished = super().update(batch, tokens)
                except EngineError as error:
                    books.illegal(batch, error)
                books.updated(batch, rows, places)
                return finished

        pool = PagePool(case.pages, case.page_size)
        limits = case.max_running, case.max_batch_tokens, VOCAB, POSITIONS
        scheduler = self._scheduler = Kept(pool, *limits, device, lambda number: case.host_work)
        for request in self._to_yield.values():
            scheduler.add(request)
        return scheduler

    def model(self, kind: type[Model], engine_class: type) -> type[TimedModel]:
        """That kind of model, timed, but it tells what it has copied, if the engine copies pages."""
        if not copies_pages(engine_class):
            return timed(kind)
        evidence = self.evidence

        class Kept(timed(NamedBerths, kind)):
            def copy_out(self, move, pages) -> None:
                super().copy_out(move, pages)
                evidence.copied_out(move)

            def copy_back(self, move, pages) -> None:
                super().copy_back(move, pages)
                evidence.copied_back(move)

        return Kept

    def asked(self) -> None:
        """The engine asks whether there is work, or for a batch."""
        self.calls += 1
        if self.calls > MOST_CALLS:
            line = lines.of_engine(sys._getframe(), serve.__code__)
            where = f" ({line.told(self.detector.file)}: {line.text})" if line else ""
            self._found(Broken(f"the engine has looked for work {MOST_CALLS:,} times and is not done{where}"))
        if self.broken:
            raise self.broken

    def scheduled(self, batch: Batch) -> None:
        """It has got one.

        Raises:
            Broken: a request in it has ended.
        """
        self.evidence.scheduled(batch)
        for row in batch.rows:
            if row.request.finish_reason:
                self._found(Broken(f"batch {batch.number} has a row for request {row.request.id}, which has ended"))
                raise self.broken
        self.steps.append(BatchDone(0.0, len(batch.rows), batch.num_tokens, batch.decodes))
        rows = (
            f"{row.request.id}: {row.length} at {row.start}, pages {' '.join(map(str, row.request.pages))}"
            for row in batch.rows
        )
        self.notes[self.detector.actions[-1].number] = "; ".join(rows)

    def illegal(self, batch: Batch, error: EngineError) -> None:
        """A token of a batch is one that its request's grammar forbids."""
        self._found(IllegalTokenError(batch.number, error))
        raise self.broken

    def updated(self, batch: Batch, rows: list[Request], places: list[int | None]) -> None:
        """It has taken in a batch's tokens: the next of each of these requests, at these places.

        Raises:
            WrongTokenError: one is wrong.
        """
        self._updates.append(batch.number)
        told = []
        if self.evidence.foreign:
            self._found(OwnerError(*self.evidence.foreign))
        for index, (request, first) in enumerate(zip(rows, places, strict=True)):
            if first is None:  # it was finished already
                continue
            for place, token in enumerate(request.generated[first:], first):
                right = self.right[int(request.id)][place]
                told.append(f"{request.id}: {token}" + (f" (right: {right})" if token != right else ""))
                if token != right and not self.broken and not self.any_tokens:
                    again = self._updates.count(batch.number) > 1
                    why = self.evidence.why(batch, index, token, place, first)
                    why = "the batch was retired before" if again else why
                    self.broken = WrongTokenError(batch.number, request.id, place, token, right, why)
            if self._steps and first and not self.broken and not request.finish_reason:
                accepted, step = len(request.generated) - first - 1, self._steps[int(request.id)][first]
                if accepted != step.accepted:
                    why = self.evidence.stale(batch, index, step)
                    self.broken = AcceptanceError(batch.number, request.id, accepted, step, why)
        self.notes[self.detector.actions[-1].number] = "; ".join(told)
        if self.broken:
            raise self.broken

    def yielded(self, request: Request) -> None:
        """Takes what the engine has yielded.

        Raises:
            Broken: it is not a request that has just got its finish_reason, or not with the tokens that are right.
        """
        if self.case.streamed and isinstance(request, tuple):
            self._handed(*request)
            return
        if not isinstance(request, Request):
            raise YieldError(f"run yielded {request!r}")
        if request.finish_reason is None:
            raise YieldError(f"run yielded request {request.id} before it was finished")
        if self._to_yield.pop(request.id, None) is not request:
            raise YieldError(f"run yielded request {request.id} twice")
        found, right = request.generated, self.right[int(request.id)]
        if self.any_tokens:
            return
        if found != right:
            place = next((n for n, pair in enumerate(zip(found, right, strict=False)) if pair[0] != pair[1]), None)
            if place is None:
                end = "a stop token ends it there" if request.stop_tokens & set(right) else "no more were asked for"
                what = f"{len(found)} tokens; right are {len(right)}" + (f": {end}" if len(found) > len(right) else "")
            else:
                what = f"token {found[place]} as its {ordinal(place + 1)} token; right is {right[place]}"
            never = "" if self._updates else ", and scheduler.update was never called"
            raise Broken(f"run yielded request {request.id} with {what}{never}")
        reason, due = request.finish_reason, "stop" if found[-1] in request.stop_tokens else "length"
        if due == "length" and len(found) < request.max_new_tokens:
            due = "grammar"
        if reason != due:
            raise Broken(f"run yielded request {request.id} with finish_reason {reason!r}; right is {due!r}")

    def _handed(self, request: Request, place: int) -> None:
        """Its reader has a token, and leaves if he has as many as he wants."""
        handed = place + 1 - request.prompt_len
        if handed == self.case.prompts[int(request.id)].cancelled_after and request.finish_reason is None:
            self._scheduler.cancel(request.id)
            self._to_yield.pop(request.id)

    def ended(self, threads: set[threading.Thread]) -> None:
        """Looks at what the engine has left undone.

        Args:
            threads: those that there were before.

        Raises:
            Broken: it did not yield every request, or a thread of it goes on that keeps the process from ending.
        """
        if self._to_yield:
            raise YieldError(f"run ended without yielding request {', '.join(self._to_yield)}")
        pools = {"the KV cache": self._scheduler.pool, "host memory": getattr(self._scheduler, "berths", None)}
        for what, pool in pools.items():
            if pool and (lost := pool.num_pages - pool.num_free):
                raise Broken(f"all requests have ended, and {lost} of {pool.num_pages} places in {what} are not free")
        for thread in set(threading.enumerate()) - threads:
            thread.daemon or thread.join(LEAVE)
            if not thread.daemon and thread.is_alive():
                line = lines.of_engine(sys._current_frames().get(thread.ident))
                where = f" ({line.told(self.detector.file)}: {line.text})" if line else ""
                raise Broken(f"run ended and left a thread running, which keeps the process from ending{where}")

    def _found(self, error: Broken) -> None:
        self.broken = self.broken or error


@dataclass(frozen=True)
class Outcome:
    """What became of a case under one schedule.

    Attributes:
        hazards: all that were found.
        failure: the first wrong token, or the error the engine ended in; None if it did everything right.
        why: what the wrong token comes from, as far as that is known.
        wrong_batch_number: of the batch of that token; None if there was none.
        file: the engine's; a line of it is told without its name.
        events: what happened, in order (RaceDetector.events).
        names: of the host and the streams, by actor.
        early: the wait that comes too early for the first hazard to be none; None if there is none.
        steps: of the batches that were scheduled.
        notes: what there is to tell of actions, by number: of a batch its rows, of a forward pass its tokens.
    """

    hazards: list[Hazard]
    failure: str | None = None
    why: str | None = None
    wrong_batch_number: int | None = None
    file: str | None = None
    events: list[tuple[str, Action]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    early: EarlyWait | None = None
    steps: list[BatchDone] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not self.hazards and self.failure is None

    @property
    def schedule(self) -> int:
        """A number that two outcomes share if the same things happened in the same order. Records and waits count
        where the host issues them; when the device gets to them makes no difference to anything."""
        return hash(tuple((kind, action.number) for kind, action in self.events))


def load(chapter: str) -> type:
    """The `Engine` of a chapter, if its file can be imported, comes to an end, and keeps its hands to itself.

    Args:
        chapter: as for `engines.chapter_path`.

    Raises:
        InputError: there is none, or it cannot or does not.
    """
    file = str(chapter_path(chapter))
    rules.check_source(chapter)
    try:
        with watchdog(PATIENCE, f"importing {chapter!r}", load.__code__, file):
            return load_chapter(chapter)
    except (InputError, KeyboardInterrupt):
        raise
    except Hung as error:
        raise InputError(f"chapter {chapter!r} cannot be used: {error}") from None
    except BaseException as error:
        what = "importing it calls exit: " if isinstance(error, SystemExit) else ""
        raise InputError(f"chapter {chapter!r} cannot be used: {what}{lines.where(error, file)}") from None


def serve(
    engine_class: type,
    case: Case,
    policy: Policy | None = None,
    detector: RaceDetector | None = None,
    device: SimulatedDevice | None = None,
    notes: bool = False,
    any_tokens: bool = False,
) -> Outcome:
    """Runs a case on the simulator under one schedule. The Outcome says whatever goes wrong.

    Args:
        policy: what makes the schedule; by default the order of virtual time.
        detector: who looks on.
        device: where to run it, with policy and detector; by default one of its own.
        notes: whether the Outcome is to have `notes`.
        any_tokens: whether wrong ones are let pass.

    Raises:
        InputError: the class is no engine, or uses what the simulator does not know, or the policy cannot go on with
            it.
    """
    if not callable(getattr(engine_class, "run", None)):
        raise InputError("the Engine has no method `run`")
    file = lines.file_of(engine_class)
    detector = detector or RaceDetector()
    detector.file, detector.below = file, serve.__code__
    device = device or SimulatedDevice(_COSTS, policy, observer=detector)
    sampled, constrained = case.sampled or keeps_state(engine_class), case.constrained or samples(engine_class)
    if sampled and constrained:
        raise InputError(f"case {case.name!r} is not for this engine: it asks for what the engine cannot be asked for")
    drafts = case.drafts or (DRAFTS if verifies(engine_class) else 0)
    books, threads = Books(case, detector, any_tokens, sampled, drafts), set(threading.enumerate())
    cache = KVCache(NETWORK.layers, case.pages, case.page_size, NETWORK.dtype, device.torch_device)
    given = case.network, NETWORK.layers, cache, case.size, device
    _, scheduler, model = KINDS[sampled, constrained]
    if drafts:
        scheduler, model = SpeculatingScheduler, SpeculatingModel
    more = (drafts,) if drafts else (Asked.by(books.requests),) if sampled else ()
    model = books.model(model, engine_class)(*given, *more)
    model.told = books.evidence.drew
    scheduler = books.scheduler(device, scheduler, engine_class)
    if copies_pages(engine_class) and case.berths:
        model.make_berths(case.berths)
    case.network.ran = books.evidence.ran
    failure = None
    with closing(model), rules.handed_only():
        try:
            with watchdog(PATIENCE, "the engine", serve.__code__, file, lambda: books.calls), device.engine_code():
                engine = engine_class(model, scheduler, device.cuda)
                detector.name_streams(engine, device.cuda.default_stream())
                if device.trace is not None:
                    device.begin()
                for request in engine.run() or ():  # a `run` without a yield is a function that returns None
                    books.yielded(request)
            device.finish()
            books.ended(threads)
        except Refusal as refusal:
            raise InputError(str(refusal)) from None
        except Broken as error:
            books.broken = books.broken or error
        except Limit as error:
            raise InputError(f"the engine cannot be checked: {lines.where(error, file)}") from None
        except SystemExit as error:
            failure = f"the engine calls exit, and nothing of it may: {lines.where(error, file)}"
        except (KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:
            failure = lines.where(error, file)
        if books.broken:  # whatever came of it
            failure = str(books.broken)
        if failure is not None:
            # What was still queued then counts too: run late, it cannot have been in order with what came before.
            device.simulator.policy = Lazy()
            with suppress(Exception):
                device.finish()
    found = detector.hazards
    return Outcome(
        found,
        failure,
        getattr(books.broken, "why", None),
        getattr(books.broken, "batch_number", None),
        file,
        detector.events,
        detector.all_names,
        detector.too_early(found[0]) if found else None,
        books.steps,
        books.notes | books.evidence.notes() if notes else {},
    )


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


_COSTS = Costs.of(COSTS)
