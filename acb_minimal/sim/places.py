"""Which memory of the simulated machine is pinned, and which is the device's: all of it is the CPU's in fact."""

from bisect import bisect, insort
from typing import NamedTuple

import torch

from ..device import Work

HOST, PINNED, DEVICE = "host", "pinned", "device"


class Place(NamedTuple):
    """A piece of memory that is more than ordinary memory of the host.

    Attributes:
        start: its address.
        end: the address behind it.
        pinned: whether it is the host's, and pinned; else the device's.
        tensor: the memory; kept alive, for a freed address may be handed out again.
        work: whose it is; None if it is nobody's.
    """

    start: int
    end: int
    pinned: bool
    tensor: torch.Tensor
    work: Work | None


class Places:
    """Pinned memory and that of the device, found by address."""

    def __init__(self):
        self._places: list[Place] = []

    def add(self, tensor: torch.Tensor, pinned: bool = False, work: Work | None = None) -> None:
        """Takes in a contiguous tensor. One that is known already keeps what is known of it, but gets an owner."""
        if tensor.device.type == "meta" or not tensor.numel():
            return
        if (known := self.of(tensor)) is not None:
            self._places.remove(known)
            pinned = known.pinned
        start = tensor.data_ptr()
        insort(self._places, Place(start, start + tensor.nbytes, pinned, tensor, work), key=_start)

    def of(self, tensor: torch.Tensor) -> Place | None:
        """Where the tensor lies; None if that is ordinary memory of the host."""
        if tensor.device.type == "meta":
            return None
        address = tensor.data_ptr()
        before = bisect(self._places, address, key=_start)
        place = self._places[before - 1] if before else None
        return place if place and address < place.end else None

    def kind(self, tensor: torch.Tensor) -> str:
        """HOST, PINNED or DEVICE."""
        place = self.of(tensor)
        return HOST if place is None else PINNED if place.pinned else DEVICE


def _start(place: Place) -> int:
    return place.start
