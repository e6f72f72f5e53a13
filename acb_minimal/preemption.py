"""Pages on demand: requests are given pages as they fill them, and when none is free, the newest request gives way.

What it had in the KV cache is dropped, and computed again when it comes back (PreemptingScheduler); or it is copied to
host memory, and back (SwappingScheduler, SwappingModel). Either way it keeps its tokens, and is sent the one that a
batch in flight has for it.

Like all schedulers these decide from counts. Whether a request has ended while its page went to another one, they need
not know: batches run one after another, so what the one in flight still does with a page, it does before the next.
"""

import math
from collections import deque
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from .errors import InputError
from .kv_cache import PagePool
from .model import Model
from .request import Batch, Request
from .scheduler import Scheduler


class PreemptingScheduler(Scheduler):
    """Admits a request when its prompt has pages, and gives it others as it goes on.

    Requests give way from the newest on, to the front of those that wait. So they come back in the order they arrived
    in, and the oldest never gives way: all pages are its own, if it comes to that, and it ends.
    """

    def schedule(self) -> Batch | None:
        """As Scheduler has it. Who gives way has done so even if there is no batch."""
        self.make_room()
        return super().schedule()

    def make_room(self) -> None:
        """Gives each running request the page that its next position needs; or others give way, and it with them."""
        index = 0
        while index < len(self.running):
            if self.fills_up(self.running[index], 0):
                page = self.pool.allocate(1)
                if page is None:
                    self.give_way(self.running.pop())
                    continue
                self.running[index].pages += page
            index += 1

    def fills_up(self, request: Request, ahead: int) -> bool:
        """Whether the pages of a running request are full and it goes on, when it has got `ahead` further."""
        positions = request.scheduled + ahead
        return positions == len(request.pages) * self.pool.page_size and positions < request.max_positions

    def give_way(self, request: Request) -> None:
        """Takes the pages of a request that was running, to have it wait. A batch in flight may still write to them:
        whoever is given one uses it in a later batch."""
        self.pool.free(request.pages)
        request.pages = []
        self.waiting.appendleft(request)

    def admit(self, request: Request) -> bool:
        """Gives the request the pages of what it has to compute, if as many stay free as those that run will ask for
        next: or it would soon give way again."""
        if request.scheduled >= len(request.tokens):
            return False  # its newest token is in a batch in flight: without that, it would generate it once more
        growing = sum(self.pool.pages_for(other.max_positions) > len(other.pages) for other in self.running)
        needed = self.pool.pages_for(min(len(request.tokens) + 1, request.max_positions))
        if needed + growing > self.pool.num_free:
            return False
        request.pages = self.pool.allocate(needed)
        self.begin(request)
        return True

    def begin(self, request: Request) -> None:
        """It has got its pages: all its tokens are to be computed, those it has generated too."""
        request.prefill_len, request.scheduled = len(request.tokens), 0

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        """As Scheduler has it. A request can finish while it waits: the batch in flight ended it."""
        finished = super().update(batch, tokens)
        if any(request in finished for request in self.waiting):
            self.waiting = deque(request for request in self.waiting if request.finish_reason is None)
        return finished


class Move(NamedTuple):
    """Pages of a request to copy.

    Attributes:
        berth: the number of its place in host memory.
        pages: in the KV cache, in order of position.
    """

    berth: int
    pages: list[int]


class Moves(NamedTuple):
    """What is to be copied, on a stream of its own, once all batches before this schedule's have run; it has to be over
    before the batch of the next schedule runs.

    Attributes:
        out: to host memory.
        back: to the KV cache.
    """

    out: list[Move]
    back: list[Move]


class SwappingScheduler(PreemptingScheduler):
    """Has requests that give way copied to host memory, as long as there is a berth, and back.

    It looks a step ahead, so that copies run beside a batch: who gives way now makes room for the next schedule, and
    who comes back has a row in that. There may be something to copy and no batch.

    Attributes:
        berths: of host memory, handed out as pages are; each holds what one request can have in the KV cache.
        moves: what is to be copied now.
        num_berths: how many there are; None: a quarter of max_running.
    """

    num_berths: int | None = None

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        count = max(self.max_running // 4, 1) if self.num_berths is None else self.num_berths
        if count < 1:
            raise InputError(f"there are {count} berths for requests that give way; it must be at least 1")
        self.berths = PagePool(count, self.pool.page_size)
        self.moves = Moves([], [])
        self._coming: list[Request] = []

    def schedule(self) -> Batch | None:
        """As Scheduler has it. What was to be copied since the schedule before counts as done."""
        self.settle()
        return super().schedule()

    def has_work(self) -> bool:
        """As Scheduler has it; pages on their way are work, though all requests may have ended meanwhile."""
        return super().has_work() or bool(self.moves.out)

    def settle(self) -> None:
        """Frees the pages that were copied out, and the berths that were copied back."""
        for move in self.moves.out:
            self.pool.free(move.pages)
        for request in self._coming:
            if request.berth is not None:  # or it was cancelled on its way, and has left
                self.leave_berth(request)
        self._coming.clear()
        self.moves = Moves([], [])

    def make_room(self) -> None:
        """Gives each running request the page that its next position needs, which is there, and has others give way for
        those that are needed in the next schedule."""
        for request in self.running:
            if self.fills_up(request, 0):
                request.pages += self.pool.allocate(1)
        free = self.pool.num_free
        while sum(self.fills_up(request, 1) for request in self.running) > free:
            gone = self.running.pop()
            free += len(gone.pages)  # if they are copied, once they are
            self.give_way(gone)

    def give_way(self, request: Request) -> None:
        """Of a request that has its first token behind it, and another before it, the pages are copied out."""
        decodes = request.prefill_len <= request.scheduled < request.max_positions
        if not decodes or (berth := self.berths.allocate(1)) is None:
            super().give_way(request)
            return
        written = self.pool.pages_for(request.scheduled)
        self.moves.out.append(Move(*berth, request.pages[:written]))
        self.pool.free(request.pages[written:])
        request.pages, request.berth = [], *berth
        self.waiting.appendleft(request)

    def begin(self, request: Request) -> None:
        """One that has a berth is copied back, and goes on where it was."""
        if request.berth is None:
            super().begin(request)
            return
        self._coming.append(request)
        self.moves.back.append(Move(request.berth, request.pages[: self.pool.pages_for(request.scheduled)]))

    def leave_berth(self, request: Request) -> None:
        """Somebody else may have it: copies run one after another."""
        self.berths.free([request.berth])
        request.berth = None

    def abort(self) -> None:
        """As Scheduler has it; host memory is free as well."""
        self.settle()
        for request in self.waiting:
            if request.berth is not None:
                self.leave_berth(request)
        super().abort()

    def _release(self, request: Request) -> None:
        if request.berth is not None:
            self.leave_berth(request)
        super()._release(request)


class SwappingModel(Model):
    """A model that copies pages of its KV cache to berths of pinned host memory, and back.

    Attributes:
        berths: of the keys and the values of each layer, in the order of `tensors`: [berths, pages, kv_heads,
            page_size, head_dim], pinned.
    """

    def make_berths(self, count: int) -> None:
        """Takes the host memory for so many requests, each of as many pages as a row can have."""
        self.berths = []
        for tensor in self.tensors:
            shape = count, self.size.pages, *tensor.shape[1:]
            words = -(-math.prod(shape) * tensor.itemsize // 4)
            made = torch.empty(words, device="meta") if tensor.is_meta else self.device.pinned(words)
            self.berths.append(made.view(tensor.dtype)[: math.prod(shape)].view(shape))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The keys, then the values, of each layer in the KV cache."""
        return [*self.cache.keys, *self.cache.values]

    def swap(self, moves: Moves | None) -> None:
        """Copies what is to be copied, if anything ever is, on the current stream. The host does not wait."""
        if moves is None:
            return
        page = sum(tensor[0].nbytes for tensor in self.tensors)
        for engine, run, each in (("d2h", self.copy_out, moves.out), ("h2d", self.copy_back, moves.back)):
            for move in each:
                pages = self.device.index(move.pages)
                self.device.swap(engine, partial(run, move, pages), page * len(move.pages), 2 * len(self.tensors))

    def copy_out(self, move: Move, pages: torch.Tensor) -> None:
        """Does it, whatever stream that is in; `pages` are those of the move, int64 on the device.

        They are gathered on the device first: a copy for each page of each layer would be some thousand.
        """
        for tensor, berths in zip(self.tensors, self.berths, strict=True):
            berths[move.berth, : len(pages)].copy_(tensor.index_select(0, pages), non_blocking=True)

    def copy_back(self, move: Move, pages: torch.Tensor) -> None:
        """The same from host memory to the cache."""
        for tensor, berths in zip(self.tensors, self.berths, strict=True):
            kept = berths[move.berth, : len(pages)].to(tensor.device, non_blocking=True)
            tensor.index_copy_(0, pages, kept)
