"""What the judge knows of a run, and the parts an engine is handed do not show: what is right, what has come."""

import sys
import threading

from ..errors import EngineError
from ..kv_cache import PagePool
from ..model import Model
from ..request import Batch, Request
from ..run.engines import copies_pages
from ..run.part_two import NamedBerths
from ..run.parts import MODES
from ..run.streams import StreamingScheduler
from ..run.timed import BatchDone, TimedModel, TimedScheduler, bases, timed
from ..scheduler import Scheduler
from ..sim.device import SimulatedDevice
from . import lines
from .cases import Case
from .evidence import Evidence
from .network import POSITIONS, VOCAB
from .race_detector import RaceDetector
from .watchdog import Broken

MOST_CALLS = 2000  # of has_work and schedule, by an engine that is getting somewhere
LEAVE = 0.5  # seconds that a thread may go on after `run` has ended
ONCE = "it has to yield each request exactly once, with its finish_reason"


class Books:
    """What the judge knows of a run, and an engine is not handed: what is right, and what has been yielded. All that is
    wrong is raised as Broken, at the call that shows it."""

    def __init__(self, case: Case, detector: RaceDetector, any_tokens: bool, requests: list[Request], drafts: int):
        self.case, self.detector, self.any_tokens, self.drafts = case, detector, any_tokens, drafts
        self.right = [tokens for _, tokens, _ in case.served]
        self.broken: Broken | None = None  # the first; whoever goes on all the same is told again at every call
        self.notes: dict[int, str] = {}  # what there is to tell of the host's actions, by number
        self.steps: list[BatchDone] = []  # of each batch that was scheduled; without a time
        self.evidence = Evidence(case, detector)  # of what device work was given
        self.calls = 0  # how often the engine has asked for work
        self._updates: list[int] = []  # the numbers of batches that have come back
        self._decodes = case.steps(drafts) if drafts else []
        self._to_yield = {request.id: request for request in requests}

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
                except EngineError as error:  # a token that its request's grammar forbids
                    raise books.found(f"batch {batch.number}: {error}", batch.number) from None
                books.updated(batch, rows, places)
                return finished

        pool = PagePool(case.pages, case.page_size)
        limits = case.max_running, case.max_batch_tokens, VOCAB, POSITIONS
        scheduler = self._scheduler = Kept(pool, *limits, device=device, host_work=lambda number: case.host_work)
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

    def found(self, what: str, batch_number: int | None = None, why: str | None = None) -> Broken:
        """The first thing that was wrong: this, unless there was one before."""
        self.broken = self.broken or Broken(what, batch_number, why)
        return self.broken

    def _note(self, told: list[str]) -> None:
        self.notes[self.detector.actions[-1].number] = "; ".join(told)

    def asked(self) -> None:
        """The engine asks whether there is work, or for a batch."""
        self.calls += 1
        if self.calls > MOST_CALLS:
            where = lines.at(lines.of_engine(sys._getframe(), self.detector.below), self.detector.file)
            self.found(f"the engine has looked for work {MOST_CALLS:,} times and is not done{where}")
        if self.broken:
            raise self.broken

    def scheduled(self, batch: Batch) -> None:
        """It has got one, in which no request may have ended, and no page may be of two."""
        self.evidence.scheduled(batch)
        for row in batch.rows:
            if row.request.finish_reason:
                raise self.found(f"batch {batch.number} has a row for request {row.request.id}, which has ended")
        owners: dict[int, str] = {}
        for request in self._scheduler.running:
            for page in request.pages:
                if (other := owners.setdefault(page, request.id)) != request.id:
                    which = f"page {page} was freed while request {other} had it"
                    raise self.found(f"{which}; now {request.id} has it too")
        self.steps.append(BatchDone(0.0, len(batch.rows), batch.num_tokens, batch.decodes))
        told = ((each, start, length, " ".join(map(str, each.pages))) for each, start, length, _ in batch.rows)
        self._note([f"{each.id}: {length} at {start}, pages {pages}" for each, start, length, pages in told])

    def updated(self, batch: Batch, rows: list[Request], places: list[int | None]) -> None:
        """It has taken in a batch's tokens: the next of each of these requests, from these places on."""
        number = batch.number
        self._updates.append(number)
        told, self.broken = [], self.broken or self.evidence.foreign
        for index, (request, first) in enumerate(zip(rows, places, strict=True)):
            if first is None:  # it was finished already
                continue
            id, answer = request.id, self.right[int(request.id)]
            for place, token in enumerate(request.generated[first:], first):
                if place >= len(answer):
                    self.found(f"batch {number} gave request {id} a token when its reader had left")
                    break
                right = answer[place]
                told.append(f"{id}: {token}" + (f" (right: {right})" if token != right else ""))
                if token != right and not self.broken and not self.any_tokens:
                    why = "the batch was retired before"
                    if self._updates.count(number) == 1:
                        why = self.evidence.why(batch, index, token, place, first)
                    which = f"request {id} token {token} as its {ordinal(place + 1)} token; right is {right}"
                    self.found(f"batch {number} gave {which}", number, why)
            if self._decodes and first and not self.broken and not request.finish_reason:
                accepted, step = len(request.generated) - first - 1, self._decodes[int(id)][first]
                if accepted != step.accepted:  # the tokens are right all the same, only fewer at a time
                    which = f"{accepted} of {len(step.drafts)} drafts of request {id}; right are {step.accepted}"
                    self.found(f"batch {number} has accepted {which}", number, self.evidence.stale(batch, index, step))
        self._note(told)
        if self.broken:
            raise self.broken

    def yielded(self, request: Request) -> None:
        """Takes what the engine has yielded: a request that has just got its finish_reason, with the right tokens."""
        if self.case.streamed and isinstance(request, tuple):
            self._handed(*request)
            return
        if not isinstance(request, Request):
            raise Broken(f"run yielded {request!r}; {ONCE}")
        if request.finish_reason is None:
            raise Broken(f"run yielded request {request.id} before it was finished; {ONCE}")
        if self._to_yield.pop(request.id, None) is not request:
            raise Broken(f"run yielded request {request.id} twice; {ONCE}")
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
        """Looks at what the engine has left undone: requests, pages, and threads besides those that there were before,
        which keep the process from ending."""
        if self._to_yield:
            raise Broken(f"run ended without yielding request {', '.join(self._to_yield)}; {ONCE}")
        pools = {"the KV cache": self._scheduler.pool, "host memory": getattr(self._scheduler, "berths", None)}
        for what, pool in pools.items():
            if pool and (lost := pool.num_pages - pool.num_free):
                raise Broken(f"all requests have ended, and {lost} of {pool.num_pages} places in {what} are not free")
        for thread in set(threading.enumerate()) - threads:
            thread.daemon or thread.join(LEAVE)
            if not thread.daemon and thread.is_alive():
                where = lines.at(lines.of_engine(sys._current_frames().get(thread.ident)), self.detector.file)
                raise Broken(f"run ended and left a thread running, which keeps the process from ending{where}")


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"
