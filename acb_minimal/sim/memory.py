"""Memory of the simulated machine, all of it the CPU's in fact: which is pinned, which is the device's, and who on the
host touches what is pinned."""

from __future__ import annotations  # HostView is named in its own methods

from bisect import bisect, insort
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch

from ..device import Work
from .operations import Observer

HOST, PINNED, DEVICE = "host", "pinned", "device"


class Place(NamedTuple):
    """A piece of memory that is more than ordinary memory of the host."""

    start: int  # its address
    end: int  # the address behind it
    kind: str  # PINNED or DEVICE
    tensor: torch.Tensor  # the memory; kept alive, for a freed address may be handed out again
    work: Work | None  # whose it is


class ByAddress:
    """Pieces of memory, each with its `start` and its `end`, the address behind it."""

    def __init__(self):
        self._pieces: list[Any] = []

    def put(self, piece: Any) -> None:
        """Takes it in; there is nothing yet where it lies."""
        insort(self._pieces, piece, key=_start)

    def at(self, address: int) -> Any:
        """What is there; None if nothing is."""
        before = bisect(self._pieces, address, key=_start)
        piece = self._pieces[before - 1] if before else None
        return piece if piece and address < piece.end else None


_start = attrgetter("start")


class Places(ByAddress):
    """Pinned memory and that of the device."""

    def add(self, tensor: torch.Tensor, kind: str = DEVICE, work: Work | None = None) -> None:
        """Takes in a contiguous tensor. One that is known already keeps its kind, but gets an owner."""
        if tensor.device.type == "meta" or not tensor.numel():
            return
        if (known := self.of(tensor)) is not None:
            self._pieces.remove(known)
            kind = known.kind
        start = tensor.data_ptr()
        self.put(Place(start, start + tensor.nbytes, kind, tensor, work))

    def of(self, tensor: torch.Tensor) -> Place | None:
        """Where the tensor lies; None if that is ordinary memory of the host."""
        return None if tensor.device.type == "meta" else self.at(tensor.data_ptr())

    def kind(self, tensor: torch.Tensor) -> str:
        """HOST, PINNED or DEVICE."""
        place = self.of(tensor)
        return place.kind if place else HOST


def _told(name: str, writes: bool = False):
    """A method of an array that reads or writes all of it, and tells so."""
    method = getattr(np.ndarray, name)

    def telling(self, *args, **kwargs):
        self._tell(writes)
        return method(_plain(self), *args, **kwargs)

    return telling


def _plain(value):
    """The same array without word to anybody; anything else as it is."""
    return value.view(np.ndarray) if isinstance(value, HostView) else value


class HostView(np.ndarray):
    """A NumPy array over pinned memory whose reads and writes are told to an observer, wherever they come from.

    A view of it tells too; a result of its own does not matter, since the observer knows memory by its address. What is
    done behind NumPy's back, through np.asarray(view) say, is not seen.
    """

    observer: Observer | None = None
    __iter__, tolist, item, copy, astype = map(_told, ("__iter__", "tolist", "item", "copy", "astype"))
    fill = _told("fill", writes=True)

    @classmethod
    def of(cls, array: np.ndarray, observer: Observer) -> HostView:
        """The same memory as `array`."""
        view = array.view(cls)
        view.observer = observer
        return view

    def __array_finalize__(self, source: object) -> None:
        self.observer = getattr(source, "observer", None)

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if not self._is_view(found):  # an element or a copy
            self._touched(key, writes=False)
        return found

    def __setitem__(self, key, value) -> None:
        self._touched(key, writes=True)
        super().__setitem__(key, _plain(value))

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **named):
        for arrays, writes in ((inputs, False), (out, True)):
            for each in arrays:
                if isinstance(each, HostView):
                    each._tell(writes)
        if out:
            named["out"] = tuple(map(_plain, out))
        return getattr(ufunc, method)(*map(_plain, inputs), **named)

    def _touched(self, key, writes: bool) -> None:
        """Tells of what `key` picks: the stretch that holds it, or everything if it picks here and there."""
        if isinstance(key, int | np.integer):
            key = slice(key, key + 1 or None)
        picked = super().__getitem__(key)
        (picked if self._is_view(picked) else self)._tell(writes)

    def _is_view(self, found: object) -> bool:
        return isinstance(found, np.ndarray) and (not found.size or np.may_share_memory(found, self))

    def _tell(self, writes: bool) -> None:
        if self.observer is not None and self.size:
            self.observer.touched(_plain(self), writes)
