"""The paged attention op against a float64 reference that has never heard of pages."""

import math
import re

import pytest
import torch
from torch import Tensor

import acb_minimal.attention  # noqa: F401, registers the op

try:
    from acb_minimal import attention_triton
except ImportError:
    attention_triton = None

CUDA = torch.cuda.is_available()
needs_triton = pytest.mark.skipif(attention_triton is None, reason="triton is not installed")
needs_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device")
DEVICE = "cuda" if CUDA else "cpu"  # on CPU tensors the kernels run in Triton's interpreter: see conftest.py


class Case:
    """A random ragged batch: what the op is given, and the histories from which to say what it should answer.

    rows is a list of (context, new): tokens already in the cache, and tokens of this batch. Every slot that
    nobody has written holds NaN, and so does all of page 0, where the unused entries of the page table point.
    """

    def __init__(self, rows, heads=4, kv_heads=2, head_dim=16, page_size=16, window=0, dtype=torch.float32,
                 device="cpu", seed=0, spare_pages=0):
        self.rows, self.page_size, self.window = rows, page_size, window
        random = torch.Generator().manual_seed(seed)

        def normal(*shape) -> Tensor:
            return torch.randn(*shape, generator=random).to(dtype)

        self.lengths = [context + new for context, new in rows]
        tokens = sum(new for _, new in rows)
        # Views: a query laid out [heads, tokens, head_dim], keys and values that alternate in one buffer.
        self.query = normal(heads, tokens, head_dim).transpose(0, 1)
        self.key, self.value = normal(tokens, 2 * kv_heads + 1, head_dim)[:, 1:].chunk(2, dim=1)
        self.scale = head_dim**-0.5

        pages_of = [-(-length // page_size) for length in self.lengths]
        pages = torch.randperm(sum(pages_of), generator=random).int() + 1
        self.page_table = torch.zeros(len(rows), max(pages_of) + spare_pages + 3, dtype=torch.int32)[:, :-3]
        cache_shape = (len(pages) + 1, kv_heads, page_size, head_dim)
        self.key_cache = torch.full(cache_shape, float("nan"), dtype=dtype)
        self.value_cache = self.key_cache.clone()
        self.histories, slots, start, used = [], [], 0, 0
        for row, (context, new) in enumerate(rows):
            self.page_table[row, : pages_of[row]] = pages[used : used + pages_of[row]]
            used += pages_of[row]
            position = torch.arange(context + new)
            slot = self.page_table[row, position // page_size] * page_size + position.int() % page_size
            keys = torch.cat([normal(context, kv_heads, head_dim), self.key[start : start + new]])
            values = torch.cat([normal(context, kv_heads, head_dim), self.value[start : start + new]])
            self.put(self.key_cache, slot[:context], keys[:context])
            self.put(self.value_cache, slot[:context], values[:context])
            self.histories.append((keys, values))
            slots.append(slot[context:])
            start += new
        self.kv_slots = torch.cat(slots)
        self.seq_lens = torch.tensor(self.lengths, dtype=torch.int32)
        news = torch.tensor([0] + [new for _, new in rows])
        self.query_starts = news.cumsum(0).int()
        self.max_query_len = int(news.max())
        for name, tensor in list(vars(self).items()):
            if isinstance(tensor, Tensor):
                moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
                setattr(self, name, moved.copy_(tensor))     # .to(device) would make views contiguous

    def put(self, cache: Tensor, slots: Tensor, tokens: Tensor) -> None:
        cache[slots // self.page_size, :, slots % self.page_size] = tokens

    def args(self) -> tuple:
        return (self.query, self.key, self.value, self.key_cache, self.value_cache, self.kv_slots,
                self.page_table, self.seq_lens, self.query_starts, self.max_query_len, self.scale, self.window)

    def reference(self) -> Tensor:
        """softmax(q k^T * scale) v, one head of one row at a time, in float64 on the CPU."""
        out, query = [], self.query.cpu().double()
        starts = self.query_starts.tolist()[:-1]
        for (context, new), (keys, values), start in zip(self.rows, self.histories, starts, strict=True):
            group = query.shape[1] // keys.shape[1]
            heads = []
            for head in range(query.shape[1]):
                q = query[start : start + new, head]
                k, v = keys[:, head // group].double(), values[:, head // group].double()
                here = torch.arange(context, context + new)[:, None]
                there = torch.arange(context + new)[None, :]
                hidden = there > here
                if self.window:
                    hidden |= there <= here - self.window
                heads.append(((q @ k.T) * self.scale).masked_fill(hidden, float("-inf")).softmax(-1) @ v)
            out.append(torch.stack(heads, 1))
        return torch.cat(out)

    def check(self, op, tolerance: float) -> None:
        """The answer is right, the caches hold this batch's keys and values, no other slot has changed."""
        expected = []
        for cache, tokens in ((self.key_cache, self.key), (self.value_cache, self.value)):
            expected.append(cache.cpu().clone())
            self.put(expected[-1], self.kv_slots.cpu(), tokens.cpu())
        out = op(*self.args())
        assert out.shape == self.query.shape
        assert out.dtype == self.query.dtype
        assert out.is_contiguous()
        assert error(out, self.reference()) < tolerance
        for cache, should_be in zip((self.key_cache, self.value_cache), expected, strict=True):
            torch.testing.assert_close(cache.cpu(), should_be, rtol=0, atol=0, equal_nan=True)


def error(out: Tensor, reference: Tensor) -> float:
    """Relative: ||out - reference|| / ||reference||. NaN, and so over any tolerance, if out holds one."""
    return float((out.cpu().double() - reference).norm() / reference.norm())


def op(*args) -> Tensor:
    return torch.ops.acb.paged_attention(*args)


BATCHES = {
    "decode": dict(rows=[(40, 1), (5, 1), (70, 1)]),
    "decode of first tokens and at page boundaries": dict(rows=[(0, 1), (15, 1), (16, 1), (31, 1), (32, 1)]),
    "decode, one row": dict(rows=[(99, 1)]),
    "decode, short rows among many splits": dict(rows=[(0, 1), (3, 1), (300, 1)], spare_pages=40),
    "decode, window": dict(rows=[(40, 1), (5, 1), (130, 1)], window=20),
    "decode, window of one": dict(rows=[(40, 1), (0, 1)], window=1),
    "prefill": dict(rows=[(0, 37), (0, 16), (0, 2)]),
    "prefill, window": dict(rows=[(0, 50), (0, 3)], window=7),
    "prefill at page boundaries": dict(rows=[(0, 15), (0, 16), (0, 17), (0, 32)]),
    "chunked prefill": dict(rows=[(16, 16), (33, 30), (64, 5)]),
    "mixed": dict(rows=[(40, 1), (0, 19), (15, 1), (20, 33), (0, 1), (129, 1)]),
    "mixed, window": dict(rows=[(40, 1), (0, 19), (150, 1), (60, 33)], window=24),
}
SHAPES = {
    "group 1": dict(heads=2, kv_heads=2),
    "group 3, three kv heads": dict(heads=9, kv_heads=3),
    "group 4": dict(heads=8, kv_heads=2),
    "group 8, head_dim 64": dict(heads=8, kv_heads=1, head_dim=64),
    "head_dim 32, page 64": dict(head_dim=32, page_size=64),
    "head_dim 128, page 32": dict(head_dim=128, page_size=32),
    "page 48": dict(page_size=48),
    "page 128": dict(page_size=128),
}
CASES = BATCHES | {f"{batch}, {name}": BATCHES[batch] | shape for name, shape in SHAPES.items()
                   for batch in ("decode", "mixed")}


@pytest.mark.parametrize("name", CASES)
def test_torch(name):
    Case(**CASES[name]).check(op, 1e-5)


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_triton(name):
    Case(**CASES[name], device=DEVICE).check(attention_triton.paged_attention, 1e-5)


@needs_triton
@pytest.mark.parametrize("batch", ["decode", "decode, window", "mixed", "mixed, window"])
def test_triton_with_a_tile_smaller_than_a_page(batch, monkeypatch):
    tuning = attention_triton.TUNING
    small = {key: tuning[key]._replace(block_m=16, tile_bytes=1024) for key in tuning}
    monkeypatch.setattr(attention_triton, "TUNING", small)
    attention_triton.plan.cache_clear()
    Case(**BATCHES[batch], page_size=64, device=DEVICE).check(attention_triton.paged_attention, 1e-5)
    attention_triton.plan.cache_clear()


@needs_triton
@pytest.mark.parametrize("batch", ["decode", "mixed"])
def test_triton_fp16(batch):
    """Half precision, in the half that the interpreter can multiply (not bf16)."""
    Case(**BATCHES[batch], dtype=torch.float16, device=DEVICE).check(attention_triton.paged_attention, 3e-3)


@needs_triton
def test_plan_does_not_follow_the_lengths():
    """It is given shapes only. Splits stay within their limits, and there are some when rows are few."""
    few = attention_triton.plan(True, 2, 1, 32, 8, 64, 128, 128, 132)
    many = attention_triton.plan(True, 2, 4096, 32, 8, 64, 128, 128, 132)
    short = attention_triton.plan(True, 2, 1, 32, 8, 64, 128, 1, 132)
    mixed = attention_triton.plan(False, 2, 1, 32, 8, 64, 128, 128, 132)
    assert 1 < few.splits <= attention_triton.MAX_SPLITS
    assert many.splits == short.splits == mixed.splits == 1


def test_layouts_that_cannot_be_read_are_refused():
    case = Case(**BATCHES["decode"])
    query, *rest = case.args()
    with pytest.raises(ValueError, match="contiguous along head_dim"):
        op(query.transpose(1, 2).contiguous().transpose(1, 2), *rest)
    case.key_cache = case.key_cache.transpose(1, 2)
    with pytest.raises(ValueError, match="caches must be contiguous"):
        op(*case.args())
    case = Case(**BATCHES["prefill"])
    case.max_query_len = 1
    with pytest.raises(ValueError, match="55 tokens came for 3 rows"):
        op(*case.args())


@pytest.mark.slow  # inductor compiles
def test_compiled_code_copies_no_cache():
    from torch._inductor.utils import run_and_get_code

    def doubled(query: Tensor, *rest) -> Tensor:
        *rest, scale, window = rest
        return op(2 * query, *rest, scale / 2, window)  # 2 * query is allocated

    def compiled(*args) -> Tensor:
        out, code = run_and_get_code(torch.compile(doubled, dynamic=False), *args)
        # Inductor writes its allocations as empty_strided_cpu((shape), ...). A copy of a cache would be the largest.
        shapes.extend(re.findall(r"= empty_strided_cpu\(\(([\d, ]+)\)", "".join(code)))
        return out

    torch._dynamo.reset()
    shapes, case = [], Case(**BATCHES["decode"])
    with torch.inference_mode():
        case.check(compiled, 1e-5)
    assert shapes
    for shape in shapes:
        assert math.prod(int(size) for size in shape.split(",") if size.strip()) < case.key_cache.numel()


@pytest.mark.gpu
@needs_cuda
@needs_triton
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-3), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rows", [
    [(0, 1), (63, 1), (64, 1), (777, 1), (2500, 1)],
    [(0, 1), (0, 100), (1500, 1), (600, 300), (2047, 1), (64, 64)],
], ids=["decode", "mixed"])
@pytest.mark.parametrize(("group", "head_dim", "page_size"), [(1, 64, 16), (4, 128, 64), (8, 64, 64)])
def test_cuda(group, head_dim, page_size, rows, dtype, tolerance):
    """Where the kernels are compiled: bf16, and contexts of several splits."""
    for window in (0, 256):
        case = Case(rows, 2 * group, 2, head_dim, page_size, window, dtype, "cuda", spare_pages=100)
        case.check(op, tolerance)
