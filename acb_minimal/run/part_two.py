"""Part two's parts as a run has them: draws compiled on a GPU, a dial for how many drafts are right, named berths."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from ..draw import hashed
from ..errors import InputError
from ..preemption import SwappingModel
from ..request import Batch, Request
from ..sampler import SamplingModel, choose
from ..speculation import SpeculatingModel, SpeculatingScheduler, decodes
from .compile import RECOMPILE_LIMIT


@cache
def compiled() -> Callable:
    """`choose`, compiled for a GPU: each of its some forty operations would read and write every score. What is asked
    for decides what is compiled; the number of rows does not."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    return torch.compile(choose, dynamic=True)


class CompiledDraws(SamplingModel):
    """A model that draws by the compiled function where it is on a GPU. `told` hears, on the device, by which settings
    and counts a batch is drawn; by default, nobody does."""

    told: Callable[[torch.Tensor, torch.Tensor], None] = staticmethod(lambda settings, counts: None)

    def choose(self, scores, settings, counts, positions):
        self.told(settings, counts)
        return (compiled() if scores.is_cuda else choose)(scores, settings, counts, positions, self.asked)


def dialled(owner: torch.Tensor, lengths: torch.Tensor, drafts: int, acceptance: float) -> torch.Tensor:
    """How many drafts count as right where each does by chance (0 to 1): those before the first that does not. Of each
    row, given its request's number on the device and how many tokens that has; all int32 [rows]."""
    chance = hashed(owner, lengths, drafts).double() / 2**32 + 0.5
    return (chance < acceptance).int().cumprod(1).sum(1, dtype=torch.int32)


class DialledModel(SpeculatingModel):
    """A share of drafts, `acceptance`, counts as right, by chance; None: those that are."""

    acceptance: float | None = None

    def accept(self, given, likeliest, owner, lengths):
        if self.acceptance is None:
            return super().accept(given, likeliest, owner, lengths)
        return dialled(owner, lengths, self.drafts, self.acceptance)


class DialledScheduler(SpeculatingScheduler):
    """The same where nothing is computed: the tokens of drafts that are not right are taken out."""

    acceptance: float | None = None

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        if self.acceptance is not None and not self.device.arithmetic:
            rows = [batch.rows[index] for index in batch.sampled]
            lengths = torch.tensor([len(row.request.tokens) for row in rows], dtype=torch.int32)
            accepted = dialled(torch.arange(len(rows)).int(), lengths, self.drafts, self.acceptance)
            accepted *= torch.tensor([decodes(row) for row in rows])
            tokens = np.where(np.arange(1 + self.drafts)[:, None] <= accepted.numpy(), tokens, -1)
        return super().update(batch, tokens)


class NamedBerths(SwappingModel):
    """A model that can copy pages, and the host's memory for them has names."""

    def make_berths(self, count: int) -> None:
        """As SwappingModel has it; InputError if the host has not so much memory to pin."""
        try:
            super().make_berths(count)
        except RuntimeError as error:
            self.close()
            needed = count * self.size.pages * sum(tensor[0].nbytes for tensor in self.tensors) / 1e9
            why = f"{error}".partition("\n")[0]
            raise InputError(f"too little host memory: {count} berths take {needed:.1f} GB ({why})") from None
        layers = len(self.cache.keys)
        for number, berths in enumerate(self.berths):
            what = "keys" if number < layers else "values"
            self.device.watch(f"the pinned {what} of layer {number % layers}", berths)
