"""Runs an engine through a small adversarial case under one schedule, and says what went wrong and when.

The cases, and the network that serves them, are in cases.py; which schedules an engine is tried under, schedules.py
decides. What a wrong token comes from is found in evidence.py.
"""

import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field

from ..errors import InputError
from ..kv_cache import KVCache
from ..run.engines import chapter_path, copies_pages, keeps_state, load_chapter, samples, verifies
from ..run.parts import KINDS, reserve_of
from ..run.timed import BatchDone
from ..sampling import Asked
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.operations import Limit
from ..sim.policies import Lazy
from ..sim.simulator import Policy
from ..speculation import SpeculatingModel, SpeculatingScheduler
from . import lines, rules
from .actions import Action, EventWait, Hazard
from .books import Books
from .cases import Case
from .network import NETWORK
from .race_detector import RaceDetector
from .watchdog import Broken, Refusal, Stopped, watchdog

COSTS = Costs.of("llama-3.1-8b")  # whose times the policy "timed" goes by
PATIENCE = 10.0  # seconds for a case, which takes a right engine a tenth of one
DRAFTS = 1  # of an engine that verifies, in a case that says nothing of them: its batches have no room for more


@dataclass(frozen=True)
class Outcome:
    """What became of a case under one schedule."""

    hazards: list[Hazard]
    failure: str | None = None  # the first wrong token, or the error the engine ended in
    why: str | None = None  # what the wrong token comes from, as far as that is known
    wrong_batch_number: int | None = None  # of that token
    file: str | None = None  # the engine's; a line of it is told without its name
    events: list[tuple[str, Action]] = field(default_factory=list)  # as RaceDetector has them
    names: list[str] = field(default_factory=list)  # of the host and the streams, by actor
    early: EventWait | None = None  # the wait that comes too early for the first hazard to be none
    steps: list[BatchDone] = field(default_factory=list)  # of the batches that were scheduled
    notes: dict[int, str] = field(default_factory=dict)  # what there is to tell of actions, by number

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
    except BaseException as error:
        what = "importing it calls exit: " if isinstance(error, SystemExit) else ""
        said = str(error) if isinstance(error, Broken) else lines.where(error, file)
        raise InputError(f"chapter {chapter!r} cannot be used: {what}{said}") from None


def serve(
    engine_class: type,
    case: Case,
    policy: Policy | None = None,
    detector: RaceDetector | None = None,
    device: SimulatedDevice | None = None,
    any_tokens: bool = False,
) -> Outcome:
    """Runs a case on the simulator under one schedule, which a policy makes; by default in the order of virtual time.
    The Outcome says whatever goes wrong; `any_tokens`: wrong tokens are let pass. A device has policy and detector.

    Raises:
        InputError: the class is no engine, or uses what the simulator does not know, or the policy cannot go on with
            it.
    """
    if not callable(getattr(engine_class, "run", None)):
        raise InputError("the Engine has no method `run`")
    detector, file = detector or RaceDetector(), lines.file_of(engine_class)
    detector.file, detector.below = file, serve.__code__
    device = device or SimulatedDevice(COSTS, policy, observer=detector)
    books, model, scheduler = _parts(engine_class, case, detector, device, any_tokens)
    failure, threads = None, set(threading.enumerate())
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
        except Limit as error:
            raise InputError(f"the engine cannot be checked: {lines.where(error, file)}") from None
        except (KeyboardInterrupt, Stopped):
            raise
        except Broken as error:
            books.broken = books.broken or error
        except BaseException as error:
            exits = "the engine calls exit, and nothing of it may: " if isinstance(error, SystemExit) else ""
            failure = f"{exits}{lines.where(error, file)}"
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
        books.notes | books.evidence.notes(),
    )


def _parts(engine_class: type, case: Case, detector: RaceDetector, device: SimulatedDevice, any_tokens: bool) -> tuple:
    """The books of a run, and the model and the scheduler that an engine is handed: of the kinds that it needs."""
    sampled, constrained = case.sampled or keeps_state(engine_class), case.constrained or samples(engine_class)
    if sampled and constrained:
        raise InputError(f"case {case.name!r} is not for this engine: it asks for what the engine cannot be asked for")
    _, scheduler, model = KINDS[sampled, constrained]
    drafts = case.drafts or (DRAFTS if verifies(engine_class) else 0)
    if drafts:
        scheduler, model = SpeculatingScheduler, SpeculatingModel
    requests = case.requests(sampled, drafts, drafts and reserve_of(engine_class, drafts))
    books = Books(case, detector, any_tokens, requests, drafts)
    cache = KVCache(NETWORK.layers, case.pages, case.page_size, NETWORK.dtype, device.torch_device)
    more = (Asked.by(requests),) if sampled and not drafts else ()
    size = case.size._replace(drafts=drafts)
    made = books.model(model, engine_class)(case.network, NETWORK.layers, cache, size, device, *more)
    made.told, case.network.ran = books.evidence.drew, books.evidence.ran
    kept = books.scheduler(device, scheduler, engine_class)
    if copies_pages(engine_class) and case.berths:
        made.make_berths(case.berths)
    return books, made, kept
