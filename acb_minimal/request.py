"""A request and what has become of it so far, and its row in a batch. Token ids and counts: no text, no devices."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .errors import InputError

FinishReason = Literal["stop", "length"]


class Request:
    """One prompt on its way through the engine.

    id              names the request in results and errors
    prompt_len      tokens in the prompt
    max_new_tokens  tokens to generate at most
    stop_tokens     token ids that end the request; the one that did is kept as its last token
    tokens          prompt, then every generated token the host has seen
    scheduled       positions handed to batches so far; it can run ahead of `tokens`, because a batch may be
                    scheduled before the token it starts from has come back from the GPU
    source          index of its newest sampled token among those of the last batch it was scheduled in
    pages           KV cache pages held, in order of position
    finish_reason   None until finished: "stop" for a stop token, "length" for max_new_tokens
    """

    __slots__ = ("id", "prompt_len", "max_new_tokens", "stop_tokens", "tokens", "scheduled", "source", "pages",
                 "finish_reason")  # fmt: skip

    def __init__(self, id: str, prompt: Sequence[int], max_new_tokens: int, stop_tokens: Sequence[int] = ()):
        self.id = id
        self.tokens = [operator.index(token) for token in prompt]  # NumPy's integers too; TypeError for anything else
        self.prompt_len = len(self.tokens)
        self.max_new_tokens = max_new_tokens
        self.stop_tokens = frozenset(stop_tokens)
        self.scheduled = 0
        self.source = -1
        self.pages: list[int] = []
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
        """Positions that can go into the next batch: what is left of the prompt, then one token at a time."""
        if self.scheduled < self.prompt_len:
            return self.prompt_len - self.scheduled
        return 1 if self.scheduled < self.max_positions else 0

    def check(self, vocab_size: int, max_positions: int) -> None:
        """Raises InputError when a model of `vocab_size` tokens and `max_positions` positions cannot serve this."""
        if not self.prompt_len:
            raise InputError(f"request {self.id!r}: the prompt is empty; it needs at least one token")
        if self.max_new_tokens < 1:
            raise InputError(f"request {self.id!r}: max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        for token in self.tokens:
            if not 0 <= token < vocab_size:
                raise InputError(
                    f"request {self.id!r}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})"
                )
        if self.prompt_len + self.max_new_tokens > max_positions:
            raise InputError(
                f"request {self.id!r}: {self.prompt_len} prompt + {self.max_new_tokens} new tokens are past the "
                f"model's {max_positions} positions"
            )


class Row(NamedTuple):
    """One request's share of a batch: its positions start to start + length - 1.

    source  where the batch before produces the token at `start`: its index among that batch's sampled tokens; -1 if
            the prompt has it
    """

    request: Request
    start: int
    length: int
    source: int = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Ragged rows, prefill chunks and decodes mixed; the tokens of all rows lie one after another.

    sampled  indices of the rows that produce a token: all but those that stop short of the end of their prompt
    number   counts the batches of a run, from 0
    """

    rows: list[Row]
    sampled: list[int]
    num_tokens: int
    number: int = -1
