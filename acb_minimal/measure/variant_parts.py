"""Parts of what variants.py measures whole, by themselves: products, attention, joining, and a start from nothing."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..model import Model
from ..run import fuse
from ..run.joined_linears import FirstLinear, join_linears
from ..slot import IOSlot
from .parts import gpu_seconds

START = ("run", "ch6", "--compile", "--workload", "long", "--new-tokens", "1")
PLANS = {  # of attention alone: programs for each multiprocessor, if others than usual, and what of Tuning is changed
    "as it is": (None, {}),
    "4 programs for each SM": (4, {}),
    "8 programs": (8, {}),
    "16 programs": (16, {}),
    "2 warps": (None, {"num_warps": 2}),
    "4 warps": (None, {"num_warps": 4}),
    "tiles of 16 tokens": (None, {"tile_tokens": 16}),
    "tiles of 64 tokens, 5 stages": (None, {"tile_tokens": 64, "tile_bytes": 16384, "num_stages": 5}),
    "5 stages": (None, {"num_stages": 5}),
    "9 stages": (None, {"num_stages": 9}),
}


def start() -> float:
    """Seconds of START, with nothing compiled before.

    Raises:
        InputError: the command has failed; with what it has said.
    """
    with tempfile.TemporaryDirectory() as inductor, tempfile.TemporaryDirectory() as triton:
        caches = {"TORCHINDUCTOR_CACHE_DIR": inductor, "TRITON_CACHE_DIR": triton}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "acb_minimal.cli", *START], env=os.environ | caches, capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise InputError(f"acb {' '.join(START)}: {said[-1]}")
    return seconds


@contextmanager
def planned(programs: int | None, **tuning: int) -> Iterator[None]:
    """Inside, decodes in 16 bits attend with so many programs for each multiprocessor, and so tuned."""
    from .. import attention_triton as kernels

    kept = kernels.PROGRAMS_PER_SM, dict(kernels.TUNING)
    kernels.PROGRAMS_PER_SM = programs or kernels.PROGRAMS_PER_SM
    kernels.TUNING[True, 2] = kernels.TUNING[True, 2]._replace(**tuning)
    kernels.plan.cache_clear()
    try:
        yield
    finally:
        kernels.PROGRAMS_PER_SM, before = kept
        kernels.TUNING.update(before)
        kernels.plan.cache_clear()


def linears(network: nn.Module, rows: int) -> tuple[list[list], dict]:
    """How fast each kind of linear reads its weights.

    Args:
        network: with its linears joined.
        rows: of a batch.

    Returns:
        Rows of the table; and what product_triton.py is faster for than cuBLASLt, with which blocks, as its in_linears
        takes it.
    """
    from . import product_triton

    kinds: dict[tuple, list[Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, FirstLinear) or type(module) is nn.Linear:
            joined = isinstance(module, FirstLinear)
            weight = module.joined_weight if joined else module.weight.detach()
            kind = name.rpartition(".")[2] + (", joined" if joined else "")
            kinds.setdefault((kind, weight.shape), []).append(weight)
    found, faster = [], {}
    for (kind, shape), weights in kinds.items():
        x = torch.randn(1, rows, shape[1], dtype=weights[0].dtype, device=weights[0].device)
        rates, best = [], 0.0
        for library in ("cublas", "cublaslt"):
            fuse.use_blas(network, library)
            rates.append(_rate(functional.linear, x, weights))
        for blocks in product_triton.fitting(weights[0]) if rows <= product_triton.MOST_ROWS else ():
            rate = _rate(lambda x, weight, blocks=blocks: product_triton.product(x, weight, blocks), x, weights)
            if rate > max(best, rates[1]):
                faster[shape] = blocks
            best = max(best, rate)
        found.append([kind, *shape, *(rate / 1e12 for rate in rates), best / 1e12 or None])
    fuse.use_blas(network, "default")
    return found, faster


def _rate(call: Callable[[Tensor, Tensor], Tensor], x: Tensor, weights: list[Tensor]) -> float:
    """Bytes of weights per second, all of them in turn."""
    with torch.inference_mode():
        seconds = gpu_seconds(lambda: [call(x, weight) for weight in weights], calls=1, repeats=5)
    return sum(weight.nbytes for weight in weights) / seconds


def attention(model: Model, slots: dict[int, IOSlot], programs: int | None, tuning: dict[str, int]) -> dict[int, float]:
    """Seconds of all layers' attention, by context."""
    config, cache = model.network.config.get_text_config(), model.cache
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    shape = cache.keys[0].shape[-1]
    dtype, device = cache.keys[0].dtype, cache.keys[0].device
    found = {}
    with planned(programs, **tuning), torch.inference_mode():
        for context, slot in slots.items():
            inputs, rows = slot.written.inputs, len(slot.written.batch.rows)
            query = torch.randn(rows, heads, shape, dtype=dtype, device=device)
            key, value = (torch.randn(rows, kv_heads, shape, dtype=dtype, device=device) for _ in range(2))
            where = inputs.kv_slots, inputs.page_table, inputs.seq_lens, inputs.query_starts

            def call(query=query, key=key, value=value, where=where):
                for keys, values in zip(cache.keys, cache.values, strict=True):
                    torch.ops.acb.paged_attention(query, key, value, keys, values, *where, 1, shape**-0.5, 0)

            found[context] = gpu_seconds(call, calls=1, repeats=5)
    return found


def joining(network: nn.Module) -> list[list]:
    """Joins, and says what it took."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held, began = torch.cuda.memory_allocated(), time.perf_counter()
    join_linears(network)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return [
        ["joining all linears", "seconds", seconds],
        ["memory it takes meanwhile beyond the model's", "GB", (torch.cuda.max_memory_allocated() - held) / 1e9],
        ["memory it takes for good", "GB", (torch.cuda.memory_allocated() - held) / 1e9],
    ]
