"""Runs an engine through small adversarial cases, under many schedules, and says what went wrong and when.

The cases are served by a network of one attention layer that is as fast as a network can be and forgets nothing: its
next token depends on every token so far, so a wrong token anywhere changes those after it. Scheduler, slots, paged
cache and attention are the real ones. This file runs one schedule at a time; which ones, search.py decides.
"""

import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from .costs import Costs
from .device import SimulatedDevice
from .errors import InputError
from .hazards import Checker, Hazard
from .kv_cache import AttentionLayer, KVCache, PagePool
from .model import Model
from .queues import Choice
from .request import Batch, Request
from .scheduler import Scheduler
from .slot import SlotSize

VOCAB, WIDTH, POSITIONS, SCALE = 31, 4, 64, 0.1
COSTS = "llama-3.1-8b"  # whose times the policy "timed" goes by
MOST_CALLS = 2000  # of has_work and schedule, by an engine that is getting somewhere


class Network(torch.nn.Module):
    """A causal LM of one attention layer, as Model runs it. In float64, so that rounding decides no token."""

    layers = (AttentionLayer("attention", 1, WIDTH),)

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.Module()
        random = torch.Generator().manual_seed(0)
        self.tokens, self.places, self.head = (
            torch.randn(shape, WIDTH, generator=random, dtype=torch.float64) for shape in (VOCAB, POSITIONS, VOCAB)
        )

    def forward(self, input_ids, position_ids, use_cache, logits_to_keep, batch):
        hidden = (self.tokens[input_ids[0]] * self.places[position_ids[0]])[:, None]
        caches = self.attention.key_cache, self.attention.value_cache
        seen = torch.ops.acb.paged_attention(hidden, hidden, hidden, *caches, *batch, SCALE, 0)
        return Output(self.logits(seen[logits_to_keep, 0])[None])

    def logits(self, seen: torch.Tensor) -> torch.Tensor:
        """Scores of the next token from what attention has seen; the sine lets the smallest difference decide."""
        return (1000 * seen).sin() @ self.head.T

    def generate(self, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """The greedy tokens, one at a time, by nothing that an engine uses: no cache, no pages, no batches."""
        tokens = list(prompt)
        for _ in range(new_tokens):
            hidden = self.tokens[tokens] * self.places[: len(tokens)]
            seen = torch.softmax(SCALE * hidden @ hidden[-1], 0) @ hidden
            tokens.append(int(self.logits(seen).argmax()))
        return tokens[len(prompt) :]


class Output(NamedTuple):
    """What a transformers model returns."""

    logits: torch.Tensor


NETWORK = Network()


class Prompt(NamedTuple):
    """Prompt tokens, new tokens at most, and after how many a stop token ends the request; None: it has none."""

    length: int
    new_tokens: int
    stops_after: int | None = None


@dataclass(frozen=True)
class Case:
    """Requests and limits that lead an engine into temptation. The pages have 2 positions each."""

    name: str
    prompts: tuple[Prompt, ...]
    pages: int
    max_running: int
    max_batch_tokens: int

    @cached_property
    def served(self) -> list[tuple[list[int], list[int], tuple[int, ...]]]:
        """For each request its prompt, the tokens that are right, and its stop tokens."""
        requests = []
        for number, (length, new_tokens, stops_after) in enumerate(self.prompts):
            prompt = [(7 * number + 3 * place) % VOCAB for place in range(length)]
            tokens, stop = NETWORK.generate(prompt, new_tokens), ()
            if stops_after is not None:
                tokens, stop = tokens[:stops_after], (tokens[stops_after - 1],)
            requests.append((prompt, tokens, stop))
        return requests

    def requests(self) -> list[Request]:
        return [
            Request(str(number), prompt, asked.new_tokens, stop)
            for number, ((prompt, _, stop), asked) in enumerate(zip(self.served, self.prompts, strict=True))
        ]


CASES = (
    # A stop token ends a request whose next row is in flight. There are pages for two: its own go to the next at once.
    Case("pages", (Prompt(2, 6, 2), Prompt(2, 6, 3), Prompt(3, 5, 1), Prompt(1, 7, 2), Prompt(2, 6, 4)), 8, 3, 6),
    # Requests of different lengths: rows change place when one in front ends, and 3 rows are padded to 4.
    Case("rows", (Prompt(1, 2), Prompt(1, 5), Prompt(1, 3), Prompt(1, 6), Prompt(1, 4)), 16, 5, 5),
    # Prompts longer than what is left of a batch join the decodes piece by piece.
    Case("prefill", (Prompt(5, 3), Prompt(1, 6), Prompt(7, 2), Prompt(4, 3)), 16, 3, 4),
    # A little of everything.
    Case(
        "mixed",
        (Prompt(3, 4, 2), Prompt(1, 5), Prompt(5, 3, 1), Prompt(2, 2), Prompt(4, 4, 3)),
        8, 5, 6,
    ),
)  # fmt: skip


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
        for index, token in zip(batch.sampled, tokens.tolist(), strict=True):
            request = batch.rows[index].request
            if request.finish_reason is None:
                place, right = len(request.generated), self.right[int(request.id)]
                if token != right[place]:
                    raise WrongTokenError(batch.number, request.id, place, token, right[place])
        return super().update(batch, tokens)


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
    engine_class: type, case: Case, policy: str | Choice = "timed", seed: int = 0, checker: Checker | None = None
) -> Outcome:
    """Runs a case on the simulator under one schedule, `checker` looking on. The Outcome says whatever goes wrong."""
    try:
        file = engine_class.run.__code__.co_filename
    except AttributeError:
        raise InputError("the Engine has no method `run`") from None
    checker = checker or Checker()
    checker.file = file
    device = SimulatedDevice(_COSTS, policy, seed, observer=checker)
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
        device.cuda.queues.policy = "lazy"
        with suppress(Exception):
            device.finish()
    return Outcome(checker.hazards, failure, wrong_batch, checker)


_COSTS = Costs.of(COSTS)


def _where(error: Exception, file: str) -> str:
    """The error on one line, with the engine's line that it came through."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{text} (line {lines[-1].lineno}: {lines[-1].line})" if lines else text
