"""Speculation (speculation.py) as an option of any run: how many drafts, and a dial for how many are right."""

import numpy as np
import torch

from ..draw import hashed
from ..errors import InputError
from ..request import Batch, Request
from ..speculation import SpeculatingModel, SpeculatingScheduler, decodes, reserve_for
from .engines import verifies
from .options import Options

MOST_DRAFTS = 32
DRAFTS = 3  # of an engine that verifies, where nothing is said


def drafts_of(engine: type, options: Options) -> tuple[int, int]:
    """How many drafts go along, and how many positions are reserved behind a request's last; 0 drafts: none.

    Raises:
        InputError: there cannot be so many, or something is asked for that needs drafts.
    """
    drafts = DRAFTS if options.speculate is None and verifies(engine) else options.speculate
    if drafts is None:
        for name, value in (("reserve", options.reserve), ("acceptance", options.acceptance)):
            if value is not None:
                raise InputError(f"{name} is {value:g}, and there are no drafts: give speculate")
        return 0, 0
    if not 1 <= drafts <= MOST_DRAFTS:
        raise InputError(f"speculate is {drafts}; it must be from 1 to {MOST_DRAFTS} drafts")
    most = reserve_of(engine, drafts)
    reserve = most if options.reserve is None else options.reserve
    if not 0 <= reserve <= most:
        raise InputError(f"reserve is {reserve}; with {drafts} drafts it must be from 0 to {most}")
    return drafts, reserve


def reserve_of(engine: type, drafts: int) -> int:
    """Positions behind its last that a request may touch: as the engine says in a static method `reserve`, or as it is
    for chapter 10."""
    return getattr(engine, "reserve", reserve_for)(drafts)


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


class DialledModel(SpeculatingModel):
    """So many of the drafts count as right, by chance.

    Attributes:
        acceptance: the share of them, 0 to 1.
    """

    acceptance: float

    def accept(self, given, likeliest, owner, lengths):
        return dialled(owner, lengths, self.drafts, self.acceptance)


class DialledScheduler(SpeculatingScheduler):
    """The same where nothing is computed: the tokens of drafts that are not right are taken out.

    Attributes:
        acceptance: the share of those that are, 0 to 1.
    """

    acceptance: float

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        if not self.device.arithmetic:
            rows = [batch.rows[index] for index in batch.sampled]
            lengths = torch.tensor([len(row.request.tokens) for row in rows], dtype=torch.int32)
            accepted = dialled(torch.arange(len(rows)).int(), lengths, self.drafts, self.acceptance)
            accepted *= torch.tensor([decodes(row) for row in rows])
            tokens = np.where(np.arange(1 + self.drafts)[:, None] <= accepted.numpy(), tokens, -1)
        return super().update(batch, tokens)
