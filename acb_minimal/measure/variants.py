"""What was tried to make a decode step shorter: each idea a variant of the network, all of them measured in one run.

A variant that moves nothing stays in the log: it says what need not be tried again. The first and the last of those
with `--compile` are the same, so that the log says itself how far two measurements of one thing lie apart.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..device import CudaDevice
from ..errors import InputError
from ..run import fuse
from ..run.checkpoint import Checkpoint
from ..run.join import FirstLinear, join_linears
from ..slot import IOSlot
from .calibrate import PAGE_SIZE, ready_model, written
from .figures import environment
from .parts import gpu_seconds, reading_rate
from .record import Measured
from .roofline import kernels_of

ROWS, CONTEXTS = 32, (496, 4080, 7984)  # `long`, and what it would be with shorter and with longer prompts
SMALL_ROWS, SMALL_CONTEXT = 128, 1152
SIZES = (32, 24, 16, 8, 4, 2, 1)  # of batches, each compiled on its own
START = ("run", "ch6", "--compile", "--workload", "long", "--new-tokens", "1")


class Variant(NamedTuple):
    """A network, and what was done to it.

    Attributes:
        name: of the idea.
        joined: its linears.
        compiled: its layers.
        around: compiled, what is beside the layers.
        cublaslt: products are cuBLASLt's, not cuBLAS's.
        split: attention splits every row's history, until there are 8 programs for each multiprocessor.
        triton: the products that few_rows.py has faster are its own.
        options: of torch.compile.
    """

    name: str
    joined: bool = True
    compiled: bool = True
    around: bool = True
    cublaslt: bool = True
    split: bool = False
    triton: bool = False
    options: dict = {}


AS_IT_IS = Variant("as it is", joined=False, compiled=False, around=False, cublaslt=False)
LAYERS = AS_IT_IS._replace(name="layers compiled", compiled=True)
BOTH = LAYERS._replace(name="both", joined=True)
VARIANTS = (  # the linears of a network stay joined: first come those without
    AS_IT_IS,
    AS_IT_IS._replace(name="attention split", split=True),
    LAYERS,
    AS_IT_IS._replace(name="linears joined", joined=True),
    BOTH,
    BOTH._replace(name="both, cuBLASLt", cublaslt=True),
    Variant("--compile"),
    Variant("attention split, too", split=True),
    Variant("sizes left open", options={"dynamic": True}),
    Variant("combo kernels", options={"options": {"combo_kernels": True}}),
    Variant("coordinate descent", options={"options": {"coordinate_descent_tuning": True}}),
    Variant("Inductor's PDL", options={"options": {"triton.enable_pdl": True}}),
    Variant("max-autotune", options={"mode": "max-autotune-no-cudagraphs"}),
    Variant("Triton products", triton=True),
    Variant("--compile, again"),
)
PLANS = {  # of attention alone: programs for each multiprocessor, and what of Tuning is changed
    "2 programs for each SM, 2 warps, tiles of 8 KB, 7 stages": (2, {}),
    "4 programs": (4, {}),
    "8 programs": (8, {}),
    "16 programs": (16, {}),
    "1 warp": (2, {"num_warps": 1}),
    "4 warps": (2, {"num_warps": 4}),
    "4 warps, tiles of 16 KB": (2, {"num_warps": 4, "tile_bytes": 16384}),
    "5 stages": (2, {"num_stages": 5}),
    "9 stages": (2, {"num_stages": 9}),
}


@dataclass
class Tried:
    """What a process has measured of one model.

    Attributes:
        seconds: of a step, by variant and context.
        kernels: of a step at the middle context, by variant: how many, and their seconds.
        tokens: of a step, by variant and context.
        linears: of each kind of linear: name, outputs, inputs, bytes per second by cuBLAS, cuBLASLt and few_rows.py.
        attention: seconds of all layers, by plan and context.
        cost: rows of that table.
        rate: bytes per second that a plain sum reads.
    """

    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    kernels: dict[str, tuple[int, float]] = field(default_factory=dict)
    tokens: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    linears: list[list] = field(default_factory=list)
    attention: dict[str, dict[int, float]] = field(default_factory=dict)
    cost: list[list] = field(default_factory=list)
    rate: float = 0.0


def variants(progress: Callable[[str], None] = lambda text: None) -> dict[str, Measured]:
    """Measures all of them.

    Args:
        progress: is told what comes next.

    Returns:
        Tables: "steps", "linears", "attention", "cost" and "start".

    Raises:
        InputError: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("variants of a step are measured on a CUDA GPU; torch finds none")
    progress("from the start of `acb run --compile` to its end")
    start = _start()
    tried = []
    for name, rows, contexts in (("llama-3.1-8b", ROWS, CONTEXTS), ("llama-3.2-1b", SMALL_ROWS, (SMALL_CONTEXT,))):
        progress(f"{name}: {len(VARIANTS)} variants")
        # In a process of its own: torch's profiler runs in it, and nothing is compiled in it yet.
        with ProcessPoolExecutor(1, get_context("spawn")) as process, tempfile.TemporaryDirectory() as cache:
            tried.append(process.submit(_measure, name, rows, contexts, cache).result())
    return tables(*tried, start, environment(CudaDevice()))


def tables(long: Tried, small: Tried, start: float, environment: dict[str, str]) -> dict[str, Measured]:
    """What was measured, as tables.

    Args:
        long: of llama-3.1-8b.
        small: of llama-3.2-1b.
        start: seconds of START.
        environment: machine, versions and date.
    """
    middle = CONTEXTS[1]
    columns = {"variant": ""} | {f"ms at {context:,}": ".2f" for context in CONTEXTS}
    steps = [
        [each.name, *(1e3 * long.seconds[each.name][context] for context in CONTEXTS), long.kernels[each.name][0],
         1e3 * long.kernels[each.name][1], 1e3 * small.seconds[each.name][SMALL_CONTEXT]]
        for each in VARIANTS
    ]  # fmt: skip
    compiled = VARIANTS[6].name
    same = [
        [f"tokens as not compiled, {context:,} positions", "share", _same(long.tokens, compiled, context)]
        for context in CONTEXTS
    ]
    attention = [
        [plan, *(1e3 * seconds[context] for context in CONTEXTS)] for plan, seconds in long.attention.items()
    ]
    made = {
        "steps": (
            "What was tried on a decode step",
            columns | {"kernels": ",d", "ms of kernels": ".2f", "`small`, ms": ".3f"},
            steps,
            f"ms per decode step of llama-3.1-8b with {ROWS} rows of so many positions, replayed as a graph; kernels, "
            f"and how long they take by themselves, at {middle:,}. `small`: llama-3.2-1b, {SMALL_ROWS} rows of "
            f"{SMALL_CONTEXT:,} positions. All in one run; what a variant does not name is as in `--compile`.",
        ),
        "linears": (
            f"How fast products of {ROWS} rows read their weights",
            {"linear": "", "outputs": ",d", "inputs": ",d"}
            | dict.fromkeys(("cuBLAS, TB/s", "cuBLASLt, TB/s", "Triton, TB/s"), ".2f"),
            long.linears,
            f"A plain sum reads {long.rate / 1e12:.2f} TB/s in the same run. Triton: few_rows.py, the fastest of its "
            "sizes of blocks. Each kind of linear alone, all layers in turn.",
        ),
        "attention": (
            "Attention alone",
            {"plan": ""} | {f"ms at {context:,}": ".3f" for context in CONTEXTS},
            attention,
            f"ms of all layers, {ROWS} rows of so many positions. What a plan does not name is as in the first.",
        ),
        "cost": (
            "What joining and compiling cost",
            {"what": "", "unit": "", "value": ".2f"},
            long.cost + same,
            "Llama-3.1-8B's shape, bf16, random weights. Compiling: the first forward pass of a size, with nothing in "
            f"Inductor's cache, for each of {', '.join(map(str, SIZES))} rows on its own. Tokens: of one step of "
            f"{ROWS} rows, one token each, on random keys and values.",
        ),
        "start": (
            "From the start of the command to its end",
            {"command": "", "seconds": ".1f"},
            [[f"acb {' '.join(START)}", start]],
            "Once, with the caches of Inductor and Triton empty: loading, compiling, capturing, and serving all "
            "requests their prompt and their first token.",
        ),
    }
    return {name: Measured(*parts, environment) for name, parts in made.items()}


def _same(tokens: dict[str, dict[int, list[int]]], name: str, context: int) -> float:
    ours, theirs = tokens[name][context], tokens[AS_IT_IS.name][context]
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)


def _start() -> float:
    """Seconds of START, with nothing compiled before."""
    with tempfile.TemporaryDirectory() as inductor, tempfile.TemporaryDirectory() as triton:
        caches = {"TORCHINDUCTOR_CACHE_DIR": inductor, "TRITON_CACHE_DIR": triton}
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "acb_minimal.cli", *START], env=os.environ | caches, check=True, capture_output=True
        )
        return time.perf_counter() - began


def _measure(name: str, rows: int, contexts: tuple[int, ...], cache: str) -> Tried:
    """All variants of a model, in this process.

    Args:
        name: of the model.
        rows: of a batch of decodes.
        contexts: positions of each row, in turn; the second is looked at more closely, if there are more than one.
        cache: an empty folder, for what Inductor compiles.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    found = Tried(rate=reading_rate())
    positions = rows * -(-(max(contexts) + 1) // PAGE_SIZE) * PAGE_SIZE
    model = ready_model(Checkpoint(name), CudaDevice(), rows, positions)
    slots = {context: written(model, rows, 1, context) for context in contexts}
    middle = slots[contexts[len(contexts) // 2]]
    is_joined, faster = False, {}
    for variant in VARIANTS:
        if variant.joined and not is_joined:
            found.cost += _join(model.network)
            found.linears, faster = linears(model.network, rows)
            is_joined = True
        with applied(variant, model.network, faster):
            for context, slot in slots.items():
                call = lambda slot=slot: model.forward(slot)  # noqa: E731
                found.seconds.setdefault(variant.name, {})[context] = gpu_seconds(call, calls=3, repeats=10)
                found.tokens.setdefault(variant.name, {})[context] = _tokens(slot, rows)
            kernels = list(kernels_of(lambda: model.forward(middle)))
        found.kernels[variant.name] = len(kernels), sum(kernel.seconds for kernel in kernels)
    if len(contexts) > 1:  # the rest is the same for any model: of the one that is looked at more closely
        found.attention = {plan: _attention(model, slots, *plan_of) for plan, plan_of in PLANS.items()}
        found.cost += _compiling(model, middle)
    return found


@contextmanager
def applied(variant: Variant, network: nn.Module, faster: dict) -> Iterator[None]:
    """Inside, the network runs as the variant says, but for joining, which cannot be undone.

    Args:
        variant: what to do to it.
        network: as Model takes it.
        faster: for few_rows.in_linears, what the Triton kernel is faster for.
    """
    from .. import attention_triton  # here: Triton is for Linux alone
    from . import few_rows

    fuse.use_blas(network, "cublaslt" if variant.cublaslt else "cublas")
    programs = 8 if variant.split else attention_triton.PROGRAMS_PER_SM
    with _planned(programs), few_rows.in_linears(faster) if variant.triton else nullcontext():
        if variant.compiled:
            fuse.compile_decode(network, variant.around, **variant.options)
        try:
            yield
        finally:
            fuse.forget(network)
            fuse.use_blas(network, "default")


@contextmanager
def _planned(programs: int, **tuning: int) -> Iterator[None]:
    """Inside, decodes in 16 bits attend with so many programs for each multiprocessor, and so tuned."""
    from .. import attention_triton as kernels

    kept = kernels.PROGRAMS_PER_SM, dict(kernels.TUNING)
    kernels.PROGRAMS_PER_SM = programs
    kernels.TUNING[True, 2] = kernels.TUNING[True, 2]._replace(**tuning)
    kernels.plan.cache_clear()
    try:
        yield
    finally:
        kernels.PROGRAMS_PER_SM, before = kept
        kernels.TUNING.update(before)
        kernels.plan.cache_clear()


def _join(network: nn.Module) -> list[list]:
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


def _compiling(model, slot: IOSlot) -> list[list]:
    """What the first batch of each size takes, each compiled on its own."""
    took = []
    for size in SIZES:
        fuse.forget(model.network)
        fuse.compile_decode(model.network)
        slot.pad(size)
        slot.upload()
        began = time.perf_counter()
        model.forward(slot)
        slot.download()
        took.append(time.perf_counter() - began)
    fuse.forget(model.network)
    return [
        ["compiling for a size, at the least", "seconds", min(took)],
        ["compiling for a size, at the most", "seconds", max(took)],
    ]


def _tokens(slot: IOSlot, rows: int) -> list[int]:
    slot.download()
    return slot.host_tokens[:rows].tolist()


def linears(network: nn.Module, rows: int) -> tuple[list[list], dict]:
    """How fast each kind of linear reads its weights.

    Args:
        network: with its linears joined.
        rows: of a batch.

    Returns:
        Rows of the table; and for few_rows.in_linears, what its kernel is faster for than cuBLASLt, and with which
        blocks.
    """
    from . import few_rows

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
        for blocks in few_rows.fitting(weights[0]) if rows <= few_rows.MOST_ROWS else ():
            rate = _rate(lambda x, weight, blocks=blocks: few_rows.product(x, weight, blocks), x, weights)
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


def _attention(model, slots: dict[int, IOSlot], programs: int, tuning: dict[str, int]) -> dict[int, float]:
    """Seconds of all layers' attention, by context."""
    config, cache = model.network.config.get_text_config(), model.cache
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    shape = cache.keys[0].shape[-1]
    dtype, device = cache.keys[0].dtype, cache.keys[0].device
    found = {}
    with _planned(programs, **tuning), torch.inference_mode():
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
