"""Paged attention on a GPU: three Triton kernels and the arithmetic that sizes their launches.

This file knows how to spread the work over a GPU. What the operation means, and the shape of every argument,
is in attention.py. The host never looks at the contents of a tensor: every grid and every buffer is sized from
shapes, so a launch can be captured in a CUDA graph and replayed after the lengths have changed.

    write_kernel    each token's key and value go to their slot
    attend_kernel   flash attention; decode: a program per (row, kv head, split of the history)
                                     mixed:  a program per (block of one row's queries, kv head)
    merge_kernel    decode only: joins the splits of a row

The softmax is computed a tile at a time (Milakov and Gimelshein, "Online normalizer calculation for softmax",
2018; Dao et al., "FlashAttention", 2022), and the history is split as in "Flash-Decoding" (Dao et al., 2023).
All query heads that share a kv head are stacked in one program, so that a key is read once for all of them.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tuning(NamedTuple):
    """What a sweep may change without changing a result by more than rounding."""

    block_m: int        # stacked (query, head) lines per program, at least; tl.dot wants 16 or more
    tile_tokens: int    # keys fetched per loop step, and as many values, at most,
    tile_bytes: int     # and at most so many bytes of each
    num_warps: int      # decode: at least, and as many as hold the accumulators
    num_stages: int     # Triton spends every other stage on the page number that a tile's address waits
                        # for: (num_stages - 1) // 2 tiles are in flight, so use odd numbers. Each costs
                        # 2 * tile_bytes of shared memory at most


# By (decode, bytes per element). fp32 is multiplied from registers, not by tensor cores: smaller blocks, or they
# spill (as head_dim 256 in a mixed batch still does: right, but slow).
TUNING = {
    (True, 2): Tuning(block_m=16, tile_tokens=32, tile_bytes=8192, num_warps=1, num_stages=7),
    (False, 2): Tuning(block_m=64, tile_tokens=128, tile_bytes=16384, num_warps=4, num_stages=5),
    (True, 4): Tuning(block_m=16, tile_tokens=128, tile_bytes=8192, num_warps=4, num_stages=5),
    (False, 4): Tuning(block_m=32, tile_tokens=128, tile_bytes=8192, num_warps=4, num_stages=5),
}
PROGRAMS_PER_SM = 2    # decode: split the histories until about this many programs exist per SM,
MIN_SPLIT_TOKENS = 128  # but not so far that the longest possible row has splits shorter than this,
MAX_SPLITS = 64         # and not into more than this
ACCUMULATORS = 2048     # decode: in the registers of a warp, at most
MERGE_WARPS = 2
EMPTY = tl.constexpr(-1e30)     # a maximum over no scores: below every score, yet finite; see attend_kernel


class Plan(NamedTuple):
    """Sizes of one launch of attend_kernel."""

    block_m: int
    block_q: int
    block_n: int
    splits: int
    num_warps: int
    num_stages: int


@lru_cache(maxsize=4096)
def plan(
    decode: bool, element_size: int, rows: int, heads: int, kv_heads: int, page_size: int, head_dim: int,
    max_pages: int, processors: int,
) -> Plan:
    """From shapes alone: a captured graph replays the launch for other lengths, so lengths must not enter."""
    tuning = TUNING[decode, element_size]
    group = heads // kv_heads
    block_m = max(16 if decode else tuning.block_m, triton.next_power_of_2(group))
    block_q = 1 if decode else block_m // group

    block_n = min(max(tuning.tile_bytes // (head_dim * element_size), 16), tuning.tile_tokens)
    divisor = page_size & -page_size    # the largest power of two that divides the page
    if divisor >= 32:
        block_n = min(block_n, divisor)     # a tile lies within a page: one page number for all of it

    splits, num_warps = 1, tuning.num_warps
    if decode:
        num_warps = max(num_warps, block_m * head_dim // ACCUMULATORS)
        wanted = processors * PROGRAMS_PER_SM // (rows * kv_heads)
        splits = max(1, min(wanted, max_pages * page_size // MIN_SPLIT_TOKENS, MAX_SPLITS))
    return Plan(block_m, block_q, block_n, splits, num_warps, tuning.num_stages)


@lru_cache
def processors_of(device: torch.device) -> int:
    """Multiprocessors of the device."""
    if device.type == "cpu":
        return 8    # Triton's interpreter: enough to make it split
    return torch.cuda.get_device_properties(device).multi_processor_count


def paged_attention(
    query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, kv_slots: Tensor,
    page_table: Tensor, seq_lens: Tensor, query_starts: Tensor, max_query_len: int, scale: float, window: int,
) -> Tensor:
    """See attention.paged_attention, which checks the layout. Launched on the current stream."""
    tokens, heads, head_dim = query.shape
    _, kv_heads, page_size, _ = key_cache.shape
    rows, max_pages = page_table.shape
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if tokens == 0:
        return out
    decode = max_query_len == 1
    p = plan(decode, query.element_size(), rows, heads, kv_heads, page_size, head_dim, max_pages,
             processors_of(query.device))

    write_kernel[(tokens,)](
        key, value, key_cache, value_cache, kv_slots,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        KV_HEADS=kv_heads, PAGE_SIZE=page_size, HEAD_DIM=head_dim,
        BLOCK_HEADS=triton.next_power_of_2(kv_heads),
    )
    if p.splits == 1:
        target, logsum = out, out   # logsum is not used
    else:
        target = torch.empty((rows, heads, p.splits, head_dim), dtype=torch.float32, device=query.device)
        logsum = torch.empty((rows, heads, p.splits), dtype=torch.float32, device=query.device)
    # In a mixed batch the host does not know how many blocks the rows need, but it is never more than this:
    # tokens // block_q whole ones, and one partial one per row.
    blocks = rows if decode else tokens // p.block_q + rows
    attend_kernel[(blocks, kv_heads, p.splits)](
        query, key_cache, value_cache, target, logsum, page_table, seq_lens, query_starts,
        query.stride(0), query.stride(1), page_table.stride(0), rows, scale * math.log2(math.e),
        DECODE=decode, SPLIT=p.splits > 1, WINDOW=window, GROUP=heads // kv_heads, KV_HEADS=kv_heads,
        PAGE_SIZE=page_size, HEAD_DIM=head_dim, BLOCK_M=p.block_m, BLOCK_Q=p.block_q, BLOCK_N=p.block_n,
        num_warps=p.num_warps, num_stages=p.num_stages,
    )
    if p.splits > 1:
        merge_kernel[(rows * heads,)](
            target, logsum, out, p.splits, HEAD_DIM=head_dim, BLOCK_SPLITS=triton.next_power_of_2(p.splits),
            num_warps=MERGE_WARPS,
        )
    return out


# Triton compiles anew when an integer becomes 1, and when an integer or an address becomes, or stops being, a
# multiple of 16. What changes from batch to batch is named below, or a server would stop to compile in mid-flight.
# The strides of query, key and value are not: they belong to the model, and loads are faster if they are known
# to be multiples of 16.


@triton.jit(do_not_specialize_on_alignment=["kv_slots"])
def write_kernel(
    key, value, key_cache, value_cache, kv_slots,
    key_token_stride, key_head_stride, value_token_stride, value_head_stride,
    KV_HEADS: tl.constexpr, PAGE_SIZE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_HEADS: tl.constexpr,
):
    """One token per program: all its heads, key and value."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(kv_slots + token)
    page = (slot // PAGE_SIZE).to(tl.int64)     # a cache has more elements than an int32 can count
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    dim = tl.arange(0, HEAD_DIM)[None, :]
    mask = head < KV_HEADS
    target = ((page * KV_HEADS + head) * PAGE_SIZE + slot % PAGE_SIZE) * HEAD_DIM + dim
    key_row = tl.load(key + token * key_token_stride + head * key_head_stride + dim, mask=mask)
    tl.store(key_cache + target, key_row, mask=mask)
    value_row = tl.load(value + token * value_token_stride + head * value_head_stride + dim, mask=mask)
    tl.store(value_cache + target, value_row, mask=mask)


@triton.jit
def row_of_block(query_starts, block, rows, BLOCK_Q: tl.constexpr):
    """The row that a block of queries belongs to, by binary search.

    Row r is given the blocks from first(r) = query_starts[r] // BLOCK_Q + r up to first(r + 1). The "+ r" leaves
    every row room for a partial block, so nobody has to make a list of blocks.
    """
    low = 0
    high = rows
    while high - low > 1:   # first(low) <= block < first(high)
        middle = (low + high) // 2
        if tl.load(query_starts + middle) // BLOCK_Q + middle <= block:
            low = middle
        else:
            high = middle
    return low


@triton.jit(
    do_not_specialize=["page_table_stride", "rows"],
    do_not_specialize_on_alignment=["page_table", "seq_lens", "query_starts"],
)
def attend_kernel(
    query, key_cache, value_cache, out, logsum, page_table, seq_lens, query_starts,
    query_token_stride, query_head_stride, page_table_stride, rows, scale_log2,
    DECODE: tl.constexpr, SPLIT: tl.constexpr, WINDOW: tl.constexpr, GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr, PAGE_SIZE: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """BLOCK_Q queries of one row, in the GROUP heads that share a kv head, over one split of the row's history.

    Writes out [tokens, heads, HEAD_DIM] or, if SPLIT, the split's own out [rows, heads, splits, HEAD_DIM] and
    the base-2 logarithm of its sum of exponentials, logsum [rows, heads, splits].
    """
    kv_head = tl.program_id(1)
    if DECODE:
        row = tl.program_id(0)
        first_query = row
        queries = 1
        query_in_row = 0
    else:
        row = row_of_block(query_starts, tl.program_id(0), rows, BLOCK_Q)
        row_start = tl.load(query_starts + row)
        queries = tl.load(query_starts + row + 1) - row_start
        query_in_row = (tl.program_id(0) - row_start // BLOCK_Q - row) * BLOCK_Q
        if query_in_row >= queries:
            return      # the grid is an upper bound
        first_query = row_start + query_in_row
    seq_len = tl.load(seq_lens + row)

    # Line m of the stacked block is query m // GROUP in head m % GROUP. Lines past the last query are padding:
    # they are computed like the others and not stored.
    line = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, HEAD_DIM)
    token = (first_query + line // GROUP).to(tl.int64)
    head = kv_head * GROUP + line % GROUP
    stored = (line < BLOCK_Q * GROUP) & (query_in_row + line // GROUP < queries)
    position = seq_len - queries + query_in_row + line // GROUP
    q_at = token[:, None] * query_token_stride + head[:, None] * query_head_stride + dim[None, :]
    q = tl.load(query + q_at, mask=stored[:, None], other=0.0)

    # Keys that somebody in this block sees: from the first query's window to the last query's own position.
    high = tl.minimum(seq_len - queries + query_in_row + BLOCK_Q, seq_len)
    low = 0
    if WINDOW > 0:
        low = tl.maximum(seq_len - queries + query_in_row - WINDOW + 1, 0)
    begin = low // BLOCK_N * BLOCK_N    # a tile starts at a multiple of its size: it cannot straddle two pages
    end = high
    if SPLIT:
        # The grid fixes the number of splits; their length is found here, where the row's length is known. In a
        # short row the last splits begin after `high`, and the loop below does nothing for them.
        split_len = tl.cdiv(tl.cdiv(high - begin, BLOCK_N), tl.num_programs(2)) * BLOCK_N
        begin += tl.program_id(2) * split_len
        end = tl.minimum(begin + split_len, high)

    # Online softmax, in base 2. The maximum starts at a finite number: if it were -inf, a tile in which some
    # query sees nothing would compute exp2(-inf - -inf), NaN, where exp2(-inf - EMPTY) is the 0 it should be.
    best = tl.full([BLOCK_M], EMPTY, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    row_pages = page_table + row.to(tl.int64) * page_table_stride
    for start in range(begin, end, BLOCK_N):
        seen = start + tl.arange(0, BLOCK_N)
        # The mask is on the loads and not only on the scores: beyond `end` lie slots that nobody has written,
        # and a weight of 0 times a NaN found there is NaN.
        mask = (seen >= low) & (seen < end)
        if PAGE_SIZE % BLOCK_N == 0:
            page = tl.load(row_pages + start // PAGE_SIZE).to(tl.int64)
        else:
            page = tl.load(row_pages + seen // PAGE_SIZE, mask=mask, other=0).to(tl.int64)[:, None]
        kv_at = (page * KV_HEADS + kv_head) * (PAGE_SIZE * HEAD_DIM)
        in_page = (seen % PAGE_SIZE)[:, None] * HEAD_DIM + dim[None, :]
        k = tl.load(key_cache + kv_at + in_page, mask=mask[:, None], other=0.0)
        v = tl.load(value_cache + kv_at + in_page, mask=mask[:, None], other=0.0)

        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2    # "ieee": no TF32 for fp32
        visible = mask[None, :] & (seen[None, :] <= position[:, None])
        if WINDOW > 0:
            visible &= seen[None, :] > position[:, None] - WINDOW
        scores = tl.where(visible, scores, float("-inf"))

        new_best = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp2(scores - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        total = total * shrink + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc=acc * shrink[:, None], input_precision="ieee")
        best = new_best

    # Nothing seen (an empty split): total is 0, acc is 0. Divide by 1, and let logsum be EMPTY,
    # which gives this split weight 0 beside any split that has seen something.
    total = tl.where(total > 0, total, 1.0)
    acc /= total[:, None]
    if SPLIT:
        at = (token * (KV_HEADS * GROUP) + head) * tl.num_programs(2) + tl.program_id(2)
        tl.store(logsum + at, best + tl.log2(total), mask=stored)
    else:
        at = token * (KV_HEADS * GROUP) + head
    tl.store(out + at[:, None] * HEAD_DIM + dim[None, :], acc.to(out.dtype.element_ty), mask=stored[:, None])


@triton.jit(do_not_specialize=["splits"])
def merge_kernel(partial, logsum, out, splits, HEAD_DIM: tl.constexpr, BLOCK_SPLITS: tl.constexpr):
    """One (row, head) per program: the mean of its splits' outputs, weighted with their sums of exponentials."""
    at = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, BLOCK_SPLITS)
    dim = tl.arange(0, HEAD_DIM)
    sums = tl.load(logsum + at * splits + split, mask=split < splits, other=float("-inf"))
    weights = tl.exp2(sums - tl.max(sums, 0))
    partials_at = (at * splits + split)[:, None] * HEAD_DIM + dim[None, :]
    partials = tl.load(partial + partials_at, mask=(split < splits)[:, None], other=0.0)
    merged = tl.sum(partials * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out + at * HEAD_DIM + dim, merged.to(out.dtype.element_ty))
