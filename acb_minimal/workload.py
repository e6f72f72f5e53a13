"""The named workloads: which model, how many requests, how long. Seeded, so that every run serves the same requests."""

import random
from dataclasses import dataclass, replace

from . import counter
from .errors import InputError


@dataclass(frozen=True)
class Workload:
    """What to serve.

    prompt_tokens     tokens of each prompt, random ids; None for prompts of text, which the counter model answers
    new_tokens        tokens to generate for each request, at most
    max_running       requests in a batch at most
    max_batch_tokens  tokens in a batch at most
    """

    name: str
    model: str
    requests: int
    prompt_tokens: int | None
    new_tokens: int
    max_running: int
    max_batch_tokens: int

    def override(self, **changes) -> "Workload":
        """The workload with every change that is not None. Raises InputError for a value that makes no sense."""
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.prompt_tokens is None and "prompt_tokens" in changes:
            raise InputError(f"workload {self.name!r} has prompts of text: a context length does not apply to it")
        for name in ("requests", "prompt_tokens"):
            if changes.get(name, 1) < 1:
                raise InputError(f"{name.replace('_', ' ')} is {changes[name]}; it must be at least 1")
        return replace(self, **changes)

    def prompts(self, vocab_size: int, seed: int = 0) -> list[str] | list[list[int]]:
        """The prompts: text for the counter, otherwise lists of `prompt_tokens` ids below `vocab_size`."""
        rng = random.Random(seed)
        if self.prompt_tokens is None:
            return [_count(rng) for _ in range(self.requests)]
        return [rng.choices(range(vocab_size), k=self.prompt_tokens) for _ in range(self.requests)]


def _count(rng: random.Random) -> str:
    start = rng.randint(0, counter.LARGEST)
    return counter.prompt(start, rng.randint(start, min(start + counter.LONGEST, counter.LARGEST)))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("demo", "counter", 48, None, 128, max_running=16, max_batch_tokens=64),
        Workload("long", "llama-3.1-8b", 32, 4000, 256, max_running=32, max_batch_tokens=8192),
        Workload("wide", "llama-3.1-8b", 384, 896, 256, max_running=384, max_batch_tokens=8192),
        Workload("small", "llama-3.2-1b", 128, 1024, 256, max_running=128, max_batch_tokens=8192),
        Workload("headline", "llama-3.1-8b", 32, 128, 8192, max_running=32, max_batch_tokens=8192),
    )
}


def workload(name: str) -> Workload:
    """Raises InputError for a name that is not in WORKLOADS."""
    if name not in WORKLOADS:
        raise InputError(f"unknown workload {name!r}: the workloads are {', '.join(WORKLOADS)}")
    return WORKLOADS[name]
