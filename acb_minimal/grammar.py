"""Grammars: what a request may say next, as bits, and the parts of an engine that hold its tokens to it.

The host follows a grammar: only it knows, from the tokens so far, which may come next. For each row that samples it
writes a mask, a bit for every token of the vocabulary; the GPU gives no others. So the mask for a token needs the token
before it, on the host: what chapters 5 and 6 do without.

How a grammar is followed is up to a Matcher: of a small automaton of ours, or of llguidance, which knows JSON schemas.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from .errors import EngineError, InputError
from .model import SplitModel
from .request import Batch, FinishReason, Request
from .scheduler import Scheduler
from .slot import IOSlot


class Matcher(Protocol):
    """Where one request is in its grammar.

    Attributes:
        ended: whether no token may follow.
    """

    ended: bool

    def accept(self, token: int) -> bool:
        """Moves on by a token; False, and stays, if that one may not follow."""

    def fill(self, mask: np.ndarray) -> None:
        """Writes which tokens may follow: bit t % 32 of `mask[t // 32]` for token t; int32 [ceil(vocabulary / 32)]."""


class Grammar(Protocol):
    """What requests may say. It is made once for a vocabulary; each request has a Matcher of its own."""

    def matcher(self) -> Matcher:
        """One at the beginning."""


def bits(tokens: Iterable[int], vocab_size: int) -> np.ndarray:
    """The mask that allows these tokens: int32 [ceil(vocab_size / 32)]."""
    allowed = np.zeros(32 * words(vocab_size), dtype=bool)
    allowed[list(tokens)] = True
    return np.packbits(allowed, bitorder="little").view(np.int32)


def words(vocab_size: int) -> int:
    """How many int32 a mask has."""
    return -(-vocab_size // 32)


class Automaton:
    """A grammar of a few states. It begins in state 0; in a state without tokens it has ended.

    Attributes:
        states: for each of them, the tokens that may follow, and to which state each leads.
        masks: of every state: int32 [states, ceil(vocabulary / 32)].
    """

    def __init__(self, vocab_size: int, states: Sequence[Mapping[int, int]]):
        self.states = states
        self.masks = np.stack([bits(state, vocab_size) for state in states])

    def matcher(self) -> "Walk":
        """At the beginning."""
        return Walk(self)


class Walk:
    """A way through an automaton. See Matcher."""

    def __init__(self, automaton: Automaton):
        self.automaton, self.state = automaton, 0

    @property
    def ended(self) -> bool:
        return not self.automaton.states[self.state]

    def accept(self, token: int) -> bool:
        follows = token in self.automaton.states[self.state]
        if follows:
            self.state = self.automaton.states[self.state][token]
        return follows

    def fill(self, mask: np.ndarray) -> None:
        mask[:] = self.automaton.masks[self.state]


class JsonSchema:
    """The texts that a JSON schema allows, by llguidance."""

    def __init__(self, schema: str, tokenizer, vocab_size: int, stop_tokens: Sequence[int]):
        """
        Args:
            schema: as JSON.
            tokenizer: the model's, a fast one of transformers, or an LLTokenizer.
            stop_tokens: what ends a text.

        Raises:
            InputError: llguidance is not installed, knows no such tokenizer, or finds a fault in the schema.
        """
        try:
            import llguidance  # an extra
            from llguidance.hf import from_tokenizer
        except ImportError:
            raise InputError("a JSON schema needs llguidance: pip install -e '.[grammar]'") from None
        self._new = llguidance.LLMatcher
        try:
            known = isinstance(tokenizer, llguidance.LLTokenizer)
            self._tokenizer = tokenizer if known else from_tokenizer(tokenizer, vocab_size, list(stop_tokens) or None)
            self._grammar = self._new.grammar_from_json_schema(schema)
            fault = self._new.validate_grammar(self._grammar, self._tokenizer)
        except Exception as error:
            fault = f"{error}"
        if fault:
            raise InputError(f"the JSON schema cannot be used: {' '.join(fault.split())[:200]}")

    def matcher(self) -> "LibraryMatcher":
        """At the beginning."""
        return LibraryMatcher(self._new(self._tokenizer, self._grammar))


class LibraryMatcher:
    """One of llguidance's. See Matcher."""

    def __init__(self, matcher):
        self._matcher = matcher

    @property
    def ended(self) -> bool:
        return self._matcher.is_stopped()

    def accept(self, token: int) -> bool:
        return self._matcher.consume_token(token)

    def fill(self, mask: np.ndarray) -> None:
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)


class GrammarScheduler(Scheduler):
    """A scheduler that moves grammars on by the tokens it takes in."""

    def finish_reason(self, request: Request, token: int) -> FinishReason | None:
        """As Scheduler has it, and "grammar" where nothing may follow.

        Raises:
            EngineError: the grammar does not allow the token.
        """
        if request.matcher and not request.matcher.accept(token):
            place = len(request.generated) - 1
            raise EngineError(f"request {request.id!r} got token {token} as its number {place}: its grammar forbids it")
        ended = request.matcher and request.matcher.ended
        return super().finish_reason(request, token) or ("grammar" if ended else None)


class GrammarSlot(IOSlot):
    """An I/O slot with a mask for each row that samples: in a pinned buffer of its own, with a twin on the device."""

    def __init__(self, *args):
        super().__init__(*args)
        self.host_masks, self.device_masks = self.twins(self.size.rows, words(self.size.vocab))
        self.mask_view = self.host_masks.numpy()
        self._masks_go_along = False

    def write(self, batch: Batch, masks: bool = True) -> None:
        """As IOSlot has it. The masks are written as well, by what the host knows now, and go along with the next
        upload, unless they are to come later."""
        super().write(batch)
        self._masks_go_along = False
        if masks:
            self.write_masks()
            self._masks_go_along = True

    def fill(self) -> None:
        """As IOSlot has it; the masks are written again, by what the host knows now."""
        super().fill()
        self.write_masks()

    def write_masks(self) -> None:
        """Writes the mask of every row that samples. All tokens before it must be known now, or the mask is for the
        place of another: only of requests that have finished since, whose result is dropped, it can stay."""
        batch = self.written.batch
        for index, row in enumerate(batch.sampled):
            request = batch.rows[row].request
            if request.matcher is None:
                self.mask_view[index] = -1  # every bit
            elif request.finish_reason is None:
                request.matcher.fill(self.mask_view[index])

    def upload(self, non_blocking: bool = False) -> None:
        super().upload(non_blocking)
        if self._masks_go_along:
            self.upload_masks(non_blocking)

    def upload_masks(self, non_blocking: bool = False) -> None:
        """Copies the masks to the device, on the current stream; the host waits unless `non_blocking`."""
        rows = self.written.outputs.shape[-1]
        self.device.copy("h2d", self.device_masks[:rows], self.host_masks[:rows], non_blocking, self)


class GrammarModel(SplitModel):
    """A model that samples only what the masks in a slot allow: its forward pass needs no masks, its sampling does."""

    slot_class = GrammarSlot

    def __init__(self, *args):
        super().__init__(*args)
        self._bits = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8, device=self.where)

    def sample(self, slot: GrammarSlot) -> None:
        """Writes each sampled row's most likely token that its mask allows to `slot.written.outputs`."""
        outputs, scores, allowed = slot.written.outputs, self.scores_of(slot), self.allowed(slot)

        @torch.inference_mode()
        def work() -> None:
            outputs.copy_(allowed(scores).argmax(-1))

        self.device.compute("sample", slot, work)

    def allowed(self, slot: GrammarSlot) -> Callable[[torch.Tensor], torch.Tensor]:
        masks = slot.device_masks[: len(self.scores_of(slot))]

        def held(scores: torch.Tensor) -> torch.Tensor:
            bits = (masks.view(torch.uint8)[..., None] & self._bits).flatten(1)[:, : scores.shape[1]]
            return torch.where(bits != 0, scores, -torch.inf)

        return held
