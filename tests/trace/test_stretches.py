"""Stretches of time, held to sets of moments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acb_minimal.trace.stretches import Stretches

pairs = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10)).map(lambda pair: (pair[0], sum(pair))), max_size=12)


def union(stretches: list[tuple[int, int]]) -> Stretches:
    return Stretches.union(*np.array(stretches, dtype=np.int64).reshape(-1, 2).T)


def moments(stretches) -> set[int]:
    return {moment for start, end in stretches for moment in range(start, end)}


@given(pairs)
def test_a_union_covers_what_its_parts_cover_and_nothing_twice(stretches):
    edges = list(union(stretches).edges())
    assert edges == sorted(edges)
    assert all(end < start for (_, end), (start, _) in zip(edges, edges[1:], strict=False))
    assert sum(end - start for start, end in edges) == len(moments(stretches))
    assert moments(edges) == moments(stretches)


@given(pairs, pairs)
def test_what_two_share_and_what_either_has(one, other):
    assert moments(union(one).shared(union(other)).edges()) == moments(one) & moments(other)
    assert moments(union(one).joined(union(other)).edges()) == moments(one) | moments(other)


@given(pairs, st.integers(0, 60), st.integers(0, 60))
def test_what_lies_between_two_moments_and_what_does_not(stretches, start, end):
    start, end = sorted((start, end))
    between = moments(stretches) & set(range(start, end))
    assert int(union(stretches).between(start, end)) == len(between)
    assert moments(union(stretches).cut(start, end).edges()) == between
    assert moments(union(stretches).outside(start, end).edges()) == set(range(start, end)) - moments(stretches)


def test_nothing_is_between_where_there_are_none():
    assert union([]).between(np.array([1, 2]), np.array([5, 6])).tolist() == [0, 0]
    assert union([]).seconds == 0
