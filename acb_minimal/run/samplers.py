"""The parts of an engine that sample (sampling.py, sampler.py), timed from outside as all parts are."""

import sys
from collections.abc import Callable
from functools import cache

import torch

from ..masked_draws import MaskedSamplingModel, MaskedSamplingScheduler, MaskedSamplingSlot
from ..sampler import SamplingModel, SamplingSlot, State, choose
from ..sampling import SamplingScheduler
from .compile import RECOMPILE_LIMIT
from .grammars import TimedGrammarModel, TimedGrammarScheduler, TimedGrammarSlot
from .graphed import AsFarAsTheScores, GraphedModel, GraphedSlot
from .timed import TimedModel, TimedScheduler, TimedSlot


@cache
def compiled() -> Callable:
    """`choose`, compiled for a GPU: each of its some forty operations would read and write every score. What is asked
    for decides what is compiled; the number of rows does not."""
    from torch._dynamo.exc import TorchDynamoException  # here: importing it takes a while

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    made = torch.compile(choose, dynamic=True)

    def chosen(*given):
        nonlocal made
        try:
            return made(*given)
        except TorchDynamoException as error:
            told = " ".join(str(error).split())[:200]
            print(f"note: sampling cannot be compiled and runs operation by operation ({told})", file=sys.stderr)
            made = choose
            return choose(*given)

    return chosen


class TimedSamplingScheduler(SamplingScheduler, TimedScheduler):
    """Timed, with rows for requests."""


class TimedSamplingSlot(SamplingSlot, TimedSlot):
    """Timed, with settings."""

    def __init__(self, *args):
        super().__init__(*args)
        self.settings_view = self.device.host_view(self.host_settings)
        self.device.watch(f"slot {self.name}'s pinned settings", self.host_settings, work=self)
        self.device.watch(f"slot {self.name}'s settings", self.device_settings, work=self)


class TimedSamplingModel(SamplingModel, TimedModel):
    """Timed, with counts.

    Attributes:
        told: is told, on the device, by which settings and counts a batch is drawn. By default, nobody is.
    """

    slot_class = TimedSamplingSlot
    told: Callable[[torch.Tensor, torch.Tensor], None] = staticmethod(lambda settings, counts: None)

    def __init__(self, *args):
        super().__init__(*args)
        self.device.watch("the scores", self.scores)

    def choose(self, scores, settings, counts, positions):
        self.told(settings, counts)
        chosen = compiled() if scores.device.type == "cuda" else choose
        return chosen(scores, settings, counts, positions, self.asked)

    def new_state(self) -> State:
        state = super().new_state()
        self.device.watch("the counts", state.counts)
        return state


class GraphedSamplingSlot(TimedSamplingSlot, GraphedSlot):
    """Padded to a size that has a graph."""


class GraphedSamplingModel(AsFarAsTheScores, TimedSamplingModel, GraphedModel):
    """A model that launches a batch of decodes as a graph as far as the scores; counting and drawing by themselves."""

    slot_class = GraphedSamplingSlot


class TimedMaskedScheduler(MaskedSamplingScheduler, TimedGrammarScheduler, TimedSamplingScheduler):
    """Timed, with rows for requests, and with grammars."""


class TimedMaskedSlot(MaskedSamplingSlot, TimedGrammarSlot, TimedSamplingSlot):
    """Timed, with masks and settings."""


class TimedMaskedModel(MaskedSamplingModel, TimedGrammarModel, TimedSamplingModel):
    """Timed, with masks and counts."""

    slot_class = TimedMaskedSlot


class GraphedMaskedSlot(TimedMaskedSlot, GraphedSlot):
    """Padded to a size that has a graph."""


class GraphedMaskedModel(AsFarAsTheScores, TimedMaskedModel, GraphedModel):
    """A model that launches a batch of decodes as a graph as far as the scores."""

    slot_class = GraphedMaskedSlot
