"""What draws tokens (sampler.py), compiled where there is a GPU."""

from collections.abc import Callable
from functools import cache

import torch

from ..sampler import SamplingModel, choose
from .compile import RECOMPILE_LIMIT


@cache
def compiled() -> Callable:
    """`choose`, compiled for a GPU: each of its some forty operations would read and write every score. What is asked
    for decides what is compiled; the number of rows does not."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    return torch.compile(choose, dynamic=True)


class CompiledDraws(SamplingModel):
    """Before a model that samples: draws by the compiled function where it is on a GPU.

    Attributes:
        told: is told, on the device, by which settings and counts a batch is drawn. By default, nobody is.
    """

    told: Callable[[torch.Tensor, torch.Tensor], None] = staticmethod(lambda settings, counts: None)

    def choose(self, scores, settings, counts, positions):
        self.told(settings, counts)
        return (compiled() if scores.is_cuda else choose)(scores, settings, counts, positions, self.asked)
