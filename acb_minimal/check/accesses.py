"""What torch operations read and write.

While work runs, every torch operation in it is looked at: its schema says which arguments it reads and which it writes.
A strided tensor counts as everything between its ends. Attention is looked at position by position, so that requests
that share the KV cache do not seem to share its pages.
"""

from collections.abc import Callable
from itertools import zip_longest

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .. import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)
from ..sim.own import arguments


class Watch(TorchDispatchMode):
    """Looks at every torch operation while it is entered."""

    def __init__(
        self,
        touch: Callable[[torch.Tensor, bool], None],
        touch_positions: Callable[[torch.Tensor, np.ndarray, bool], None],
    ):
        """
        Args:
            touch: is told of every tensor that an operation reads (False) or writes (True).
            touch_positions: is told of the positions of a KV cache instead, int [any]: page * page_size + offset.
        """
        super().__init__()
        self.touch, self.touch_positions = touch, touch_positions

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch wraps what follows, against being compiled, which takes longer than what it does

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.acb.paged_attention.default:
            self._attention(*args)
            return func(*args, **kwargs)
        aliased = []
        for value, (name, alias, writes) in zip_longest(args, arguments(func)):
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
