"""The memory that is watched, who has read and written each piece of it last, and what torch operations read and write.

While work runs, every torch operation in it is looked at: its schema says which arguments it reads and which it writes.
A strided tensor counts as everything between its ends. Attention is looked at position by position, and what picks
pages of the KV cache page by page, so that requests that share it do not seem to share its pages.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .. import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)
from ..sim.engine_code import accesses
from ..sim.memory import ByAddress

Pieces = slice | np.ndarray  # of a memory; an array is int [any]


class Memory:
    """Watched memory, cut into pieces, and for each piece which action of each actor last read and last wrote it."""

    def __init__(self, name: str, tensor: torch.Tensor | None = None, pieces: int = 1, block: int = 1):
        """A contiguous tensor, or memory that is nobody's. Its pieces are elements of a buffer, or positions of a KV
        cache, of which a `block`, those of a page, cannot be told apart by address."""
        self.name, self.pieces, self.block = name, pieces, block
        self.start = tensor.data_ptr() if tensor is not None else 0
        self.end = self.start + (tensor.nbytes if tensor is not None else 0)
        self.array = tensor.numpy() if tensor is not None else np.empty(0)  # keeps it, and so its address, alive
        self._last = np.zeros((2, 5, pieces), dtype=np.int64)  # [reads and writes, actors, pieces]; actors may grow

    def pieces_of(self, start: int, shape: Sequence[int], strides: Sequence[int], itemsize: int) -> slice:
        """The pieces, whole blocks of them, that hold all from the first byte of an array to its last. Its first
        element is at address `start`, no size is 0, and strides and itemsize are in bytes."""
        reach = [(count - 1) * stride for count, stride in zip(shape, strides, strict=True)]
        start, end = start + sum(min(0, each) for each in reach), start + sum(max(0, each) for each in reach) + itemsize
        size, block = (self.end - self.start) // self.pieces * self.block, self.block
        return slice((start - self.start) // size * block, -((self.start - end) // size) * block)

    def access(self, actor: int, past: list[int], pieces: Pieces, writes: bool) -> tuple[int, bool, int] | None:
        """Notes that an actor reads or writes these pieces; its `past` is as that of an Action.

        Returns:
            Of an earlier access that overlaps this one and is not in its past: the number, whether it wrote, and at
            which piece. None if there is none.
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


class Memories(ByAddress):
    """All watched memory."""

    def __init__(self):
        super().__init__()
        self._watched: list[Memory] = []

    def watch(self, name: str, tensor: torch.Tensor, page_size: int | None) -> None:
        """Takes it in: a buffer, cut into its elements, or a KV cache ([pages, heads, page_size, head_dim]), cut into
        its positions."""
        pieces = len(tensor) * page_size if page_size else tensor.numel()
        self._watched.append(Memory(name, tensor, pieces, page_size or 1))
        self.put(self._watched[-1])

    def fingerprint(self) -> int:
        """A number that says what is in it: the same in two runs that have watched and done the same."""
        return hash(tuple(memory.array.tobytes() for memory in self._watched))  # addresses differ


# Operations on some entries of a tensor, given by their places in its first dimension: whether they write them.
PICKING = {torch.ops.aten.index_select.default: False, torch.ops.aten.index_copy_.default: True}


class AccessMode(TorchDispatchMode):
    """Looks at every torch operation while it is entered, and tells `touch` of every tensor that one reads (False) or
    writes (True), and `touch_positions` of a KV cache's positions instead, int [any]: page * page_size + offset."""

    def __init__(
        self,
        touch: Callable[[torch.Tensor, bool], None],
        touch_positions: Callable[[torch.Tensor, np.ndarray, bool], None],
    ):
        super().__init__()
        self.touch, self.touch_positions = touch, touch_positions

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch wraps what follows, against being compiled, which takes longer than what it does

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, aliased = kwargs or {}, []
        if func is torch.ops.acb.paged_attention.default:
            self._attention(*args)
        elif func in PICKING and args[1] == 0:
            for entry in args[2].tolist():
                self.touch(args[0][entry], PICKING[func])
            for tensor in args[2:]:
                self.touch(tensor, False)
        else:
            for tensor, viewed, writes in accesses(func, args, kwargs):
                if viewed:
                    aliased.append(tensor)
                else:
                    # What is written may be read as well; whoever may not overlap a read may not overlap a write.
                    self.touch(tensor, writes)
        result = func(*args, **kwargs)
        for tensor in aliased:  # a view reads nothing, but some operations return a view only if they can
            if isinstance(result, torch.Tensor) and result.untyped_storage()._cdata != tensor.untyped_storage()._cdata:
                self.touch(tensor, False)
        return result

    def _attention(self, query, key, value, key_cache, value_cache, kv_slots, page_table, seq_lens, query_starts, *_):
        """Reads and writes of torch.ops.acb.paged_attention, by position."""
        for tensor in (kv_slots, page_table, seq_lens, query_starts):
            self.touch(tensor, False)
        page_size = key_cache.shape[2]
        read = []
        for pages, length in zip(page_table.numpy(), seq_lens.tolist(), strict=True):
            page, offset = np.divmod(np.arange(length), page_size)
            read.append(pages[page] * page_size + offset)
        for keys_or_values in (key_cache, value_cache):
            self.touch_positions(keys_or_values, kv_slots.numpy(), True)
            self.touch_positions(keys_or_values, np.concatenate(read), False)
