"""Speculation: tokens are those of greedy decoding, and as many drafts are right in any chapter."""

import random
from functools import cache

import numpy as np
import pytest
import torch

from acb_minimal.errors import InputError
from acb_minimal.kv_cache import PagePool
from acb_minimal.models import counter
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import named
from acb_minimal.speculation import NGRAM, SpeculatingRequest, SpeculatingScheduler, lookup, reserve_for

CHECKPOINT = Checkpoint("counter")


def counting(first: int, last: int) -> str:
    return " ".join(map(str, range(first, last + 1)))


# Answers that are in the prompt, in part or as a whole, and one that is not.
PROMPTS = [
    f"count 20 to 30 {counting(21, 30)} 20",
    counter.prompt(500, 512),
    f"{counting(10, 28)} 7 8 9",
    f"count 3 to 9 {counting(4, 9)} 3",
    f"{counting(3, 12)} {counting(3, 6)}",
]


@cache
def served(chapter: str, policy: str = "timed", seed: int = 0, **limits) -> Session:
    options = Options(**{name: limits.pop(name) for name in ("reserve", "mistake") if name in limits})
    job = Job(PROMPTS, 20, max_running=3, max_batch_tokens=18, page_size=4, **limits)
    session = Session(job, chapter, CHECKPOINT, SimulatedDevice(Costs.of("counter"), named(policy, seed)), options)
    session.serve()
    assert session.pool.num_free == session.pool.num_pages
    return session


def tokens(session: Session) -> list[list[int]]:
    return [request.generated for request in session.requests]


def counts(session: Session) -> tuple[int, int]:
    return session.scheduler.drafted, session.scheduler.accepted


RIGHT = tokens(served("ch5"))


@pytest.mark.parametrize("drafts", [3, *(pytest.param(drafts, marks=pytest.mark.slow) for drafts in (1, 2, 5))])
def test_tokens_are_chapter_5s_and_as_many_drafts_are_right_as_in_chapter_1(drafts):
    alone = served("ch1", speculate=drafts)
    assert tokens(alone) == RIGHT
    drafted, accepted = counts(alone)
    assert drafted / 6 < accepted < drafted
    for chapter in chapter_paths() if drafts < 3 else ("ch4", "ch5", "ch6"):
        other = served(chapter, "random", drafts, speculate=drafts)
        assert tokens(other) == RIGHT
        assert counts(other) == counts(alone)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("drafts", [1, 2, 5])
def test_the_reserve_is_what_can_be_touched(drafts, ahead):
    """All drafts are right, or some, and requests end because they are long enough."""
    furthest, rng = 0, random.Random(drafts)
    kind = type("Scheduler", (SpeculatingScheduler,), {"drafts": drafts})
    for trial in range(60):
        scheduler = kind(PagePool(40, 4), 1, 16, 100, 100)
        request = SpeculatingRequest("a", [1, 2, 3], 1 + trial % 9, drafts=drafts)
        scheduler.add(request)
        in_flight, length = [], 3  # what the device knows
        while scheduler.has_work():
            if batch := scheduler.schedule():
                (row,) = batch.rows
                width = 1 + drafts if row.start else 1
                if row.start:
                    at = length - 1 + drafts
                    assert at <= row.start + row.length - 1  # the host's bound
                    furthest = max(furthest, at - request.prompt_len - request.max_new_tokens + 2)
                count = rng.choice([width, rng.randint(1, width)])
                length += count
                in_flight.append((batch, np.where(np.arange(1 + drafts) < count, 5, -1)[:, None]))
            if len(in_flight) > ahead or not batch:
                scheduler.update(*in_flight.pop(0))
        assert len(request.generated) == request.max_new_tokens
        assert request.scheduled >= len(request.tokens) - 1
        assert scheduler.pool.num_free == 40
    assert furthest == (reserve_for(drafts) if ahead else drafts)


def test_lookup_is_what_came_behind_the_same_tokens():
    rng = random.Random(0)
    rows = [[rng.randrange(4) for _ in range(rng.randint(1, 20))] for _ in range(200)]
    width, count = 24, 4
    table = torch.tensor([row + [rng.randrange(4) for _ in range(width - len(row))] for row in rows])
    found = lookup(table.int(), torch.tensor([len(row) for row in rows]).int(), count)
    for row, guess in zip(rows, found.tolist(), strict=True):
        longer = list(row)
        for _ in range(count):
            longer.append(looked_up(row, len(longer) - len(row)))
        assert guess == longer[len(row) :], row


def looked_up(row: list[int], place: int) -> int:
    """The same by definition, for one row and place behind it."""
    if len(row) == 1:
        return row[0]
    ends = range(len(row) - 1)

    def same(end: int) -> int:
        backs = [back for back in range(NGRAM + 1) if back > end or back == NGRAM or row[end - back] != row[-1 - back]]
        return backs[0]

    end = max(ends, key=lambda end: (same(end), end))
    period = len(row) - 1 - end
    return row[end + 1 + place % period]


def test_drafts_from_what_the_host_knows_are_a_batch_too_late():
    assert counts(served("ch1", speculate=3, mistake="stale-drafts")) == counts(served("ch1", speculate=3))
    late = served("ch5", speculate=3, mistake="stale-drafts")
    assert tokens(late) == RIGHT
    assert counts(late)[1] < counts(served("ch1", speculate=3))[1] / 4


def test_graphs_and_chapter_6_pad_rows_of_several_tokens():
    for chapter, options in (("ch5", Options(graphs=True)), ("ch6", Options())):
        job = Job(PROMPTS, 20, max_running=5, page_size=4, speculate=3)
        session = Session(job, chapter, CHECKPOINT, "sim", options)
        session.serve()
        assert tokens(session) == RIGHT


def test_a_dial_says_how_many_drafts_are_right_where_nothing_is_computed():
    checkpoint = Checkpoint("llama-3.2-1b")
    for share in (0.0, 0.5, 1.0):
        job = Job([[1] * 8] * 4, 60, max_running=4, ignore_stop=True, speculate=1)
        session = Session(job, "ch5", checkpoint, "sim", Options(acceptance=share))
        session.serve()
        drafted, accepted = counts(session)
        assert all(len(request.generated) == 60 for request in session.requests)
        assert accepted / drafted == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(
    ("options", "limits", "said"),
    [
        (Options(speculate=0), {}, "speculate is 0; it must be from 1 to 32 drafts"),
        (Options(speculate=2, reserve=5), {}, "reserve is 5; with 2 drafts it must be from 0 to 4"),
        (Options(acceptance=0.5), {}, "acceptance is 0.5, and there are no drafts"),
        (Options(speculate=2), {"grammar": "any"}, "no grammar and no draws"),
        (Options(speculate=2, preempt="recompute"), {}, "do not go together with drafts"),
        (Options(speculate=4), {"max_batch_tokens": 64}, "5 tokens a step, it must be at least 80"),
    ],
)
def test_what_cannot_be_is_refused(options, limits, said):
    with pytest.raises(InputError, match=said):
        Session(Job(["count 3 to 7"], **limits), "ch5", CHECKPOINT, "sim", options)


def test_a_request_needs_positions_for_its_drafts():
    request = SpeculatingRequest("a", [1], 60, drafts=3)
    request.check(100, 66)
    with pytest.raises(InputError, match=r"1 prompt \+ 60 new tokens \+ 6 positions for drafts are past the"):
        request.check(100, 65)
