"""Speculation (speculation.py) as an option of any run: its parts, timed from outside as all parts are."""

import numpy as np
import torch

from ..draw import hashed
from ..errors import InputError
from ..request import Batch, Request
from ..speculation import SpeculatingModel, SpeculatingScheduler, SpeculatingSlot, decodes, reserve_for
from .engines import verifies
from .graphed import GraphedModel, GraphedSlot
from .options import Options
from .timed import TimedModel, TimedScheduler, TimedSlot
from .workload import Job

MOST_DRAFTS = 32
DRAFTS = 3  # of an engine that verifies, where nothing is said


def drafts_of(engine: type, job: Job, options: Options) -> tuple[int, int]:
    """How many drafts go along, and how many positions are reserved behind a request's last; 0 drafts: none.

    Raises:
        InputError: there cannot be so many, or something is asked for that needs drafts.
    """
    drafts = options.speculate if job.speculate is None else job.speculate
    if drafts is None:
        for name, value in (("reserve", options.reserve), ("acceptance", options.acceptance)):
            if value is not None and not verifies(engine):
                raise InputError(f"{name} is {value:g}, and there are no drafts: give speculate")
        if not verifies(engine):
            return 0, 0
        drafts = DRAFTS
    if not 1 <= drafts <= MOST_DRAFTS:
        raise InputError(f"speculate is {drafts}; it must be from 1 to {MOST_DRAFTS} drafts")
    reserve = reserve_for(drafts) if options.reserve is None else options.reserve
    if not 0 <= reserve <= reserve_for(drafts):
        raise InputError(f"reserve is {reserve}; with {drafts} drafts it must be from 0 to {reserve_for(drafts)}")
    return drafts, reserve


class TimedSpeculatingScheduler(TimedScheduler, SpeculatingScheduler):
    """Timed, with drafts.

    Attributes:
        acceptance: where nothing is computed, so many of the drafts are right, by chance, 0 to 1.
    """

    acceptance: float | None = None

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        if not self.device.arithmetic:
            rows = [batch.rows[index] for index in batch.sampled]
            lengths = torch.tensor([len(row.request.tokens) for row in rows], dtype=torch.int32)
            accepted = dialled(torch.arange(len(rows)).int(), lengths, self.drafts, self.acceptance)
            accepted *= torch.tensor([decodes(row) for row in rows])
            tokens = np.where(np.arange(1 + self.drafts)[:, None] <= accepted.numpy(), tokens, -1)
        return super().update(batch, tokens)


def dialled(owner: torch.Tensor, lengths: torch.Tensor, drafts: int, acceptance: float) -> torch.Tensor:
    """How many drafts count as right where each does by chance: those before the first that does not.

    Args:
        owner: a number for each row's request, int32 [rows].
        lengths: tokens that it has, int32 [rows].
        acceptance: the chance, 0 to 1.

    Returns:
        int32 [rows].
    """
    chance = hashed(owner, lengths, drafts).double() / 2**32 + 0.5
    return (chance < acceptance).int().cumprod(1).sum(1, dtype=torch.int32)


class TimedSpeculatingSlot(TimedSlot, SpeculatingSlot):
    """Timed, with drafts."""

    def __init__(self, *args):
        super().__init__(*args)
        self.row_view = self.device.host_view(self.host_rows)
        self.device.watch(f"slot {self.name}'s pinned rows", self.host_rows, work=self)
        self.device.watch(f"slot {self.name}'s rows", self.device_rows, work=self)


class TimedSpeculatingModel(TimedModel, SpeculatingModel):
    """Timed, with drafts.

    Attributes:
        acceptance: so many of the drafts count as right, by chance; None: those that are.
    """

    slot_class = TimedSpeculatingSlot
    acceptance: float | None = None

    def __init__(self, *args):
        super().__init__(*args)
        self.device.watch("the tokens so far", self.history.tokens)
        self.device.watch("how many tokens there are", self.history.lengths)

    def accept(self, given, likeliest, owner, lengths):
        if self.acceptance is None:
            return super().accept(given, likeliest, owner, lengths)
        return dialled(owner, lengths, self.drafts, self.acceptance)


class GraphedSpeculatingSlot(GraphedSlot, TimedSpeculatingSlot):
    """Padded to a size that has a graph."""


class GraphedSpeculatingModel(GraphedModel, TimedSpeculatingModel):
    """A model that launches the forward pass of a batch of decodes as a graph; what comes before it by itself."""

    slot_class = GraphedSpeculatingSlot

    def capture(self, slot: GraphedSpeculatingSlot) -> None:
        self.verify(slot)

    def forward(self, slot: GraphedSpeculatingSlot) -> None:
        SpeculatingModel.forward(self, slot)

    def verify(self, slot: GraphedSpeculatingSlot) -> None:
        self.replay(slot, super().verify)


class StaleSlot(TimedSpeculatingSlot):
    """A slot with the number of tokens of each row's request, as the host knows it when it writes the batch."""

    def __init__(self, *args):
        super().__init__(*args)
        self.host_known = self.device.pinned(self.size.rows)
        self.device_known = torch.zeros_like(self.host_known, device=self.device.torch_device)
        self.known_view = self.device.host_view(self.host_known)
        self.device.watch(f"slot {self.name}'s pinned counts", self.host_known, work=self)
        self.device.watch(f"slot {self.name}'s counts", self.device_known, work=self)

    def write(self, batch: Batch) -> None:
        super().write(batch)
        known = [len(row.request.tokens) for row in batch.rows] + [1] * batch.padding
        self.known_view[: len(known)] = known

    def upload(self, non_blocking: bool = False) -> None:
        super().upload(non_blocking)
        self.device.copy("h2d", self.device_known, self.host_known, non_blocking, self)


class StaleDrafts(TimedSpeculatingModel):
    """Drafts are made from the tokens that the host has. Where it is a batch behind, so are they."""

    slot_class = StaleSlot

    def known(self, slot, lengths):
        return slot.device_known[: len(lengths)]


MISTAKES = {"stale-drafts": StaleDrafts}


def parts_for(drafts: int, options: Options) -> tuple[type[TimedScheduler], tuple[type[TimedModel], type[TimedModel]]]:
    """The kinds of scheduler and models for so many drafts, as Parts has them.

    Raises:
        InputError: there is no such mistake.
    """
    models = TimedSpeculatingModel, GraphedSpeculatingModel
    if options.mistake:
        if options.mistake not in MISTAKES:
            raise InputError(f"the mistake {options.mistake!r} is none of drafts: give {' or '.join(MISTAKES)}")
        models = (MISTAKES[options.mistake],) * 2
    dial = {"acceptance": options.acceptance}
    return scheduler_with(drafts, **dial), tuple(type(kind.__name__, (kind,), dial) for kind in models)


def scheduler_with(drafts: int, **dial: float | None) -> type[TimedScheduler]:
    """The kind of scheduler for so many drafts.

    Args:
        dial: `acceptance`, as TimedSpeculatingScheduler has it.
    """
    return type("TimedSpeculatingScheduler", (TimedSpeculatingScheduler,), dial | {"drafts": drafts})
