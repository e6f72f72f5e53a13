"""Several processes that serve the same requests, each with a GPU of its own and its part of the model.

Every rank runs the whole engine: the same chapter, a scheduler of its own, pages of its own. They meet only inside the
forward pass, in the collectives of transformers' tensor parallelism. Nobody sends a message about scheduling, because
nobody could say anything new: the scheduler decides by counts, and the tokens are the same everywhere.

What ranks do tell each other goes through torch's key-value store, beside the engine: whether all can serve the job,
before any work, and what they have scheduled, while they serve (watch_ranks.py).
"""

import gc
import hashlib
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

from ..errors import InputError, RankError

SLACK = 30.0  # seconds that a collective may take longer than `timeout`: who watches is to say first what is wrong


class Ranks:
    """One process among those that serve together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local: its number on its machine, which is that of its GPU.
        timeout: seconds after which a rank that is not heard of, or does not come on, ends the run.
        scope: before the names of all that these ranks put into the store.
    """

    def __init__(self, rank: int, count: int, local: int, timeout: float, scope: str = "acb"):
        self.rank, self.count, self.local, self.timeout, self.scope = rank, count, local, timeout, scope

    @classmethod
    def here(cls, timeout: float) -> "Ranks":
        """What a launcher has made this process."""
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return cls(rank, count, int(os.environ.get("LOCAL_RANK", rank)), timeout)

    def join(self, kind: Literal["cuda", "cpu"]) -> "Ranks":
        """Meets the others, through NCCL or Gloo, each bound to its device.

        Raises:
            RankError: not all of them came in time.
        """
        if kind == "cpu":  # transformers shards for the GPU wherever torch finds one
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        else:
            torch.cuda.set_device(self.local)
        patience = timedelta(seconds=self.timeout)
        try:
            dist.init_process_group(
                "gloo" if kind == "cpu" else "nccl",
                store=self.new_store("torch"),
                rank=self.rank,
                world_size=self.count,
                timeout=patience + timedelta(seconds=SLACK),
                device_id=None if kind == "cpu" else torch.device("cuda", self.local),
            )
            self._store = self.new_store("ranks")
            self._store.set(f"here/{self.rank}", "")
            self._store.wait([f"here/{rank}" for rank in range(self.count)], patience)
        except dist.DistError as error:
            raise RankError(f"rank {self.rank} has not met all of {self.count} ranks in {self.timeout:g} s") from error
        return self

    def part(self) -> None:
        """Lets go of the others. Graphs that have captured collectives must be gone: NCCL waits for them."""
        gc.collect()
        dist.destroy_process_group()

    def new_store(self, prefix: str) -> dist.Store:
        """A connection to the store, for one thread: it answers one question at a time.

        Args:
            prefix: before the names of all that goes through it.
        """
        launched = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # then the launcher keeps it, else rank 0
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=not launched and self.rank == 0 and self.scope == "acb",
            timeout=timedelta(seconds=self.timeout),
            wait_for_workers=False,
            multi_tenant=True,
        )
        return dist.PrefixStore(f"{self.scope}/{prefix}", store)

    def next_number(self, what: str) -> int:
        """Counts, from 1. All ranks get the same numbers, because they do the same things in the same order."""
        return self._store.add(f"{what}/{self.rank}", 1)

    def again(self) -> "Ranks":
        """The same rank for another process: one that is yet to join, beside these."""
        scope = f"{self.scope}/{self.next_number('again')}"
        return Ranks(self.rank, self.count, self.local, self.timeout, scope)

    def word_of_the_first(self, own: str) -> str:
        """What rank 0 says, for what times decide: these are not quite the same on any two.

        Args:
            own: what this rank would say; nobody hears it but from rank 0.

        Raises:
            RankError: rank 0 says nothing in time.
        """
        key = f"words/{self.next_number('word')}"
        if self.rank == 0:
            self._store.set(key, own)
        try:
            self._store.wait([key], timedelta(seconds=self.timeout))
        except dist.DistError as error:
            raise RankError(f"rank 0 has said nothing in {self.timeout:g} s") from error
        return self._store.get(key).decode()

    def agree(self, check: Callable[[], None], job: object) -> None:
        """Checks what this rank can do; all ranks go on, or none.

        Args:
            check: raises InputError if this rank cannot.
            job: what it is asked to do; its `repr` has to be the same everywhere.

        Raises:
            InputError: a rank cannot; the same on all of them.
            RankError: a rank is asked something else, or says nothing in time.
        """
        refusal = ""
        try:
            check()
        except InputError as error:
            refusal = str(error)
        number = self.next_number("agree")
        answers = [f"answers/{number}/{rank}" for rank in range(self.count)]
        asked = hashlib.blake2b(repr(job).encode(), digest_size=16).hexdigest()
        self._store.set(answers[self.rank], f"{asked} {refusal}")
        try:
            self._store.wait(answers, timedelta(seconds=self.timeout))
        except dist.DistError as error:
            silent = next(rank for rank, answer in enumerate(answers) if not self._store.check([answer]))
            raise RankError(f"rank {silent} has not said in {self.timeout:g} s whether it can serve this") from error
        said = [self._store.get(answer).decode().partition(" ") for answer in answers]
        for rank, (theirs, _, refused) in enumerate(said):
            if refused:
                raise InputError(f"rank {rank}: {refused}")
            if theirs != said[0][0]:
                raise RankError(f"rank {rank} was started with another job than rank 0")
