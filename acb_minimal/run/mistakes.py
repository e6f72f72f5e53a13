"""Parts with a mistake, to see what comes of it. Each is one that engines have made in public, and stands in the place
of the class above it."""

import numpy as np
import torch

from ..errors import InputError
from ..model import Model
from ..preemption import PreemptingScheduler
from ..request import Batch, Request
from ..sampler import SamplingSlot
from ..speculation import SpeculatingModel, SpeculatingSlot
from .part_two import CompiledDraws


class HostCounts(CompiledDraws):
    """The host counts. Where it is a token behind, so are penalties: a token that is carried over is taken out of the
    counts until the batch is sampled."""

    def carry_over(self, slot: SamplingSlot, previous: SamplingSlot) -> None:
        super().carry_over(slot, previous)
        slot.carried = True

    def sample(self, slot: SamplingSlot, counts: torch.Tensor) -> None:
        self._count_carried(slot, counts, -1)
        super().sample(slot, counts)
        self._count_carried(slot, counts, 1)

    def _count_carried(self, slot: SamplingSlot, counts: torch.Tensor, times: int) -> None:
        if not (getattr(slot, "carried", False) and self.asked.penalties):
            return
        inputs = slot.written.inputs
        owner = slot.device_settings[: len(inputs.seq_lens), 0].long()

        @torch.inference_mode()
        def work() -> None:
            places = owner[inputs.row_of_token], inputs.input_ids.long()
            counts[1].index_put_(places, times * (inputs.carry_over >= 0).int(), accumulate=True)

        self.device.compute("count", slot, work)


class BatchGenerator(CompiledDraws):
    """One generator for the whole batch, seeded as its first row asks: noise is dealt out row by row."""

    def choose(self, scores, settings, counts, positions):
        rows = len(positions)
        settings = settings.clone()
        settings[:, 2] = settings[:1, 2]
        dealt = positions[:1] * rows + torch.arange(rows, dtype=torch.int32, device=positions.device)
        return super().choose(scores, settings, counts, dealt)


class KeptRows(CompiledDraws):
    """A row of counts is not cleared when a request takes it."""

    def begins(self, inputs) -> torch.Tensor:
        return torch.zeros_like(super().begins(inputs))


class StaleSlot(SpeculatingSlot):
    """A slot that has, of decodes, how many tokens the host knows when it writes the batch."""

    def write(self, batch: Batch) -> None:
        super().write(batch)
        known = [len(row.request.tokens) for row in batch.rows]
        self.row_view[1, : len(known)] *= np.array(known, dtype=np.int32)


class StaleDrafts(SpeculatingModel):
    """Drafts are made from the tokens that the host has. Where it is a batch behind, so are they."""

    slot_class = StaleSlot

    def known(self, slot: StaleSlot, lengths: torch.Tensor) -> torch.Tensor:
        return slot.device_rows[1, : len(lengths)]


class ForgettingScheduler(PreemptingScheduler):
    """What a request has to compute again is settled when it gives way, and the token that a batch in flight has for it
    is not among that."""

    def give_way(self, request: Request) -> None:
        super().give_way(request)
        request.prefill_len, request.scheduled = len(request.tokens), 0

    def begin(self, request: Request) -> None:
        """It was settled before."""


MISTAKES = {"host-counts": HostCounts, "batch-generator": BatchGenerator, "kept-rows": KeptRows,
            "stale-drafts": StaleDrafts}  # fmt: skip


def mistaken(name: str, kind: type[Model]) -> type[Model]:
    """The model that makes the mistake of that name, in the place of one of that kind; InputError if there is none."""
    if name not in MISTAKES:
        raise InputError(f"unknown mistake {name!r}: give one of {', '.join(MISTAKES)}")
    if MISTAKES[name].__base__ is not kind:
        what = "drafts" if issubclass(MISTAKES[name], SpeculatingModel) else "draws without a grammar"
        raise InputError(f"the mistake {name!r} is made in {what}, and here are none")
    return MISTAKES[name]
