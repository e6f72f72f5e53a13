"""Draws from what a grammar allows: the parts for requests with either, or both (grammar.py, sampler.py)."""

from collections.abc import Sequence

from .grammar import Grammar, GrammarModel, GrammarScheduler, GrammarSlot, Held
from .sampler import SamplingModel, SamplingSlot, State
from .sampling import Sampling, SamplingRequest, SamplingScheduler


class HeldSamplingRequest(Held, SamplingRequest):
    """A request with both; those without a grammar are SamplingRequests."""

    __slots__ = ("matcher",)

    def __init__(
        self,
        id: str,
        prompt: Sequence[int],
        max_new_tokens: int,
        stop_tokens: Sequence[int],
        sampling: Sampling,
        grammar: Grammar,
    ):
        super().__init__(id, prompt, max_new_tokens, stop_tokens, sampling)
        self.matcher = grammar.matcher()


class MaskedSamplingScheduler(SamplingScheduler, GrammarScheduler):
    """A scheduler that hands out rows on the device, and moves grammars on."""


class MaskedSamplingSlot(SamplingSlot, GrammarSlot):
    """An I/O slot with masks and with settings."""


class MaskedSamplingModel(SamplingModel, GrammarModel):
    """A model that draws from what masks allow. A log probability is then among the allowed tokens."""

    slot_class = MaskedSamplingSlot

    def sample(self, slot: MaskedSamplingSlot, state: State | None = None) -> None:
        """As SamplingModel has it. An engine that keeps no state need not count either."""
        if state is None:
            self.count(slot, self.state)
        super().sample(slot, state or self.state)
