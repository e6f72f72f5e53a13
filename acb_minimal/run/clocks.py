"""A host's clock and a CUDA GPU's on one axis.

An event knows when the GPU came to it, on a clock of the GPU's own. That clock has another zero than the host's, and is
faster or slower by some millionths, which over a long run make as much as a bubble. So the two are laid together at two
moments, before and after a run, and what lies between is stretched to fit.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

TRIES = 5  # to lay the clocks together; the closest counts
# CUDA gives the time between two events as a float of 32 bits, which is coarser than half a microsecond from 8 s on.
FAR = 1000.0  # ms
SETTLED = 100  # events later, on whatever stream, nothing is to come that ran before: at most two batches are in flight


class Moment(NamedTuple):
    """One moment on both clocks: `seconds` on the host's, which may be wrong by `off`, and `event` on the GPU's."""

    off: float
    seconds: float
    event: torch.cuda.Event


def moment(clock: Callable[[], float]) -> Moment:
    """Now, while the GPU has nothing to do; by the host's clock, in seconds. A GPU that other processes use, too, may
    be late for some of the tries."""
    return min((_try(clock) for _ in range(TRIES)), key=lambda each: each.off)


def _try(clock: Callable[[], float]) -> Moment:
    event, before = torch.cuda.Event(enable_timing=True), clock()
    event.record()
    event.synchronize()
    after = clock()
    return Moment((after - before) / 2, (before + after) / 2, event)


def host_times(began: Moment, ended: Moment, events: list[torch.cuda.Event]) -> list[float]:
    """When the GPU came to events, in seconds on the host's clock, between two moments. They are in the order in which
    they were recorded, on whatever stream."""
    *passed, all_of_it = _milliseconds(began.event, [*events, ended.event])
    millisecond = (ended.seconds - began.seconds) / all_of_it  # of the GPU's clock, in seconds of the host's
    return [began.seconds + millisecond * since for since in passed]


def _milliseconds(zero: torch.cuda.Event, events: list[torch.cuda.Event]) -> list[float]:
    """From `zero` to each event, on the GPU's clock: from one to another that is not far, and never backwards."""
    passed, before = [], 0.0
    for number, event in enumerate(events):
        passed.append(before + zero.elapsed_time(event))
        if passed[-1] - before > FAR and number >= SETTLED:
            zero, before = events[number - SETTLED], passed[number - SETTLED]
    return passed
