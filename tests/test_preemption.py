"""Pages on demand: who gives way, and that every token comes once and right, whatever the pool."""


import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_oracle import STREAMS, many, serve_and_compare, workloads

from acb_minimal.errors import InputError
from acb_minimal.kv_cache import PagePool
from acb_minimal.models import counter
from acb_minimal.preemption import PreemptingScheduler, SwappingScheduler
from acb_minimal.request import Request
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths, copies_pages, load_chapter
from acb_minimal.run.parts import MODES
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sampling import Sampling
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import named

SWAPPING = [name for name in chapter_paths(2) if copies_pages(load_chapter(name))]
STOP = 7


def make(pages: int, kind=PreemptingScheduler, page_size=2, max_running=4, max_batch_tokens=8):
    return kind(PagePool(pages, page_size), max_running, max_batch_tokens, 100, 64)


def add(scheduler, id, prompt_len, max_new_tokens, stop_tokens=()) -> Request:
    request = Request(id, [1] * prompt_len, max_new_tokens, stop_tokens)
    scheduler.add(request)
    return request


def shape(batch) -> list[tuple[str, int, int]]:
    return [(row.request.id, row.start, row.length) for row in batch.rows] if batch else []


def tokens(batch, token=1) -> np.ndarray:
    return np.full(len(batch.sampled), token, dtype=np.int32)


def test_the_newest_gives_way_and_computes_all_it_had_again():
    scheduler = make(pages=5)
    a, b = add(scheduler, "a", 4, 5), add(scheduler, "b", 1, 6)
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 0, 4), ("b", 0, 1)]
    assert (len(a.pages), len(b.pages)) == (3, 1)
    for _ in range(2):
        scheduler.update(batch, tokens(batch))
        batch = scheduler.schedule()
    assert shape(batch) == [("a", 5, 1), ("b", 2, 1)]  # b has been given the last page
    scheduler.update(batch, tokens(batch))
    batch = scheduler.schedule()
    assert shape(batch) == [("a", 6, 1)]  # on the page that b had
    assert (len(a.pages), b.pages, list(scheduler.waiting)) == (4, [], [b])
    while not a.finish_reason:
        scheduler.update(batch, tokens(batch))
        batch = scheduler.schedule()
    assert shape(batch) == [("b", 0, 4)]  # its prompt, and the three tokens that it had
    assert batch.sampled == [0]
    assert scheduler.update(batch, tokens(batch, 5)) == []
    assert b.generated == [1, 1, 1, 5]


@pytest.mark.parametrize("kind", MODES.values())
def test_abort_frees_everything(kind):
    scheduler = make(pages=6, kind=kind)
    for id in "abc":
        add(scheduler, id, 2, 6)
    while not any(request.tokens[2:] for request in scheduler.waiting):
        batch = scheduler.schedule()
        scheduler.update(batch, tokens(batch))
    scheduler.abort()
    assert scheduler.pool.num_free == 6
    assert kind is PreemptingScheduler or scheduler.berths.num_free == scheduler.berths.num_pages


def test_one_that_is_copied_out_makes_room_a_step_ahead_and_goes_on_where_it_was():
    scheduler = make(pages=5, kind=SwappingScheduler)
    a, b = add(scheduler, "a", 3, 8), add(scheduler, "b", 2, 5)
    batches = [scheduler.schedule()]
    while not scheduler.moves.out:
        scheduler.update(batches[-1], tokens(batches[-1]))
        pages = list(b.pages)
        batches.append(scheduler.schedule())
    (out,) = scheduler.moves.out
    written = -(-b.scheduled // 2)
    assert (out.pages, b.berth, b.pages) == (pages[:written], out.berth, [])
    assert shape(batches[-1]) == [("a", a.scheduled - 1, 1)]
    assert set(out.pages).isdisjoint(a.pages)
    while not scheduler.moves.back:
        scheduler.update(batches[-1], tokens(batches[-1]))
        batches.append(scheduler.schedule())
    assert a.finish_reason == "length"
    assert batches[-1] is None  # and yet there is something to copy
    assert scheduler.moves.back == [(out.berth, b.pages[:written])]
    assert shape(scheduler.schedule()) == [("b", b.scheduled - 1, 1)]
    assert (b.berth, scheduler.moves) == (None, ([], []))


@st.composite
def loads(draw):
    """(prompt lengths, new tokens, which of them stops each), page size, pages, rows, tokens of a batch, batches that
    are scheduled before one comes back"""
    asked = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=7))
    page_size, rows = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    largest = max(-(-(prompt + new - 1) // page_size) for prompt, new, _ in asked)
    pages, budget = draw(st.integers(largest, largest + 8)), draw(st.integers(rows, 9))
    return asked, page_size, pages, rows, budget, draw(st.integers(0, 2))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(list(MODES.values())), loads(), st.integers(1, 5))
def test_pages_have_one_owner_and_every_token_comes_once(kind, load, berths):
    asked, page_size, pages, rows, budget, depth = load
    scheduler = make(pages, kind, page_size, rows, budget)
    if kind is SwappingScheduler:
        scheduler.berths = PagePool(berths, page_size)
    requests = [add(scheduler, str(n), prompt, new, [STOP]) for n, (prompt, new, _) in enumerate(asked)]
    in_flight, at, previous = [], {}, []
    for _ in range(2000):
        if not (scheduler.has_work() or in_flight):
            break
        batch = scheduler.schedule()
        held = [page for request in scheduler.running for page in request.pages]
        leaving = [page for move in scheduler.moves.out for page in move.pages] if scheduler.moves else []
        assert len({*held, *leaving}) == len(held) + len(leaving) == pages - scheduler.pool.num_free
        if batch:
            assert batch.num_tokens <= budget
            assert len(batch.rows) <= rows
            for row in batch.rows:
                assert row.start + row.length <= len(row.request.pages) * page_size
                place = row.start + row.length - row.request.prompt_len
                if row.start >= len(row.request.tokens):  # the token it starts from is in the batch before
                    assert previous[row.source] is row.request
                if row.samples:
                    at[batch.number, row.request.id] = place
            previous = [batch.rows[index].request for index in batch.sampled]
            in_flight.append(batch)
        while in_flight and (len(in_flight) > depth or not batch):
            done = in_flight.pop(0)
            # A token says which of its request's it is.
            said = [at[done.number, done.rows[index].request.id] for index in done.sampled]
            stops = [asked[int(done.rows[index].request.id)][2] for index in done.sampled]
            ids = [STOP if place + 1 == stop else 20 + place for place, stop in zip(said, stops, strict=True)]
            scheduler.update(done, np.array(ids, dtype=np.int32))
    for request, (_, new, stop) in zip(requests, asked, strict=True):
        right = [STOP if place + 1 == stop else 20 + place for place in range(min(new, stop))]
        assert request.generated == right
    assert scheduler.pool.num_free == pages
    assert kind is PreemptingScheduler or scheduler.berths.num_free == berths


ONE = ([STREAMS[0][:6], STREAMS[1][:3], STREAMS[2][:9], STREAMS[3][:2], STREAMS[4][:7]], [9, 10, 7, 10, 8],
       [None, 6, None, 4, None], None)  # fmt: skip
LARGEST = -(-(9 + 7 - 1) // 3)
MODES_OF = [*((chapter, "recompute") for chapter in [*chapter_paths(), *SWAPPING]), *((c, "swap") for c in SWAPPING)]


@pytest.mark.parametrize(("chapter", "mode"), MODES_OF)
@pytest.mark.parametrize("pages", [LARGEST + 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(LARGEST, 22))])
def test_every_pool_gives_transformers_tokens(harness, chapter, mode, pages):
    limits = {"page_size": 3, "pages": pages, "max_running": 4, "max_batch_tokens": 9, "preempt": mode}
    device = SimulatedDevice(Costs.of("counter"), named("random", pages))
    serve_and_compare(harness("llama"), (*ONE, limits), chapter, device)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("chapter", "mode"), MODES_OF)
def test_any_load_gives_transformers_tokens(harness, chapter, mode):
    @many(40)
    @given(workloads(), st.sampled_from(["timed", "lazy", "eager", "random"]), st.integers(0, 1000))
    def check(workload, policy, seed):
        *asked, limits = workload
        device = SimulatedDevice(Costs.of("counter"), named(policy, seed))
        serve_and_compare(harness("llama"), (*asked, limits | {"preempt": mode}), chapter, device)

    check()


CHECKPOINT = Checkpoint("counter")
PAIRS = [(a, a + n) for a, n in zip((3, 40, 100, 250, 7), (8, 14, 3, 12, 9), strict=True)]
PROMPTS = [counter.prompt(*pair) for pair in PAIRS]
SMALL = {"max_running": 4, "max_batch_tokens": 8, "page_size": 4}


def session(chapter: str, pages: int, mode: str | None, **limits) -> Session:
    return Session(Job(PROMPTS, 16, **SMALL, pages=pages, preempt=mode, **limits), chapter, CHECKPOINT, "sim")


@pytest.mark.parametrize(("chapter", "mode"), [("ch6", "recompute"), ("ch9", "swap")])
def test_a_session_needs_fewer_batches_than_one_that_reserves(chapter, mode):
    reserved, demanded = session(chapter, 7, None), session(chapter, 7, mode)
    texts = [[one.text for one in each.serve()] for each in (reserved, demanded)]
    assert texts == [[counter.answer(*pair) for pair in PAIRS]] * 2
    assert len(demanded.done) < len(reserved.done)
    assert demanded.pool.num_free == 7


@pytest.mark.parametrize(("chapter", "twice"), [("ch1", False), ("ch5", True)])
def test_a_token_in_flight_that_is_forgotten_comes_twice(chapter, twice):
    said = [one.text.split() for one in session(chapter, 7, "forget").serve()]
    assert ([text for text in said if len(set(text)) < len(text)] != []) is twice


def test_what_cannot_be_is_said_before_any_work():
    with pytest.raises(InputError, match="unknown preempt mode 'drop': the modes are recompute and swap"):
        session("ch1", 9, "drop")
    with pytest.raises(InputError, match="preempt is 'swap', and this engine copies no pages: give recompute, or take"):
        session("ch5", 9, "swap")
    with pytest.raises(InputError, match="the page pool has 0 pages; it needs at least 1"):
        session("ch1", 0, "recompute")
    with pytest.raises(InputError, match="there are 0 berths for requests that give way; it must be at least 1"):
        session("ch9", 9, "swap", berths=0)
    with pytest.raises(InputError, match="preempt is 'swap', and what a request has sampled by is not copied"):
        session("ch9", 9, "swap", sampling=Sampling(presence_penalty=0.5))


def test_host_memory_that_is_not_there_is_told_in_a_line(monkeypatch):
    short = session("ch9", 9, "swap", berths=3)
    monkeypatch.setattr(short.device, "pinned", lambda words: torch.empty(1 << 60))
    with pytest.raises(InputError, match=r"too little host memory: 3 berths take 0\.0 GB \("):
        short.serve()


@pytest.mark.gpu
@pytest.mark.parametrize("pages", [5, 7, 9])
def test_a_gpu_counts_right_with_pages_that_are_copied(pages):
    job = Job(PROMPTS, 16, **SMALL, pages=pages, preempt="swap")
    texts = [one.text for one in Session(job, "ch9", CHECKPOINT, "cuda").serve()]
    assert texts == [counter.answer(*pair) for pair in PAIRS]
