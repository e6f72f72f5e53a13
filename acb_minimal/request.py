"""A request and what has become of it so far, and its row in a batch. Token ids and counts: no text, no devices."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from .errors import InputError

FinishReason = Literal["stop", "length", "grammar", "abort"]


class Request:
    """One prompt on its way through the engine.

    Attributes:
        id: names the request in results and errors.
        prompt_len: tokens in the prompt.
        max_new_tokens: tokens to generate at most.
        stop_tokens: token ids that end the request; the one that did is kept as its last token.
        tokens: prompt, then every generated token the host has seen.
        prefill_len: positions to compute before the next token is sampled: of the prompt; of one that begins again
            (preemption.py), of what it had generated as well.
        scheduled: positions handed to batches so far; it can run ahead of `tokens`, because a batch may be scheduled
            before the token it starts from has come back from the GPU.
        source: index of its newest sampled token among those of the last batch it was scheduled in.
        pages: KV cache pages held, in order of position.
        berth: where in host memory its keys and values are while they are not in the cache (preemption.py); else None.
        matcher: where it is in its grammar, by the tokens that the host has seen (grammar.py); None: it has none.
        finish_reason: None until finished: "stop" for a stop token, "length" for max_new_tokens,
            "grammar" where its grammar allows no other, "abort" if it was cancelled.
    """

    __slots__ = ("id", "prompt_len", "max_new_tokens", "stop_tokens", "tokens", "prefill_len", "scheduled", "source",
                 "pages", "berth", "matcher", "finish_reason")  # fmt: skip

    def __init__(
        self, id: str, prompt: Sequence[int], max_new_tokens: int, stop_tokens: Sequence[int] = (), grammar=None
    ):
        self.id = id
        self.tokens = [operator.index(token) for token in prompt]  # NumPy's integers too; TypeError for anything else
        self.prompt_len = self.prefill_len = len(self.tokens)
        self.max_new_tokens = max_new_tokens
        self.stop_tokens = frozenset(stop_tokens)
        self.scheduled = 0
        self.source = -1
        self.pages: list[int] = []
        self.berth: int | None = None
        self.matcher = grammar and grammar.matcher()
        self.finish_reason: FinishReason | None = None

    @property
    def generated(self) -> list[int]:
        """The tokens generated so far, a stop token included."""
        return self.tokens[self.prompt_len :]

    @property
    def max_positions(self) -> int:
        """Positions the request can ever write to the KV cache: the last generated token is never fed back."""
        return self.prompt_len + self.max_new_tokens - 1

    @property
    def unscheduled(self) -> int:
        """Positions that can go into the next batch: what is left to prefill, then one token at a time; none while its
        keys and values are not in the cache."""
        if self.berth is not None:
            return 0
        if self.scheduled < self.prefill_len:
            return self.prefill_len - self.scheduled
        return 1 if self.scheduled < self.max_positions else 0

    def check(self, vocab_size: int, max_positions: int) -> None:
        """Whether a model of `vocab_size` tokens and `max_positions` positions can serve this.

        Raises:
            InputError: it cannot.
        """
        if self.matcher and self.matcher.ended:
            raise InputError(f"request {self.id!r}: its grammar allows no token to begin with")
        if not self.prompt_len:
            raise InputError(f"request {self.id!r}: the prompt is empty; it needs at least one token")
        if self.max_new_tokens < 1:
            raise InputError(f"request {self.id!r}: max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        for token in self.tokens:
            if not 0 <= token < vocab_size:
                raise InputError(
                    f"request {self.id!r}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})"
                )
        if self.max_positions > max_positions:
            raise InputError(
                f"request {self.id!r}: {self.prompt_len} prompt + {self.max_new_tokens} new tokens are past the "
                f"model's {max_positions} positions"
            )


class Row(NamedTuple):
    """One request's share of a batch: its positions start to start + length - 1.

    Attributes:
        request: whose it is.
        start: the first of its positions.
        length: how many there are.
        source: where the batch before produces the token at `start`: its index among that batch's sampled tokens; -1 if
            the prompt has it.
    """

    request: Request
    start: int
    length: int
    source: int = -1

    @property
    def samples(self) -> bool:
        """Whether it produces a token: not if it stops short of the end of what is to prefill."""
        return self.start + self.length >= self.request.prefill_len


@dataclass(frozen=True)
class Batch:
    """Ragged rows, prefill chunks and decodes mixed; the tokens of all rows lie one after another.

    Attributes:
        rows: one for each request that takes part.
        number: counts the batches of a run, from 0; -1 for one that is none of them.
        padding: rows of `width` tokens behind the others, which belong to no request and write to the scratch page.
        width: tokens of each decode; more than one if drafts go along (speculation.py).
    """

    rows: list[Row]
    number: int = -1
    padding: int = 0
    width: int = 1

    @cached_property
    def sampled(self) -> list[int]:
        """Indices of the rows that produce a token for a request."""
        return [index for index, row in enumerate(self.rows) if row.samples]

    @cached_property
    def num_tokens(self) -> int:
        """Of all rows, padding included."""
        return sum(row.length for row in self.rows) + self.padding * self.width

    @cached_property
    def decodes(self) -> bool:
        """Whether every row is `width` tokens from the last of which the next is sampled: a batch of decodes.

        The last token of a prompt, come by itself, counts as one: what is done with it is the same. So whatever the
        requests are, a forward pass over such a batch launches the same kernels over arrays of the same sizes, and a
        CUDA graph that was captured for as many rows can be replayed for it. One token from the middle of a prompt
        does not count: nothing is sampled from it, and a graph samples from every row.
        """
        return all(row.length == self.width for row in self.rows) and len(self.sampled) == len(self.rows)

    @cached_property
    def first_tokens(self) -> bool:
        """Whether a request gets its first token from it."""
        return any(row.samples and row.start + row.length == row.request.prompt_len for row in self.rows)

    @property
    def max_query_len(self) -> int:
        """Tokens of the longest row; of a batch of padding alone, `width`."""
        return max((row.length for row in self.rows), default=self.width)

    @property
    def decode_size(self) -> int:
        """Rows of a batch of decodes, padding included; 0 for any other batch."""
        return len(self.rows) + self.padding if self.decodes else 0

    def padded(self, sizes: Sequence[int]) -> "Batch":
        """A batch of decodes with padding up to the smallest of `sizes` that holds it; any other batch as it is."""
        fitting = [size for size in sizes if size >= len(self.rows)]
        return replace(self, padding=min(fitting) - len(self.rows)) if self.decodes and fitting else self
