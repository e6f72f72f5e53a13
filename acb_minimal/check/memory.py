"""The memory that is watched, and who has read and written each piece of it last."""

from bisect import bisect, insort
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch


class Memory:
    """Watched memory, cut into pieces, and for each piece which action of each actor last read and last wrote it.

    Attributes:
        start: its address.
        nbytes: its size.
    """

    def __init__(self, name: str, tensor: torch.Tensor | None = None, pieces: int = 1, block: int = 1):
        """
        Args:
            name: what to call it.
            tensor: the memory, contiguous; None for memory that is nobody's tensor.
            pieces: how many; elements of a buffer, positions of a KV cache.
            block: so many pieces cannot be told apart by address: the positions of a page.
        """
        self.name, self.tensor, self.pieces, self.block = name, tensor, pieces, block  # kept alive: so is its address
        self.start, self.nbytes = (tensor.data_ptr(), tensor.nbytes) if tensor is not None else (0, 0)
        self._last = np.zeros((2, 5, pieces), dtype=np.int64)  # [reads and writes, actors, pieces]; actors may grow

    def pieces_of(self, start: int, shape: Sequence[int], strides: Sequence[int], itemsize: int) -> slice:
        """The pieces, whole blocks of them, that hold all from the first byte of an array to its last.

        Args:
            start: address of its first element.
            shape: of the array; no size is 0.
            strides: in bytes.
            itemsize: bytes of an element.
        """
        reach = [(count - 1) * stride for count, stride in zip(shape, strides, strict=True)]
        start, end = start + sum(min(0, each) for each in reach), start + sum(max(0, each) for each in reach) + itemsize
        size = self.nbytes // self.pieces * self.block
        return slice((start - self.start) // size * self.block, -((self.start - end) // size) * self.block)

    def access(
        self, actor: int, past: list[int], pieces: slice | np.ndarray, writes: bool
    ) -> tuple[int, bool, int] | None:
        """Notes an access.

        Args:
            actor: whose.
            past: for every actor, the number of its last action that is over before; its own for this actor.
            pieces: which are read or written.
            writes: whether it is a write.

        Returns:
            Of an earlier access that overlaps it and is not in its past: the number, whether it wrote, and at which
            piece. None if there is none.
        """
        if (new := len(past) - self._last.shape[1]) > 0:
            self._last = np.pad(self._last, ((0, 0), (0, new), (0, 0)))
        # Earlier accesses are all there is to look at: what has to come after this one has not run yet.
        last = self._last[0 if writes else 1 :, :, pieces]
        late = last > np.array(past + [0] * -new)[:, None]
        found = None
        if late.any():
            number = last[late].max()
            kind, _, place = np.argwhere(late & (last == number))[-1]
            found = int(number), bool(kind or not writes), int(np.arange(self.pieces)[pieces][place])
        self._last[int(writes), actor, pieces] = past[actor]
        return found


class Memories:
    """All watched memory, found by address."""

    def __init__(self):
        self._watched: list[Memory] = []
        self._by_address: list[Memory] = []

    def watch(self, name: str, tensor: torch.Tensor, page_size: int | None) -> None:
        """Takes it in: a buffer, cut into its elements, or a KV cache ([pages, heads, page_size, head_dim]), cut into
        its positions."""
        pieces = len(tensor) * page_size if page_size else tensor.numel()
        self._watched.append(Memory(name, tensor, pieces, page_size or 1))
        insort(self._by_address, self._watched[-1], key=_start)

    def at(self, address: int) -> Memory | None:
        """What is there; None if nobody watches it."""
        before = bisect(self._by_address, address, key=_start)
        memory = self._by_address[before - 1] if before else None
        return memory if memory and address < memory.start + memory.nbytes else None

    def fingerprint(self) -> int:
        """A number that says what is in it: the same in two runs that have watched and done the same."""
        with torch._C.DisableTorchFunction():  # it is not the engine that looks, though it may be running
            return hash(tuple(memory.tensor.numpy().tobytes() for memory in self._watched))  # addresses differ


_start = attrgetter("start")
