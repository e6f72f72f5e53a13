"""The named workloads: which model, how many requests, how long. Seeded, so that every run serves the same requests."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..models import counter
from .options import Scale

if TYPE_CHECKING:  # importing it takes seconds: torch
    from ..grammar import Grammar
    from ..sampling import Sampling
    from .arrivals import Arrivals

MOST_TOKENS = 65_536  # in a batch


@dataclass(frozen=True)
class Job:
    """Prompts to serve, and how many of them at a time.

    `grammar`, `sampling`, `pages`, `preempt`, `speculate` and `arrivals` are as Options has them, and for None as the
    Options of the run say. Of the first two there can also be one, or None, for each prompt.

    Attributes:
        prompts: text or token ids.
        max_new_tokens: tokens to generate for each prompt, at most: for all, or one number for each.
        max_running: requests in a batch at most.
        max_batch_tokens: tokens in a batch at most.
        page_size: positions per KV page.
        berths: requests for whose pages there is host memory, where preempt is "swap"; by default a quarter of
            max_running.
        ignore_stop: generate max_new_tokens for every prompt, whatever the model says.
        stop: a text or several; an answer ends before the first of them.
    """

    prompts: Sequence[str | Sequence[int]]
    max_new_tokens: int | Sequence[int] = 128
    max_running: int = 16
    max_batch_tokens: int = 2048
    page_size: int = 64
    pages: int | None = None
    preempt: str | None = None
    berths: int | None = None
    ignore_stop: bool = False
    grammar: "str | Grammar | Sequence[str | Grammar | None] | None" = None
    sampling: "Sampling | Sequence[Sampling | None] | None" = None
    stop: str | Sequence[str] = ()
    arrivals: "Arrivals | None" = None
    speculate: int | None = None

    def __post_init__(self):
        if self.max_batch_tokens > MOST_TOKENS:
            raise InputError(f"max_batch_tokens is {self.max_batch_tokens}; it must be at most {MOST_TOKENS}")
        check_max_running(self.max_running, self.max_batch_tokens)

    @property
    def new_tokens(self) -> list[int]:
        """Tokens to generate for each prompt, at most; InputError if there are not as many numbers as prompts."""
        if not isinstance(self.max_new_tokens, Sequence):
            return [self.max_new_tokens] * len(self.prompts)
        if len(self.max_new_tokens) != len(self.prompts):
            raise InputError(f"max_new_tokens has {len(self.max_new_tokens)} numbers for {len(self.prompts)} prompts")
        return list(self.max_new_tokens)


def check_max_running(max_running: int, batch_tokens: int) -> None:
    """InputError if a batch has no room for so many requests."""
    if max_running > batch_tokens:
        why = "a batch has no more tokens, and every running request needs one"
        raise InputError(f"max_running is {max_running}; it must be at most {batch_tokens}: {why}")


@dataclass(frozen=True)
class Workload:
    """A job that has a name and can be drawn for any vocabulary.

    Attributes:
        prompt_tokens: tokens of each prompt, random ids; None for prompts of text, which the counter model answers.
        new_tokens: tokens to generate for each request, at most. Limits are as a Job has them.
        scale: as what it is timed on the simulated GPU; None: as what it is.
        host_work: seconds of bookkeeping that a step has there besides its own.
        lengths: prompt and new tokens of each request, where they differ.
    """

    name: str
    model: str
    requests: int
    prompt_tokens: int | None
    new_tokens: int
    max_running: int
    max_batch_tokens: int
    scale: Scale | None = None
    host_work: float = 0.0
    lengths: tuple[tuple[int, int], ...] = ()

    def recorded(self, lengths: Sequence[tuple[int, int]]) -> "Workload":
        """Its model and limits, with requests of these lengths; token ids are random ones."""
        prompt_tokens, new_tokens = (max(each) for each in zip(*lengths, strict=True))
        changes = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "lengths": tuple(lengths)}
        return replace(self, requests=len(lengths), **changes)

    def override(self, **changes) -> "Workload":
        """The workload with every change that is not None; InputError if a value makes no sense."""
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.prompt_tokens is None and "prompt_tokens" in changes:
            raise InputError(f"workload {self.name!r} has prompts of text: a context length does not apply to it")
        for name in ("requests", "prompt_tokens"):
            if changes.get(name, 1) < 1:
                raise InputError(f"{name.replace('_', ' ')} is {changes[name]}; it must be at least 1")
        return replace(self, **changes)

    def job(self, vocab_size: int, **limits) -> Job:
        """The workload as a job; `limits` are those of a Job that a workload leaves open."""
        new_tokens = [new for _, new in self.lengths] or self.new_tokens
        limits["ignore_stop"] = self.prompt_tokens is not None
        return Job(self.prompts(vocab_size), new_tokens, self.max_running, self.max_batch_tokens, **limits)

    def prompts(self, vocab_size: int, seed: int = 0) -> list[str] | list[list[int]]:
        """The prompts: text for the counter, otherwise lists of `prompt_tokens` ids below `vocab_size`."""
        rng = random.Random(seed)
        if self.prompt_tokens is None:
            starts = (rng.randint(0, counter.LARGEST) for _ in range(self.requests))
            return [counter.prompt(n, rng.randint(n, min(n + counter.LONGEST, counter.LARGEST))) for n in starts]
        lengths = [length for length, _ in self.lengths] or [self.prompt_tokens] * self.requests
        return [rng.choices(range(vocab_size), k=length) for length in lengths]


WORKLOADS = {
    workload.name: workload
    for workload in (
        # An 8B model, as in the published run, but with more requests; and a host that leaves the GPU idle for as long
        # as there: 24.0 % of 300.6 s in 8,192 steps, 8.8 ms each (Hugging Face, "Unlocking asynchronicity in continuous
        # batching", May 2026).
        Workload(
            "demo", "counter", 48, None, 128, max_running=16, max_batch_tokens=64,
            scale=Scale("llama-3.1-8b", rows=24, positions=2000), host_work=8.8e-3,
        ),
        Workload("long", "llama-3.1-8b", 32, 4000, 256, max_running=32, max_batch_tokens=8192),
        Workload("wide", "llama-3.1-8b", 384, 896, 256, max_running=384, max_batch_tokens=8192),
        Workload("small", "llama-3.2-1b", 128, 1024, 256, max_running=128, max_batch_tokens=8192),
        Workload("headline", "llama-3.1-8b", 32, 128, 8192, max_running=32, max_batch_tokens=8192),
    )
}


def workload(name: str) -> Workload:
    """The workload of that name; InputError if it is not in WORKLOADS."""
    if name not in WORKLOADS:
        raise InputError(f"unknown workload {name!r}: the workloads are {', '.join(WORKLOADS)}")
    return WORKLOADS[name]
