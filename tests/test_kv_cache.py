import pytest
import torch

from acb_minimal.errors import InputError
from acb_minimal.kv_cache import AttentionLayer, KVCache, PagePool


def test_a_page_has_one_owner_at_a_time():
    pool = PagePool(5, page_size=4)
    first, second = pool.allocate(2), pool.allocate(3)
    assert sorted(first + second) == [0, 1, 2, 3, 4]
    assert pool.allocate(1) is None
    pool.free(first)
    assert pool.allocate(3) is None
    assert pool.num_free == 2  # and none of them was taken
    assert sorted(pool.allocate(2)) == sorted(first)


def test_a_page_cannot_be_freed_twice():
    pool = PagePool(3, page_size=4)
    pages = pool.allocate(2)
    pool.free(pages)
    with pytest.raises(RuntimeError, match=rf"page {pages[0]} is freed but nobody holds it"):
        pool.free(pages)
    assert pool.num_free == 3


@pytest.mark.parametrize(("pages", "page_size", "message"), [(0, 4, "pool has 0 pages"), (4, 0, "page size is 0")])
def test_an_empty_pool_is_refused(pages, page_size, message):
    with pytest.raises(InputError, match=message):
        PagePool(pages, page_size)


def test_bytes_for_is_what_the_tensors_take():
    layers = [AttentionLayer("a", kv_heads=2, head_dim=16), AttentionLayer("b", kv_heads=1, head_dim=32)]
    cache = KVCache(layers, pages=3, page_size=4, dtype=torch.bfloat16, device="cpu")
    assert cache.keys[0].shape == (4, 2, 4, 16)  # three pages and the scratch page
    assert cache.scratch_page == 3
    taken = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    assert KVCache.bytes_for(layers, 3, 4, torch.bfloat16) == taken
