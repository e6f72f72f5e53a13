"""Several processes that serve the same requests, each with a GPU of its own and its part of the model.

Every rank runs the whole engine: the same chapter, a scheduler of its own, pages of its own. They meet only inside the
forward pass, in the collectives of transformers' tensor parallelism. Nobody sends a message about scheduling, because
nobody could say anything new: the scheduler decides by counts, and the tokens are the same everywhere. What they do
tell each other, after a run, is what each has scheduled. A rank that cannot serve ends, and so do the others, by
torch's launcher.

Every command asks whether it is a rank, so torch, which takes seconds to import, comes late here.
"""

import json
import logging
import math
import os
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NoReturn

from ..errors import RankError

GRACE = 1.0  # seconds: whoever fails because another rank is gone is to leave the last word to that one


def world_size() -> int:
    """How many ranks a launcher has started this process among; 1 if none has."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() else 1


def is_rank() -> bool:
    """Whether this process is one of several ranks."""
    return world_size() > 1


def is_first() -> bool:
    """Whether it is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def own_file(file: Path) -> Path:
    """Where this rank writes what every rank writes: a file beside the others'."""
    return file.with_stem(f"{file.stem}-rank{os.environ['RANK']}") if is_rank() else file


def launch(count: int, arguments: Sequence[str]) -> int:
    """Runs the `acb` command again, under torchrun: `count` ranks of it on this machine. Returns its exit status, which
    is rank 0's; RankError if a rank has ended in an error, and the others were ended for it."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable()  # what the launcher would say of a rank that failed, we say in one line
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--standalone", f"--nproc-per-node={count}", f"--log-dir={folder}", "--module", "acb_minimal.cli"]
        try:
            torchrun.main([*options, *arguments])
        except SignalException as error:
            raise RankError(f"ended by {error.sigval.name}, and the ranks with it", 128 + error.sigval) from error
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode < 0:
                raise RankError(f"rank {rank} was ended by {failure.signal_name()}") from error
            if isinstance(failure.message, dict):  # what `leave` has recorded
                raise RankError(failure.message["message"].partition(": ")[2], failure.exitcode) from error
            return failure.exitcode
    return 0


def leave(message: str | None, status: int) -> NoReturn:
    """Ends this rank at once, in order or with a line that says why. The status is the process's; of one that ends in
    order, the command's, which is rank 0's to give.

    Not by `sys.exit`: NCCL's own end can wait for ever for a rank that is gone, and for graphs with kernels of its.
    """
    if message is not None:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(RankError(message))  # torch's launcher reads it
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:  # another one does not
            print(f"error: {message}", file=sys.__stderr__)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if message is not None or is_first() else 0)


@dataclass
class Ranks:
    """One process among those that serve together, by its number."""

    rank: int
    count: int
    local: int  # its number on its machine, which is that of its GPU
    timeout: float  # seconds after which a rank that says nothing, or does not come on, ends the run
    scope: str = "acb"  # before the names of all that these ranks put into the store of the launcher

    @classmethod
    def here(cls, timeout: float) -> "Ranks":
        """What a launcher has made this process."""
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")), timeout)

    def join(self, kind: Literal["cuda", "cpu"]) -> "Ranks":
        """Meets the others, through NCCL or Gloo, each bound to its device."""
        import torch
        import torch.distributed as dist

        if kind == "cpu":  # transformers shards for the GPU wherever torch finds one
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
            backend, device = "gloo", None
        else:
            torch.cuda.set_device(self.local)
            backend, device = "nccl", torch.device("cuda", self.local)
        store, *_ = next(dist.rendezvous("env://", timeout=timedelta(seconds=self.timeout)))
        self._store = dist.PrefixStore(self.scope, store)
        patience = timedelta(seconds=2 * self.timeout)  # of a collective: we are to say first what is wrong
        group = {"rank": self.rank, "world_size": self.count, "timeout": patience, "device_id": device}
        dist.init_process_group(backend, store=dist.PrefixStore("torch", self._store), **group)
        return self

    def again(self) -> "Ranks":
        """The same rank for another process: one that is yet to join, beside these."""
        return replace(self, scope=f"{self.scope}/{self._store.add(f'again/{self.rank}', 1)}")

    def exchange(self, own: str) -> list[str]:
        """What every rank says, by rank; RankError if one says nothing in time. All must exchange the same things in
        the same order."""
        import torch.distributed as dist

        number = self._store.add(f"exchange/{self.rank}", 1)
        keys = [f"{number}/{rank}" for rank in range(self.count)]
        self._store.set(keys[self.rank], own)
        try:
            self._store.wait(keys, timedelta(seconds=self.timeout))
        except dist.DistError as error:
            silent = next((rank for rank, key in enumerate(keys) if not self._store.check([key])), self.count - 1)
            raise RankError(f"rank {silent} has said nothing for {self.timeout:g} s") from error
        return [self._store.get(key).decode() for key in keys]


class WatchedScheduler:
    """In front of a Scheduler: sees to it that all ranks do the same.

    It keeps digests of every batch that was scheduled and of its tokens, and compares them with the other ranks' when
    the run is over. Ranks that have diverged may wait for each other in a collective that never ends, and one in a
    replayed graph has no timeout: so a thread compares them, too, when no batch was asked for in Ranks.timeout seconds.
    """

    ranks: Ranks

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.digests: dict[str, list[int]] = {"scheduled": [], "got the tokens of": []}
        self.moved = math.inf  # when a batch was last asked for, by time.monotonic

    def schedule(self):
        self.moved = time.monotonic()
        if batch := super().schedule():
            rows = [(row.request.id, row.start, row.length) for row in batch.rows]
            self.digests["scheduled"].append(_digest(rows))
        return batch

    def update(self, batch, tokens):
        self.digests["got the tokens of"].append(_digest(tokens.tolist()))
        return super().update(batch, tokens)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a run."""
        done = threading.Event()
        threading.Thread(target=self._keep_watching, args=(done,), daemon=True).start()
        try:
            yield
        finally:
            done.set()
        self.compare()

    def compare(self) -> None:
        """Compares what all ranks have done; each has to call it, at the end or at a standstill. RankError if they have
        not done the same, or one of them says nothing in time."""
        said = [json.loads(each) for each in self.ranks.exchange(json.dumps(self.digests))]
        for what, first in said[0].items():
            for rank, digests in enumerate(said):
                for number, (theirs, expected) in enumerate(zip_longest(digests[what], first)):
                    if theirs != expected:
                        raise RankError(f"rank {rank} has not {what} batch {number} as rank 0 has")

    def _keep_watching(self, done: threading.Event) -> None:
        while not done.wait(min(1.0, self.ranks.timeout / 10)):
            if time.monotonic() - self.moved > self.ranks.timeout:
                try:
                    self.compare()
                    leave(f"no batch was scheduled for {self.ranks.timeout:g} s", 1)
                except RankError as error:
                    leave(str(error), 1)


def _digest(what: object) -> int:
    return zlib.crc32(repr(what).encode())  # not `hash`: that of a string differs from process to process
