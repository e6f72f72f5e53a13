"""Stretches of time: their union, what two sets of them share, and how much of them lies between two moments."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stretches:
    """Stretches of time in order, none over another, from `start` to `end` each; nanoseconds, int64 [stretches]."""

    start: np.ndarray
    end: np.ndarray

    @classmethod
    def union(cls, start: np.ndarray, end: np.ndarray) -> "Stretches":
        """Of stretches in any order, which may overlap or be empty. Both [stretches]."""
        some = end > start
        start, end = start[some], end[some]
        order = np.argsort(start, kind="stable")
        start, reach = start[order], np.maximum.accumulate(end[order])
        opens = np.append(True, start[1:] > reach[:-1])[: len(start)]
        closes = np.append(opens[1:], True)[: len(start)]
        return cls(start[opens], reach[closes])

    @property
    def seconds(self) -> float:
        """All of them together."""
        return int((self.end - self.start).sum()) / 1e9

    def edges(self) -> Iterator[tuple[int, int]]:
        """Start and end of each."""
        return zip(self.start.tolist(), self.end.tolist(), strict=True)

    def between(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many nanoseconds of the stretches lie between each start and end. Takes and returns int64 [moments]."""
        length = self.end - self.start
        moments = np.append(0, np.stack((self.start, self.end), axis=1))
        passed = np.append(0, np.cumsum(np.stack((np.zeros_like(length), length), axis=1)))
        until = (np.interp(moment, moments, passed) for moment in (start, end))  # exact: float64 has 53 bits
        return np.subtract(*reversed([*until])).astype(np.int64)

    def meets(self, since: np.ndarray, until: np.ndarray) -> np.ndarray:
        """Whether any of them begins before each `until` and ends after its `since`. bool [moments]."""
        last = np.searchsorted(self.start, until) - 1
        return (last >= 0) & (np.append(self.end, 0)[last] > since)

    def outside(self, start: int, end: int) -> "Stretches":
        """What lies between the stretches, from `start` to `end`."""
        edges = np.clip(self.start, start, end), np.clip(self.end, start, end)
        return Stretches.union(np.append(start, edges[1]), np.append(edges[0], end))

    def joined(self, other: "Stretches") -> "Stretches":
        """What lies in either."""
        return Stretches.union(np.append(self.start, other.start), np.append(self.end, other.end))

    def cut(self, start: int, end: int) -> "Stretches":
        """What lies between `start` and `end`."""
        return Stretches.union(np.clip(self.start, start, end), np.clip(self.end, start, end))

    def shared(self, other: "Stretches") -> "Stretches":
        """What lies in both."""
        first, end = np.searchsorted(other.end, self.start, side="right"), np.searchsorted(other.start, self.end)
        count = end - first
        mine = np.repeat(np.arange(len(self.start)), count)
        theirs = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        edges = np.maximum(self.start[mine], other.start[theirs]), np.minimum(self.end[mine], other.end[theirs])
        return Stretches(*edges)
