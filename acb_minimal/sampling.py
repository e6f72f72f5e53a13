"""Sampling: what requests ask for, and which row on the GPU is whose. What is in these rows, sampler.py knows."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import NamedTuple

import numpy as np

from .errors import InputError
from .request import Batch, Request
from .scheduler import Scheduler, device_rows


@dataclass(frozen=True)
class Sampling:
    """How the tokens of a request are chosen. By default each is the likeliest.

    In this order: `logit_bias` and `min_tokens`, penalties, `temperature`, `top_k`, `top_p`.

    Attributes:
        temperature: scores are divided by it, and a token is drawn by their softmax; 0 takes the likeliest.
        top_k: only so many of the likeliest are drawn from; 0: all.
        top_p: only the fewest of those that together have so much of the probability.
        seed: of the noise. With it, a request's tokens depend on the request alone.
        repetition_penalty: divides positive scores and multiplies negative ones, of tokens in prompt or answer.
        presence_penalty: is subtracted from scores of tokens that are in the answer.
        frequency_penalty: likewise, for each time.
        logit_bias: is added to the scores of these token ids.
        min_tokens: no stop token before there are so many.
        logprobs: whether to tell of each token how likely the model finds it, before all of the above.

    Raises:
        InputError: a value makes no sense.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    logprobs: bool = False

    def __post_init__(self):
        if self.temperature != 0:
            _check("temperature", self.temperature, 0.01, 100, "0, for the likeliest token, or ")
        if not (isinstance(self.top_p, Real) and 0 < self.top_p <= 1):
            raise InputError(f"top_p is {self.top_p!r}; it must be above 0 and at most 1")
        _check("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _check("presence_penalty", self.presence_penalty, -100, 100)
        _check("frequency_penalty", self.frequency_penalty, -100, 100)
        for name, most in (("top_k", 2**31 - 1), ("seed", 2**32 - 1), ("min_tokens", 2**31 - 1)):
            try:
                operator.index(getattr(self, name))
            except TypeError:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a whole number") from None
            _check(name, getattr(self, name), 0, most)
        for token, bias in self.logit_bias.items():
            _check(f"the logit bias of token {token}", bias, -100, 100)

    @property
    def greedy(self) -> bool:
        """Whether it asks for nothing but the likeliest token."""
        return self == Sampling(top_k=self.top_k, top_p=self.top_p, seed=self.seed)

    @property
    def penalises(self) -> bool:
        """Whether it asks what there was before."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    def __str__(self) -> str:
        told = []
        for name, value in vars(self).items():
            if value != getattr(Sampling(), name):
                bias = [f"{token}={added:g}" for token, added in value.items()] if name == "logit_bias" else []
                told.append(" ".join([name.replace("_", " "), *(bias or ([] if value is True else [f"{value:g}"]))]))
        return ", ".join(told) or "the likeliest token"


def _check(name: str, value: float, least: float, most: float, otherwise: str = "") -> None:
    if not (isinstance(value, Real) and least <= value <= most):
        raise InputError(f"{name} is {value!r}; it must be {otherwise}from {least:g} to {most:,}")


class Asked(NamedTuple):
    """What any of the requests asks for. What none does costs nothing.

    Attributes:
        noise: a temperature.
        cuts: top-k or top-p.
        penalties: counts of tokens.
        logprobs: how likely tokens are.
        biases: so many scores of one request are changed, at most.
    """

    noise: bool = True
    cuts: bool = True
    penalties: bool = True
    logprobs: bool = True
    biases: int = 0

    @classmethod
    def by(cls, requests: Iterable["SamplingRequest"]) -> "Asked":
        """What these ask for."""
        each = [request.sampling for request in requests]
        return cls(
            any(one.temperature for one in each),
            any(one.temperature and (one.top_k or one.top_p < 1) for one in each),
            any(one.penalises for one in each),
            any(one.logprobs for one in each),
            max((len(request.biases) for request in requests), default=0),
        )


class SamplingRequest(Request):
    """A request with settings for sampling, if only the default ones.

    Attributes:
        sampling: what it asks for.
        row: its row on the device while it runs.
        settings: int32, as a slot has them for each row of a batch; made anew when it takes a row.
        logprobs: of its generated tokens, as far as the host has seen them; empty if it does not ask.
    """

    __slots__ = ("sampling", "row", "settings", "logprobs")

    def __init__(self, *args, sampling: Sampling | None = None, **named):
        super().__init__(*args, **named)
        self.sampling = sampling or Sampling()
        self.row = -1
        self.settings = np.zeros(0, dtype=np.int32)
        self.logprobs: list[float] = []

    @property
    def biases(self) -> list[tuple[int, float, int]]:
        """Token ids, what is added to their scores, and the first position where it is not any more."""
        bias = [(token, value, 2**31 - 1) for token, value in self.sampling.logit_bias.items()]
        until = self.prompt_len + self.sampling.min_tokens
        return bias + [(token, -np.inf, until) for token in sorted(self.stop_tokens) if self.sampling.min_tokens]

    def take(self, row: int) -> None:
        """Takes a row on the device."""
        asked = self.sampling
        self.row = row
        whole = [row, self.prompt_len, asked.seed, asked.top_k]
        parts = [asked.temperature, asked.top_p, asked.repetition_penalty, asked.presence_penalty,
                 asked.frequency_penalty]  # fmt: skip
        biases = [(token, np.float32(value).view(np.int32), until) for token, value, until in self.biases]
        self.settings = np.concatenate([
            np.array(whole, dtype=np.int64).astype(np.int32),  # a seed past 2**31 wraps
            np.array(parts, dtype=np.float32).view(np.int32),
            np.array(biases, dtype=np.int32).reshape(-1),
        ])  # fmt: skip

    def check(self, vocab_size: int, max_positions: int) -> None:
        super().check(vocab_size, max_positions)
        for token in self.sampling.logit_bias:
            if not 0 <= token < vocab_size:
                raise InputError(
                    f"request {self.id!r}: the logit bias is for token id {token}, outside the vocabulary (0 to "
                    f"{vocab_size - 1})"
                )
        if self.sampling.min_tokens > self.max_new_tokens:
            raise InputError(
                f"request {self.id!r}: min_tokens is {self.sampling.min_tokens}; it must be at most max_new_tokens, "
                f"{self.max_new_tokens}"
            )


class SamplingScheduler(Scheduler):
    """A scheduler that gives requests a row on the device when they begin, and takes in how likely their tokens are."""

    def schedule(self) -> Batch | None:
        """As Scheduler has it."""
        batch = super().schedule()
        for request, row in device_rows(batch, self) if batch else ():
            request.take(row)
        return batch

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        """As Scheduler has it.

        Args:
            tokens: int32 [2, len(batch.sampled)]: tokens, and the bits of their log probabilities.
        """
        tokens, bits = tokens
        for index, logprob in zip(batch.sampled, bits.view(np.float32).tolist(), strict=True):
            request = batch.rows[index].request
            if request.sampling.logprobs and request.finish_reason is None:
                request.logprobs.append(logprob)
        return super().update(batch, tokens)
