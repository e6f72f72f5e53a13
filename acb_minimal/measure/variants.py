"""What was tried to make a decode step shorter: each idea a variant of the network, all of them measured in one run.

A variant that moves nothing stays in the log: it says what need not be tried again. The first and the last of those
with `--compile` are the same, so that the log says itself how far two measurements of one thing lie apart.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import nn

from ..device import CudaDevice
from ..errors import InputError
from ..run import fuse
from ..run.checkpoint import Checkpoint
from ..slot import IOSlot
from . import variant_parts
from .calibrate import PAGE_SIZE, ready_model, written
from .figures import environment
from .parts import gpu_seconds, reading_rate
from .record import Measured
from .roofline import REPLAYS, kernels_of

ROWS, CONTEXTS = 32, (496, 4080, 7984)  # `long`, and what it would be with shorter and with longer prompts
SMALL_ROWS, SMALL_CONTEXT = 128, 1152


class Variant(NamedTuple):
    """A network, and what was done to it.

    Attributes:
        name: of the idea.
        joined: its linears.
        compiled: its layers.
        around: compiled, what is beside the layers.
        cublaslt: products are cuBLASLt's, not cuBLAS's.
        split: attention splits every row's history, until there are 8 programs for each multiprocessor.
        tuning: what of its kernel's Tuning is changed.
        triton: the products that product_triton.py has faster are its own.
        options: of torch.compile.
    """

    name: str
    joined: bool = True
    compiled: bool = True
    around: bool = True
    cublaslt: bool = True
    split: bool = False
    tuning: dict = {}
    triton: bool = False
    options: dict = {}


AS_IT_IS = Variant("as it is", joined=False, compiled=False, around=False, cublaslt=False)
LAYERS = AS_IT_IS._replace(name="layers compiled", compiled=True)
BOTH = LAYERS._replace(name="both", joined=True)
COMPILED = Variant("--compile")
COMBO, PDL = {"combo_kernels": True}, {"triton.enable_pdl": True}  # of Inductor
VARIANTS = (  # the linears of a network stay joined: first come those without
    AS_IT_IS,
    AS_IT_IS._replace(name="attention split", split=True),
    LAYERS,
    AS_IT_IS._replace(name="linears joined", joined=True),
    BOTH,
    BOTH._replace(name="both, cuBLASLt", cublaslt=True),
    COMPILED,
    Variant("attention split, too", split=True),
    Variant("attention with 2 warps, tiles of 8 KB", tuning={"num_warps": 2, "tile_tokens": 128}),
    Variant("sizes left open", options={"dynamic": True}),
    Variant("combo kernels", options={"options": COMBO}),
    Variant("coordinate descent", options={"options": {"coordinate_descent_tuning": True}}),
    Variant("Inductor's PDL", options={"options": PDL}),
    Variant("max-autotune", options={"mode": "max-autotune-no-cudagraphs"}),
    Variant("combo kernels, PDL", options={"options": COMBO | PDL}),
    Variant("Triton products", triton=True),
    Variant("--compile, again"),
)


@dataclass
class Tried:
    """What a process has measured of one model.

    Attributes:
        seconds: of a step, by variant and context.
        kernels: of a step at the middle context, by variant: how many, and their seconds.
        tokens: of a step, by variant and context.
        linears: of each kind of linear: name, outputs, inputs, TB/s by cuBLAS, cuBLASLt and product_triton.py.
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
    began = variant_parts.start()
    tried = []
    for name, rows, contexts in (("llama-3.1-8b", ROWS, CONTEXTS), ("llama-3.2-1b", SMALL_ROWS, (SMALL_CONTEXT,))):
        progress(f"{name}: {len(VARIANTS)} variants")
        # In a process of its own: torch's profiler runs in it, and nothing is compiled in it yet.
        with ProcessPoolExecutor(1, get_context("spawn")) as process, tempfile.TemporaryDirectory() as cache:
            tried.append(process.submit(_measure, name, rows, contexts, cache).result())
    return tables(*tried, began, environment(CudaDevice()))


def tables(long: Tried, small: Tried, start: float, environment: dict[str, str]) -> dict[str, Measured]:
    """What was measured, as tables.

    Args:
        long: of llama-3.1-8b.
        small: of llama-3.2-1b.
        start: seconds of variant_parts.START.
        environment: machine, versions and date.
    """
    middle = CONTEXTS[1]
    columns = {"variant": ""} | {f"ms at {context:,}": ".2f" for context in CONTEXTS}
    steps = [
        [each.name, *(1e3 * long.seconds[each.name][context] for context in CONTEXTS), long.kernels[each.name][0],
         1e3 * long.kernels[each.name][1], None if each.triton else 1e3 * small.seconds[each.name][SMALL_CONTEXT]]
        for each in VARIANTS  # product_triton.py is for fewer rows than `small` has
    ]  # fmt: skip
    same = [
        [f"tokens as not compiled, {context:,} positions", "share", _same(long.tokens, COMPILED.name, context)]
        for context in CONTEXTS
    ]
    attention = [[plan, *(1e3 * seconds[context] for context in CONTEXTS)] for plan, seconds in long.attention.items()]
    made = {
        "steps": (
            "What was tried on a decode step",
            columns | {"kernels": ",d", "ms of kernels": ".2f", "small, ms": ".3f"},
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
            f"A plain sum reads {long.rate / 1e12:.2f} TB/s in the same run. Triton: product_triton.py, the fastest of "
            "its sizes of blocks. Each kind of linear alone, all layers in turn.",
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
            f"Llama-3.1-8B's shape, bf16, random weights. Tokens: of one step of {ROWS} rows, one token each, on "
            "random keys and values.",
        ),
        "start": (
            "From the start of the command to its end",
            {"command": "", "seconds": ".1f"},
            [[f"acb {' '.join(variant_parts.START)}", start]],
            "Once, with the caches of Inductor and Triton empty: loading, compiling, capturing, and serving all "
            "requests their prompt and their first token.",
        ),
    }
    return {name: Measured(*parts, environment) for name, parts in made.items()}


def _same(tokens: dict[str, dict[int, list[int]]], name: str, context: int) -> float:
    ours, theirs = tokens[name][context], tokens[AS_IT_IS.name][context]
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)


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
            found.cost += variant_parts.joining(model.network)
            found.linears, faster = variant_parts.linears(model.network, rows)
            is_joined = True
        with applied(variant, model.network, faster):
            for context, slot in slots.items():
                call = lambda slot=slot: model.forward(slot)  # noqa: E731
                found.seconds.setdefault(variant.name, {})[context] = gpu_seconds(call, calls=3, repeats=10)
                found.tokens.setdefault(variant.name, {})[context] = _tokens(slot, rows)
            kernels = list(kernels_of(lambda: model.forward(middle)))
        seconds = sum(kernel.seconds for kernel in kernels)
        found.kernels[variant.name] = round(len(kernels) / REPLAYS), seconds / REPLAYS
    if len(contexts) > 1:  # the rest is the same for any model: of the one that is looked at more closely
        for plan, (programs, tuning) in variant_parts.PLANS.items():
            found.attention[plan] = variant_parts.attention(model, slots, programs, tuning)
    return found


@contextmanager
def applied(variant: Variant, network: nn.Module, faster: dict) -> Iterator[None]:
    """Inside, the network runs as the variant says, but for joining, which cannot be undone.

    Args:
        variant: what to do to it.
        network: as Model takes it.
        faster: for product_triton.in_linears, what the Triton kernel is faster for.
    """
    from . import product_triton  # here: Triton is for Linux alone

    fuse.use_blas(network, "cublaslt" if variant.cublaslt else "cublas")
    with (
        variant_parts.planned(8 if variant.split else None, **variant.tuning),
        product_triton.in_linears(faster) if variant.triton else nullcontext(),
    ):
        if variant.compiled:
            fuse.compile_decode(network, variant.around, **variant.options)
        try:
            yield
        finally:
            fuse.forget(network)
            fuse.use_blas(network, "default")


def _tokens(slot: IOSlot, rows: int) -> list[int]:
    slot.download()
    return slot.host_tokens[:rows].tolist()
