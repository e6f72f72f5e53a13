"""The paged KV cache: who owns which page (PagePool, on the host) and the tensors behind them (KVCache).

A page holds the keys and values of `page_size` consecutive positions of one request, in every layer. A request's
pages need not be neighbours: its row of the page table lists them in order of position.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .errors import InputError


class AttentionLayer(NamedTuple):
    """One attention layer of a model.

    Attributes:
        name: its module's, as `get_submodule` takes it.
        kv_heads: heads of the keys and values it caches.
        head_dim: their size.
    """

    name: str
    kv_heads: int
    head_dim: int


class PagePool:
    """Hands out page numbers 0 to num_pages - 1. Touches no device memory."""

    def __init__(self, num_pages: int, page_size: int):
        if num_pages < 1:
            raise InputError(f"the page pool has {num_pages} pages; it needs at least 1")
        if page_size < 1:
            raise InputError(f"page size is {page_size}; it must be at least 1")
        self.num_pages, self.page_size = num_pages, page_size
        self._free = list(range(num_pages))
        self._taken: set[int] = set()

    @property
    def num_free(self) -> int:
        return len(self._free)

    def pages_for(self, positions: int) -> int:
        """Pages that `positions` positions fill."""
        return -(-positions // self.page_size)

    def allocate(self, count: int) -> list[int] | None:
        """`count` pages, or None if fewer are free. The pages freed last are handed out first."""
        if count > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(count)]
        self._taken.update(pages)
        return pages

    def free(self, pages: Sequence[int]) -> None:
        """Takes pages back.

        Raises:
            RuntimeError: nobody holds a page; freed twice, it would get two owners.
        """
        for page in pages:
            if page not in self._taken:
                raise RuntimeError(f"page {page} is freed but nobody holds it")
            self._taken.remove(page)
            self._free.append(page)


class KVCache:
    """Keys and values of every layer.

    One KV head's part of a page is contiguous, so attention streams it in long reads.

    Attributes:
        keys: for each layer [pages + 1, kv_heads, page_size, head_dim].
        values: likewise.
        page_size: positions per page.
        scratch_page: the number of the last page, which the pool does not hand out: for rows that only pad a batch.
    """

    def __init__(self, layers: Sequence[AttentionLayer], pages: int, page_size: int, dtype: torch.dtype, device):
        self.scratch_page, self.page_size = pages, page_size
        shapes = [(pages + 1, layer.kv_heads, page_size, layer.head_dim) for layer in layers]
        # Zeros, not empty: an engine that reads before anything is written reads the same wrong thing every time.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]

    @staticmethod
    def bytes_for(layers: Sequence[AttentionLayer], pages: int, page_size: int, dtype: torch.dtype) -> int:
        """Device bytes that a cache of this shape takes."""
        return sum(2 * (pages + 1) * layer.kv_heads * page_size * layer.head_dim * dtype.itemsize for layer in layers)
