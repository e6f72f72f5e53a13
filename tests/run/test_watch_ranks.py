"""What ranks find out about each other, without any: two watches in one process, over a store in memory."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch.distributed as dist

from acb_minimal.errors import RankError
from acb_minimal.request import Batch, Request, Row
from acb_minimal.run.watch_ranks import Watch

REQUESTS = [Request(str(number), [1] * 5, 4) for number in range(3)]


@pytest.fixture
def pair(monkeypatch):
    """The watches of ranks 0 and 1. Their threads do not run: `look` is called here."""
    monkeypatch.setattr(Watch, "_keep_looking", lambda self: None)
    store, clock = dist.HashStore(), SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    watches = []
    for rank in range(2):
        ranks = SimpleNamespace(rank=rank, count=2, timeout=30.0, next_number=lambda what: 1)
        ranks.new_store = lambda prefix: dist.PrefixStore(prefix, store)
        watches.append(Watch(ranks).__enter__())
    return SimpleNamespace(first=watches[0], second=watches[1], clock=clock)


def batch(*numbers, start=0, length=5):
    return Batch([Row(REQUESTS[number], start, length) for number in numbers])


def schedule(watch, *batches):
    watch.seen.extend((each, None) for each in batches)
    watch.look()


def come_back(watch, *tokens):
    watch.seen.extend((batch(0), np.array(each, dtype=np.int32).tobytes()) for each in tokens)
    watch.look()


def test_ranks_that_do_the_same_are_left_alone(pair):
    for watch in (pair.first, pair.second, pair.first):
        schedule(watch, batch(0, 1), batch(2))
        come_back(watch, [7, 8], [9])
    pair.second.look()


def test_one_may_be_ahead(pair):
    schedule(pair.first, batch(0, 1), batch(2), batch(0))
    schedule(pair.second, batch(0, 1))
    pair.first.look()


@pytest.mark.parametrize("other", [batch(1, 0), batch(0), batch(0, 1, start=1), batch(0, 1, length=4), batch(0, 2)])
def test_another_batch_is_named_by_whoever_finds_it(pair, other):
    schedule(pair.first, batch(0, 1), batch(2), batch(0, 1), batch(2))
    with pytest.raises(RankError, match="^rank 1 has scheduled another batch 2 than rank 0$"):
        schedule(pair.second, batch(0, 1), batch(2), other, batch(2))
    with pytest.raises(RankError, match="^rank 1 has scheduled another batch 2 than rank 0$"):
        pair.first.look()


def test_it_is_found_across_posts(pair):
    schedule(pair.first, batch(0))
    schedule(pair.first, batch(1))
    schedule(pair.second, batch(0))
    with pytest.raises(RankError, match="another batch 1 than"):
        schedule(pair.second, batch(2))


def test_other_tokens_are_found_though_the_batches_are_the_same(pair):
    for watch in (pair.first, pair.second):
        schedule(watch, batch(0, 1), batch(0, 1))
    come_back(pair.first, [7, 8], [9, 10])
    with pytest.raises(RankError, match="^rank 1 has other tokens for batch 1 than rank 0$"):
        come_back(pair.second, [7, 8], [9, 11])


def test_a_silent_rank_is_named(pair):
    pair.second.look()
    pair.first.look()
    pair.clock.now += 31
    with pytest.raises(RankError, match="^rank 1 has not been heard of for 31 s$"):
        pair.first.look()


def test_ranks_that_stand_still_are_told_how_far_each_came(pair):
    schedule(pair.first, batch(0), batch(1))
    schedule(pair.second, batch(0))
    for _ in range(3):
        pair.clock.now += 10
        pair.second.look()
        pair.first.look()
    pair.clock.now += 1
    expected = "^no batch has come back for 31 s; batches scheduled: 2 by rank 0, 1 by rank 1$"
    for watch in (pair.second, pair.first):
        with pytest.raises(RankError, match=expected):
            watch.look()


def test_before_anything_is_scheduled_nothing_stands_still(pair):
    for _ in range(4):
        pair.clock.now += 10
        pair.second.look()
        pair.first.look()


def test_a_rank_that_is_through_too_early_is_found(pair):
    schedule(pair.first, batch(0), batch(1))
    pair.second.seen.append((batch(0), None))
    with pytest.raises(RankError, match="^rank 1 was through before batch 1, which rank 0 has scheduled$"):
        pair.second.look(done=True) or pair.first.look()


def test_a_rank_that_is_through_waits_for_the_others_but_not_for_ever(pair, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(pair.clock, "now", pair.clock.now + seconds))
    with pytest.raises(RankError, match="^rank 1 (has not been heard of for|is not through) 30 s"):
        pair.first.__exit__(None, None, None)


def test_who_fails_because_ranks_have_diverged_says_that(pair):
    schedule(pair.first, batch(0))
    pair.second.seen.append((batch(1), None))
    with pytest.raises(RankError, match="another batch 0"), pair.second:
        raise RuntimeError("a collective has failed")
