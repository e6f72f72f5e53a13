"""What torch operations read and write, and who has read and written a piece of memory last.

While work runs, every torch operation in it is looked at: its schema says which arguments it reads and which it writes.
A strided tensor counts as everything between its ends. Attention is looked at position by position, so that requests
that share the KV cache do not seem to share its pages.
"""

from collections.abc import Callable
from functools import cache
from itertools import zip_longest

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .. import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)


class Memory:
    """Watched memory, cut into pieces, and for each piece which action of each actor last read and last wrote it.

    start, nbytes  where it is
    pieces         how many; elements of a buffer, positions of a KV cache
    block          pieces that cannot be told apart by address: the positions of a page
    """

    def __init__(self, name: str, tensor: torch.Tensor | None = None, pieces: int = 1, block: int = 1):
        self.name, self.tensor, self.pieces, self.block = name, tensor, pieces, block  # kept alive: so is its address
        self.start, self.nbytes = (tensor.data_ptr(), tensor.nbytes) if tensor is not None else (0, 0)
        self._last = np.zeros((2, 5, pieces), dtype=np.int64)  # [reads and writes, actors, pieces]; actors may grow

    def pieces_of(self, start: int, end: int) -> slice:
        """The pieces that the bytes from `start` to `end` are part of, whole blocks of them."""
        size = self.nbytes // self.pieces * self.block
        return slice((start - self.start) // size * self.block, -((self.start - end) // size) * self.block)

    def access(
        self, actor: int, past: list[int], pieces: slice | np.ndarray, writes: bool
    ) -> tuple[int, bool, int] | None:
        """Notes an access by an actor; `past` is what is over before it, for each actor, and has its own number too.

        If it overlaps an earlier one that is not in its past, returns that one's number, whether it wrote, and where.
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


@cache
def _arguments(func: torch._ops.OpOverload) -> list[tuple[str, bool, bool]]:
    """For each argument its name, whether the result can be a view of it, and whether it is written."""
    infos = [(argument.name, argument.alias_info) for argument in func._schema.arguments]
    return [(name, info is not None, info is not None and info.is_write) for name, info in infos]


class Watch(TorchDispatchMode):
    """Looks at every torch operation while it is entered.

    touch            is told of every tensor that one reads (False) or writes (True)
    touch_positions  is told of the positions of a KV cache instead: page * page_size + offset
    """

    def __init__(
        self,
        touch: Callable[[torch.Tensor, bool], None],
        touch_positions: Callable[[torch.Tensor, np.ndarray, bool], None],
    ):
        super().__init__()
        self.touch, self.touch_positions = touch, touch_positions

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.acb.paged_attention.default:
            self._attention(*args)
            return func(*args, **kwargs)
        aliased = []
        for value, (name, alias, writes) in zip_longest(args, _arguments(func)):
            value = kwargs.get(name) if value is None else value
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if not isinstance(tensor, torch.Tensor):
                    continue
                if alias and not writes:
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
