"""How fast one layer's decode attention reads keys and values in bf16, beside a plain sum over memory.

    python docs/results/attention.py    # on a GPU: makes attention.json anew
"""

import torch
from common import PAGE_SIZE, gpu_seconds, need_gpu, reading_rate, store

from acb_minimal import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128


def seconds(rows: int, context: int) -> float:
    """Of a batch of decodes, its pages in a random order, as after hours of serving."""
    with torch.device("cuda"):
        pages = -(-context // PAGE_SIZE)
        query = torch.randn(rows, HEADS, HEAD_DIM, dtype=torch.bfloat16)
        key, value = torch.randn(2, rows, KV_HEADS, HEAD_DIM, dtype=torch.bfloat16)
        keys, values = torch.randn(2, rows * pages, KV_HEADS, PAGE_SIZE, HEAD_DIM, dtype=torch.bfloat16)
        page_table = torch.randperm(rows * pages).int().view(rows, pages)
        kv_slots = page_table[:, (context - 1) // PAGE_SIZE] * PAGE_SIZE + (context - 1) % PAGE_SIZE
        seq_lens = torch.full((rows,), context, dtype=torch.int32)
        starts = torch.arange(rows + 1, dtype=torch.int32)
    arguments = (query, key, value, keys, values, kv_slots, page_table, seq_lens, starts, 1, HEAD_DIM**-0.5, 0)
    return gpu_seconds(lambda: torch.ops.acb.paged_attention(*arguments))


if __name__ == "__main__":
    need_gpu()
    ceiling, found = reading_rate(), []
    for rows, context in ((32, 4096), (384, 1024), (32, 8192)):
        took = seconds(rows, context)
        rate = 2 * rows * context * KV_HEADS * HEAD_DIM * torch.bfloat16.itemsize / took
        found.append([rows, context, 1e6 * took, rate / 1e12, rate / ceiling])
    columns = {"rows": "d", "context": ",d", "us": ".1f", "TB/s": ".2f", "of a sum's": ".0%"}
    note = f"A plain sum over 4.3 GB reads {ceiling / 1e12:.2f} TB/s."
    store("attention.json", "attention", "Decode attention, one layer, bf16", columns, found, note)
