"""A product of few rows with a weight, as a Triton kernel: tried for the log of `acb bench variants`, and left there.

A batch of decodes has few rows, so a product of it takes as long as reading its weight. Each program reads some rows of
the weight once, and multiplies them with all rows of the input.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

MOST_ROWS = 64  # of an input: all of them are in one block


class Blocks(NamedTuple):
    """How a kernel cuts a weight.

    Attributes:
        outputs: rows of the weight of each program; must divide its number.
        inputs: columns of each step; must divide their number.
        warps: of a program.
        stages: steps whose loads are in flight.
    """

    outputs: int
    inputs: int
    warps: int
    stages: int


CANDIDATES = (
    Blocks(16, 256, 2, 5), Blocks(32, 128, 2, 6), Blocks(32, 256, 4, 4), Blocks(64, 128, 4, 5), Blocks(64, 64, 4, 8),
    Blocks(128, 64, 4, 6),
)  # fmt: skip
CHOSEN: dict[torch.Size, Blocks] = {}  # by the shape of a weight, what `few_rows` cuts it into


@triton.jit
def product_kernel(
    x, weight, out, rows, outputs, inputs, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    """One program: BLOCK_N outputs of all rows. See `product`."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(0, inputs, BLOCK_K):
        # No other program reads this part of the weight: it need not stay in the cache.
        read = tl.load(weight + n[:, None].to(tl.int64) * inputs + (start + k)[None, :], eviction_policy="evict_first")
        given = tl.load(x + m[None, :] * inputs + (start + k)[:, None], mask=(m < rows)[None, :], other=0.0)
        total = tl.dot(read, given, total)
    tl.store(out + m[None, :] * outputs + n[:, None], total.to(out.dtype.element_ty), mask=(m < rows)[None, :])


def product(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """x @ weight.T

    Args:
        x: [..., inputs], with MOST_ROWS rows at most in all.
        weight: [outputs, inputs], contiguous.
        blocks: that fit the weight.

    Returns:
        [..., outputs], in x's dtype; summed up in fp32.
    """
    outputs, inputs = weight.shape
    x = x.contiguous()
    rows = x.numel() // inputs
    out = x.new_empty(*x.shape[:-1], outputs)
    product_kernel[(outputs // blocks.outputs,)](
        x, weight, out, rows, outputs, inputs, BLOCK_M=max(16, triton.next_power_of_2(rows)), BLOCK_N=blocks.outputs,
        BLOCK_K=blocks.inputs, num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return out


@torch.library.custom_op("acb::few_rows", mutates_args=())
def few_rows(x: Tensor, weight: Tensor) -> Tensor:
    """`product`, as torch.compile can take it in, with the blocks that are CHOSEN for weights of this shape."""
    return product(x, weight, CHOSEN[weight.shape])


@few_rows.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def fitting(weight: Tensor) -> list[Blocks]:
    """Those of CANDIDATES that divide a weight."""
    outputs, inputs = weight.shape
    return [each for each in CANDIDATES if outputs % each.outputs == 0 and inputs % each.inputs == 0]


@contextmanager
def in_linears(chosen: dict[torch.Size, Blocks]) -> Iterator[None]:
    """Inside, linears without bias whose weights have such a shape compute by `few_rows`, if they have few rows.

    Args:
        chosen: by the shape of a weight.
    """
    linear: Callable = functional.linear

    def choose(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is None and weight.shape in chosen and x.numel() // x.shape[-1] <= MOST_ROWS:
            return few_rows(x, weight)
        return linear(x, weight, bias)

    CHOSEN.update(chosen)
    functional.linear = choose
    try:
        yield
    finally:
        functional.linear = linear
