"""Sees to it that all ranks do the same, beside the engine: no step waits for it.

Each rank keeps a running digest of what it has scheduled and one of the tokens that have come back, and a thread of its
puts them into the store now and then, batch by batch, and reads those of the others. Where two of them part, ranks
have diverged, and that is the batch. A rank that has diverged may well leave the others waiting in a collective that
never ends; so the thread ends the process.
"""

import hashlib
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ..errors import RankError
from ..request import Batch, Request
from .launch import GRACE, leave
from .ranks import Ranks
from .timed import TimedScheduler

INTERVAL = 0.25  # seconds between two looks at the others


class WatchedScheduler(TimedScheduler):
    """A scheduler that tells a Watch what it does."""

    def __init__(self, watch: "Watch", *arguments):
        super().__init__(*arguments)
        self._watch = watch

    def schedule(self) -> Batch | None:
        batch = super().schedule()
        if batch:
            self._watch.seen.append((batch, None))
        return batch

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        self._watch.seen.append((batch, tokens.tobytes()))  # a copy: the slot will be written again
        return super().update(batch, tokens)


class Digests:
    """A digest for each batch, of it and all before it."""

    def __init__(self):
        self._all = hashlib.blake2b(digest_size=8)
        self.found: list[str] = []

    def add(self, what: bytes) -> None:
        self._all.update(what)
        self.found.append(self._all.hexdigest())


@dataclass
class Other:
    """What is known of another rank.

    Attributes:
        posts: how many of its posts were read.
        heard: when the last of them was, by time.monotonic.
        scheduled: its digests, batch by batch.
        came_back: likewise, of tokens.
        compared: how many of the two were compared.
        done: whether it has served everything.
    """

    posts: int = 0
    heard: float = field(default_factory=time.monotonic)
    scheduled: list[str] = field(default_factory=list)
    came_back: list[str] = field(default_factory=list)
    compared: list[int] = field(default_factory=lambda: [0, 0])
    done: bool = False


class Watch:
    """To be entered around a run. Left in order, it waits until all ranks are through and have done the same.

    Attributes:
        seen: batches that were scheduled, with None, and that came back, with their tokens.
    """

    def __init__(self, ranks: Ranks):
        """
        Args:
            ranks: those to watch, this one among them.
        """
        self._ranks = ranks
        self.seen: deque[tuple[Batch, bytes | None]] = deque()
        self._scheduled, self._came_back = Digests(), Digests()
        self._posted = [0, 0, 0]  # posts, and digests in them
        self._moved: float | None = None  # when a batch was scheduled or came back
        self._stop = threading.Event()

    def __enter__(self) -> "Watch":
        self._store = self._ranks.new_store(f"watch/{self._ranks.next_number('watch')}")
        self._others = {rank: Other() for rank in range(self._ranks.count) if rank != self._ranks.rank}
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stop.set()
        self._thread.join()
        if kind is GeneratorExit:
            return
        # Whoever fails because the ranks have diverged says that, and not in which collective it was noticed.
        patience = self._ranks.timeout if error is None else GRACE
        until = time.monotonic() + patience
        self.look(done=error is None)
        while not all(other.done for other in self._others.values()) and time.monotonic() < until:
            time.sleep(INTERVAL / 10)
            self.look(done=error is None)
        late = [rank for rank, other in self._others.items() if not other.done]
        if error is not None:
            return
        if late:
            raise RankError(f"rank {late[0]} is not through {patience:g} s after rank {self._ranks.rank}")
        self._store.set(f"left/{self._ranks.rank}", "")
        if self._ranks.rank == 0:  # it may be the one that keeps the store
            self._store.wait([f"left/{rank}" for rank in self._others])

    def _keep_looking(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                self.look()
            except RankError as error:
                leave(str(error), 1)
            except Exception as error:  # unwatched, it could wait for ever; mostly, whoever keeps the store is gone
                leave(f"rank {self._ranks.rank} has lost sight of the others ({type(error).__name__}: {error})", 1)

    def look(self, done: bool = False) -> None:
        """Tells the others what this rank has done, and reads what they have.

        Args:
            done: whether that was all.

        Raises:
            RankError: they have diverged, one of them is silent, or no batch has come back for too long.
        """
        self._digest()
        self._post(done)
        for rank, other in self._others.items():
            self._read(rank, other)
            self._compare(rank, other)
            if not other.done and (silent := time.monotonic() - other.heard) > self._ranks.timeout:
                raise RankError(f"rank {rank} has not been heard of for {silent:.0f} s")
        if not done and self._moved and (still := time.monotonic() - self._moved) > self._ranks.timeout:
            counts = {rank: len(other.scheduled) for rank, other in self._others.items()}
            counts[self._ranks.rank] = len(self._scheduled.found)
            scheduled = ", ".join(f"{count} by rank {rank}" for rank, count in sorted(counts.items()))
            raise RankError(f"no batch has come back for {still:.0f} s; batches scheduled: {scheduled}")

    def _digest(self) -> None:
        while self.seen:
            batch, tokens = self.seen.popleft()
            if tokens is None:
                rows = ";".join(f"{row.request.id},{row.start},{row.length}" for row in batch.rows)
                self._scheduled.add(rows.encode())
            else:
                self._came_back.add(tokens)
            self._moved = time.monotonic()
            time.sleep(0)  # the engine's thread may want to go on

    def _post(self, done: bool) -> None:
        posts, scheduled, came_back = self._posted
        mine = {
            "scheduled": self._scheduled.found[scheduled:],
            "came_back": self._came_back.found[came_back:],
            "done": done,
        }
        self._store.set(f"{self._ranks.rank}/{posts}", json.dumps(mine))
        self._posted = [posts + 1, len(self._scheduled.found), len(self._came_back.found)]

    def _read(self, rank: int, other: Other) -> None:
        while self._store.check([f"{rank}/{other.posts}"]):
            post = json.loads(self._store.get(f"{rank}/{other.posts}"))
            other.scheduled += post["scheduled"]
            other.came_back += post["came_back"]
            other.done |= post["done"]
            other.posts += 1
            other.heard = time.monotonic()

    def _compare(self, rank: int, other: Other) -> None:
        first, second = sorted((rank, self._ranks.rank))
        kinds = ((self._scheduled.found, other.scheduled), (self._came_back.found, other.came_back))
        for kind, (mine, theirs) in enumerate(kinds):
            until = min(len(mine), len(theirs))
            for number in range(other.compared[kind], until):
                if mine[number] != theirs[number]:
                    what = "has scheduled another" if kind == 0 else "has other tokens for"
                    raise RankError(f"rank {second} {what} batch {number} than rank {first}")
            other.compared[kind] = until
        if other.done and len(other.scheduled) < len(self._scheduled.found):
            number, mine = len(other.scheduled), self._ranks.rank
            raise RankError(f"rank {rank} was through before batch {number}, which rank {mine} has scheduled")
