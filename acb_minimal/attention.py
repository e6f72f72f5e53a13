"""Attention over a paged KV cache, for one ragged batch of prefill chunks and decodes.

This file knows what the operation means: its arguments, their shapes, a plain torch version of it, and how
torch is told about it. It does not know how a GPU computes it (attention_triton.py), who owns a page
(kv_cache.py), or which model is asking (model.py).

    torch.ops.acb.paged_attention(query, key, value, key_cache, value_cache, kv_slots, page_table,
                                  seq_lens, query_starts, max_query_len, scale, window) -> out
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def paged_attention(
    query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, kv_slots: Tensor,
    page_table: Tensor, seq_lens: Tensor, query_starts: Tensor, max_query_len: int, scale: float, window: int,
) -> Tensor:
    """Write this batch's keys and values into the cache, then attend to everything each row has there.

    query, key and value may be strided views, as long as head_dim is contiguous; they are not copied.

    Args:
        query: [tokens, heads, head_dim], the batch's rows, one after another.
        key: [tokens, kv_heads, head_dim]; heads is a multiple of kv_heads.
        value: likewise.
        key_cache: [pages, kv_heads, page_size, head_dim], contiguous; **mutated**. A page of one head is one unbroken
            piece of memory, which is what lets a kernel read it at full speed.
        value_cache: likewise.
        kv_slots: [tokens] int32, where a token's key and value go, page * page_size + offset.
        page_table: [rows, max_pages] int32, the row's pages in order; entries past its length are never read.
        seq_lens: [rows] int32, tokens the row has in the cache once this batch is written.
        query_starts: [rows + 1] int32; row r's queries are tokens query_starts[r] to query_starts[r + 1] - 1, and they
            are the last of its seq_lens[r] positions.
        max_query_len: the longest row of this batch, in tokens; 1: every row is one token (tokens == rows).
        scale: the factor on query . key, usually head_dim ** -0.5.
        window: 0: a query sees every position up to its own, p. w > 0: only p - w + 1 to p, which is what
            `sliding_window` means in transformers.masking_utils.

    Returns:
        [tokens, heads, head_dim], contiguous, in query's dtype.

    Raises:
        ValueError: a layout that the kernels cannot read.
    """
    check_layout(
        query, key, value, key_cache, value_cache, kv_slots, page_table, seq_lens, query_starts, max_query_len
    )
    _, heads, page_size, head_dim = key_cache.shape
    page, offset = kv_slots // page_size, kv_slots % page_size
    key_cache[page, :, offset] = key
    value_cache[page, :, offset] = value

    # Zeros, not empty: a broken engine whose rows leave tokens out gives the same wrong answer every time.
    out = torch.zeros(query.shape, dtype=query.dtype)
    counts = query_starts.diff()
    for count in sorted(set(counts.tolist())):  # rows with as many queries, all decodes for one, are computed together
        rows = (counts == count).nonzero()[:, 0]
        lengths = seq_lens[rows][:, None]
        longest = int(lengths.max())

        # The rows' histories, gathered page by page: [rows, kv_heads, longest, head_dim].
        needed = torch.arange(-(-longest // page_size)) * page_size < lengths
        pages = page_table[rows, : needed.shape[1]].where(needed, 0)
        seen = torch.arange(longest)                                                # position of each key
        pieces = pages[:, None] * heads + torch.arange(heads)[:, None]              # a page of a head is one piece
        keys, values = (
            F.embedding(pieces, cache.view(-1, page_size * head_dim)).view(len(rows), heads, -1, head_dim)
            for cache in (key_cache, value_cache)
        )
        keys, values = keys[:, :, :longest], values[:, :, :longest]
        for gathered in (keys, values):
            if not gathered.sum().isfinite():  # what others have left where a row is shorter may be no numbers
                gathered.masked_fill_((seen >= lengths)[:, None, :, None], 0)

        asks = (lengths - count + torch.arange(count))[:, :, None]                  # position of each query
        visible = seen <= asks
        if window:
            visible &= seen > asks - window
        tokens = query_starts[rows][:, None] + torch.arange(count)
        answers = F.scaled_dot_product_attention(
            query[tokens].transpose(1, 2), keys, values, attn_mask=visible[:, None], scale=scale, enable_gqa=True
        )  # [rows, heads, count, head_dim]
        out[tokens] = answers.transpose(1, 2)
    return out


def check_layout(
    query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, kv_slots: Tensor,
    page_table: Tensor, seq_lens: Tensor, query_starts: Tensor, max_query_len: int, *_,
) -> None:
    """Refuse what would be read as the wrong numbers. It looks at shapes and strides only: no sync."""
    contiguous = key_cache.is_contiguous() and value_cache.is_contiguous()
    if not contiguous or key_cache.shape != value_cache.shape:
        raise ValueError("the key and value caches must be contiguous and have one shape")
    if query.stride(-1) != 1 or key.stride(-1) != 1 or value.stride(-1) != 1:
        raise ValueError("query, key and value must be contiguous along head_dim")
    if max_query_len == 1 and query.shape[0] != seq_lens.shape[0]:
        raise ValueError(f"max_query_len is 1, but {query.shape[0]} tokens came for {seq_lens.shape[0]} rows")


def _paged_attention_cuda(*args) -> Tensor:
    from . import attention_triton  # here, so that a machine without Triton can import this file

    check_layout(*args)
    return attention_triton.paged_attention(*args)


def _paged_attention_shape(query: Tensor, *_) -> Tensor:
    return query.new_empty(query.shape)


# torch.library.custom_op would be shorter, but its Python wrapper costs about ten times what a bare Library
# does per call, and this is called once per layer per step, in a loop whose speed is the cost of launching.
# mutates_args is what keeps torch.compile from copying both caches around every call.
_library = torch.library.Library("acb", "FRAGMENT")
_schema = torch.library.infer_schema(paged_attention, mutates_args=("key_cache", "value_cache"))
_library.define("paged_attention" + _schema)
_library.impl("paged_attention", paged_attention, "CPU")
_library.impl("paged_attention", _paged_attention_cuda, "CUDA")
torch.library.register_fake("acb::paged_attention", _paged_attention_shape, lib=_library)
