"""Sampling with a mistake, to see what comes of it: each is one that engines have made in public."""

import numpy as np
import torch

from ..errors import InputError
from ..request import Batch
from ..sampler import State
from .samplers import TimedSamplingModel, TimedSamplingSlot


class HostCountsSlot(TimedSamplingSlot):
    """A slot with the counts of each row, as the host knows them when it writes the batch; and once more in `fill`."""

    def __init__(self, *args):
        super().__init__(*args)
        shape = 2, self.size.rows, self.size.vocab
        self.host_counts = self.device.pinned(2 * shape[1] * shape[2]).view(shape)
        self.device_counts = torch.zeros_like(self.host_counts, device=self.device.torch_device)
        self.counts_view = self.device.host_view(self.host_counts)
        self.device.watch(f"slot {self.name}'s pinned counts", self.host_counts, work=self)
        self.device.watch(f"slot {self.name}'s counts", self.device_counts, work=self)

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self._count()

    def fill(self) -> None:
        super().fill()
        self._count()

    def _count(self) -> None:
        for index, (request, start, length, _) in enumerate(self.written.batch.rows):
            known, prompt_len = request.tokens[: start + length], request.prompt_len
            for kind, tokens in enumerate((known[:prompt_len], known[prompt_len:])):
                self.counts_view[kind, index] = np.bincount(tokens, minlength=self.size.vocab)

    def upload(self, non_blocking: bool = False) -> None:
        super().upload(non_blocking)
        self.device.copy("h2d", self.device_counts, self.host_counts, non_blocking, self)


class HostCounts(TimedSamplingModel):
    """The host counts. Where it is a token behind, so are penalties."""

    slot_class = HostCountsSlot

    def count(self, slot: HostCountsSlot, state: State) -> None:
        rows = len(slot.written.inputs.seq_lens)
        settings, given = slot.device_settings[:rows], slot.device_counts[:, :rows]

        @torch.inference_mode()
        def work() -> None:
            state.counts.index_copy_(1, settings[:, 0].long(), given)

        self.device.compute("count", slot, work)


class BatchGenerator(TimedSamplingModel):
    """One generator for the whole batch, seeded as its first row asks: noise is dealt out row by row."""

    def choose(self, scores, settings, counts, positions):
        rows = len(positions)
        settings = settings.clone()
        settings[:, 2] = settings[:1, 2]
        dealt = positions[:1] * rows + torch.arange(rows, dtype=torch.int32, device=positions.device)
        return super().choose(scores, settings, counts, dealt)


class KeptRows(TimedSamplingModel):
    """A row of counts is not cleared when a request takes it."""

    def begins(self, inputs) -> torch.Tensor:
        return torch.zeros_like(super().begins(inputs))


MISTAKES = {"host-counts": HostCounts, "batch-generator": BatchGenerator, "kept-rows": KeptRows}


def mistaken(name: str) -> type[TimedSamplingModel]:
    """The model that makes the mistake of that name.

    Raises:
        InputError: there is none.
    """
    if name not in MISTAKES:
        raise InputError(f"unknown mistake {name!r}: give one of {', '.join(MISTAKES)}")
    return MISTAKES[name]
