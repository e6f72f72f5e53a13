"""The scheduler alone, with made-up tokens: it decides from counts, so no model is needed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acb_minimal.errors import InputError
from acb_minimal.kv_cache import PagePool
from acb_minimal.request import Request
from acb_minimal.scheduler import Scheduler

STOP = 7


def make(pages=64, page_size=4, max_running=4, max_batch_tokens=16) -> Scheduler:
    pool = PagePool(pages, page_size)
    return Scheduler(pool, max_running, max_batch_tokens, 100, 64)


def add(scheduler, id, prompt_len, max_new_tokens, stop_tokens=()) -> Request:
    request = Request(id, [1] * prompt_len, max_new_tokens, stop_tokens)
    scheduler.add(request)
    return request


def shape(batch) -> list[tuple[str, int, int]]:
    return [(row.request.id, row.start, row.length) for row in batch.rows]


def tokens(batch, token=1) -> np.ndarray:
    return np.full(len(batch.sampled), token, dtype=np.int32)


def test_prompts_are_cut_to_what_decodes_leave_of_the_budget():
    scheduler = make(max_batch_tokens=5)
    add(scheduler, "a", 3, 4)
    add(scheduler, "b", 9, 2)
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 0, 3), ("b", 0, 2)]
    assert batch.sampled == [0]  # b has not reached the end of its prompt
    assert batch.num_tokens == 5
    scheduler.update(batch, tokens(batch))
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 3, 1), ("b", 2, 4)]
    scheduler.update(batch, tokens(batch))
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 4, 1), ("b", 6, 3)]
    assert batch.sampled == [0, 1]


def test_admission_reserves_every_page_a_request_can_need_and_finishing_frees_them():
    scheduler = make(pages=5, page_size=4)
    a = add(scheduler, "a", 6, 8)  # positions 0 to 12: the 8th new token is never fed back
    batch = scheduler.schedule()
    assert len(a.pages) == 4
    assert scheduler.pool.num_free == 1
    for _ in range(8):
        assert scheduler.pool.num_free == 1
        finished = scheduler.update(batch, tokens(batch))
        batch = scheduler.schedule()
    assert finished == [a]
    assert (a.finish_reason, len(a.generated), a.pages) == ("length", 8, [])
    assert scheduler.pool.num_free == 5
    assert batch is None
    assert not scheduler.has_work()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("r", [], 3), "request 'r': the prompt is empty"),
        (Request("r", [1], 0), "request 'r': max_new_tokens is 0; it must be at least 1"),
        (Request("r", [1, 100], 3), r"request 'r': token id 100 is outside the vocabulary \(0 to 99\)"),
        (Request("r", [1, -1], 3), "request 'r': token id -1 is outside the vocabulary"),
        (Request("r", [1] * 60, 6), "60 prompt \\+ 6 new tokens are past the model's 64 positions"),
        (Request("r", [1] * 30, 20), "30 prompt \\+ 20 new tokens need 13 pages of 4; the pool has 12"),
        (Request("taken", [1], 1), "request 'taken': the id is taken"),
    ],
    ids=["empty", "no new tokens", "vocabulary", "negative", "positions", "pool", "duplicate"],
)
def test_a_request_that_cannot_be_served_is_refused_and_leaves_nothing_behind(request_, message):
    scheduler = make(pages=12)
    good = add(scheduler, "taken", 2, 1)
    with pytest.raises(InputError, match=message) as caught:
        scheduler.add(request_)
    assert "\n" not in str(caught.value)
    assert list(scheduler.waiting) == [good]
    batch = scheduler.schedule()
    assert scheduler.update(batch, tokens(batch)) == [good]
    add(scheduler, "r", 1, 1)  # the refused id is still free


def test_an_id_is_free_again_once_its_request_has_finished():
    scheduler = make()
    add(scheduler, "a", 2, 1)
    batch = scheduler.schedule()
    scheduler.update(batch, tokens(batch))
    add(scheduler, "a", 2, 1)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=12),
    max_running=st.integers(1, 5),
    budget=st.integers(5, 24),
    spare=st.integers(0, 10),
    in_flight=st.integers(1, 3),
    random=st.randoms(use_true_random=False),
)
def test_every_position_is_scheduled_once_in_order_within_the_limits(
    lengths, max_running, budget, spare, in_flight, random
):
    """With one to three batches in flight; tokens and stop tokens at random."""
    needed = [-(-(prompt + new - 1) // 4) for prompt, new in lengths]
    scheduler = make(max(needed) + spare, 4, max_running, budget)
    requests = [add(scheduler, str(i), *length, [STOP]) for i, length in enumerate(lengths)]
    admitted: list[Request] = []
    reached = dict.fromkeys(requests, 0)
    batches = []
    while scheduler.has_work():
        batch = scheduler.schedule()
        if batch is not None:
            batches.append(batch)
            assert 0 < batch.num_tokens == sum(row.length for row in batch.rows) <= budget
            assert len(batch.rows) <= max_running
            for index, (request, start, length, _) in enumerate(batch.rows):
                assert request.finish_reason is None
                assert start == reached[request]
                reached[request] = start + length
                assert reached[request] <= min(request.max_positions, len(request.pages) * 4)
                assert (index in batch.sampled) == (reached[request] >= request.prompt_len)
                if request not in admitted:
                    admitted.append(request)
        held = [page for request in scheduler.running for page in request.pages]
        assert len(held) == len(set(held)) == scheduler.pool.num_pages - scheduler.pool.num_free
        if batch is None or len(batches) == in_flight:
            back = batches.pop(0)
            scheduler.update(back, np.array([random.randint(0, 9) for _ in back.sampled], dtype=np.int32))
    assert admitted == requests
    assert scheduler.pool.num_free == scheduler.pool.num_pages
    for request in requests:
        assert STOP not in request.generated[:-1]
        assert len(request.generated) <= request.max_new_tokens
