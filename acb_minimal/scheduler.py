"""Continuous batching: which requests run in the next batch, and what its tokens mean for them.

Everything here is decided from counts, never from token values, so that a batch can be scheduled while the tokens
of the batch before it are still on the GPU. It knows no device and no clock.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from .errors import InputError
from .kv_cache import PagePool
from .request import Batch, FinishReason, Request, Row


class Scheduler:
    """Admits requests in arrival order and packs each batch up to a token budget.

    A request is admitted when every page it can ever need is free, and holds them until it finishes. So nothing is
    preempted and nothing deadlocks.

    Attributes:
        waiting: requests that have not been admitted, in arrival order.
        running: requests that have, in the order of admission.
        moves: what an engine is to copy between the cache and host memory once it has this schedule (preemption.py):
            None: nothing ever.
        width: tokens of each decode; more than one if drafts go along (speculation.py).
    """

    moves: tuple | None = None
    width = 1

    def __init__(
        self, pool: PagePool, max_running: int, max_batch_tokens: int, vocab_size: int, max_positions: int
    ):
        """
        Args:
            pool: pages to reserve from.
            max_running: rows in a batch at most.
            max_batch_tokens: tokens in a batch at most: decodes come first, prompts are cut to what is left.
            vocab_size: of the model; a request with other token ids is refused.
            max_positions: of the model; a longer request is refused.

        Raises:
            InputError: the limits make no sense.
        """
        if max_running < 1:
            raise InputError(f"max_running is {max_running}; it must be at least 1")
        if max_batch_tokens < (needed := max_running * self.width):
            decoding = "a token" if self.width == 1 else f"{self.width} tokens"
            raise InputError(
                f"max_batch_tokens is {max_batch_tokens}; with {max_running} running requests, each decoding "
                f"{decoding} a step, it must be at least {needed}"
            )
        self.pool = pool
        self.max_running, self.max_batch_tokens = max_running, max_batch_tokens
        self.vocab_size, self.max_positions = vocab_size, max_positions
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._ids: set[str] = set()
        self._next_number = 0

    def add(self, request: Request) -> None:
        """Queues a request.

        Raises:
            InputError: it can never be served; nothing of it is kept.
        """
        if request.id in self._ids:
            raise InputError(f"request {request.id!r}: the id is taken by a request that has not finished")
        request.check(self.vocab_size, self.max_positions)
        needed = self.pool.pages_for(request.max_positions)
        if needed > self.pool.num_pages:
            raise InputError(
                f"request {request.id!r}: {request.prompt_len} prompt + {request.max_new_tokens} new tokens need "
                f"{needed} pages of {self.pool.page_size}; the pool has {self.pool.num_pages}"
            )
        self._ids.add(request.id)
        self.waiting.append(request)

    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.waiting or self.running)

    def schedule(self) -> Batch | None:
        """The next batch, or None when nothing can be added before an earlier batch comes back.

        Decodes come before prompts without sorting: a request is admitted only when all before it have their whole
        prompt scheduled, so at most the last of `running` is still in prefill.
        """
        rows: list[Row] = []
        budget = self.max_batch_tokens
        for request in self.running:
            budget -= _add_row(rows, request, budget)
        while budget and self.waiting and len(self.running) < self.max_running:
            if not self.admit(self.waiting[0]):
                break  # a smaller request further back must not overtake, or a large one might wait for ever
            self.running.append(self.waiting.popleft())
            budget -= _add_row(rows, self.running[-1], budget)
        if not rows:
            return None
        self._next_number += 1
        return Batch(rows, self._next_number - 1, width=self.width)

    def admit(self, request: Request) -> bool:
        """Gives the request the pages to run with; False, and none, if there are not enough."""
        request.pages = self.pool.allocate(self.pool.pages_for(request.max_positions)) or []
        return bool(request.pages)

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        """Takes in the tokens of a batch. A finished request's pages are free at once.

        Args:
            tokens: int [len(batch.sampled)].

        Returns:
            The requests that they finish.
        """
        finished = []
        for index, token in zip(batch.sampled, tokens.tolist(), strict=True):
            request = batch.rows[index].request
            if request.finish_reason is not None:
                continue  # this batch was scheduled before the one that finished the request had come back
            request.tokens.append(token)
            request.finish_reason = self.finish_reason(request, token)
            if request.finish_reason is None:
                continue
            self._release(request)
            finished.append(request)
        if finished:
            self.running = [request for request in self.running if request.finish_reason is None]
        return finished

    def finish_reason(self, request: Request, token: int) -> FinishReason | None:
        """Why a request ends with `token`, its newest; None if it goes on."""
        if token in request.stop_tokens:
            return "stop"
        return "length" if len(request.tokens) == request.prompt_len + request.max_new_tokens else None

    def cancel(self, id: str) -> Request | None:
        """Ends a request, whether it runs or waits. Its pages are free at once, and only once: a batch in flight may
        have a row for it, whose token is dropped, as with a request that a stop token has ended.

        Returns:
            The request, with a finish_reason; None if none of that id is unfinished.
        """
        for queue in (self.running, self.waiting):
            for request in queue:
                if request.id == id:
                    queue.remove(request)
                    request.finish_reason = "abort"
                    self._release(request)
                    return request
        return None

    def abort(self) -> None:
        """Drops every unfinished request and frees its pages: for when a run ends in an error."""
        for request in self.running:
            self._release(request)
        self.running.clear()
        self.waiting.clear()
        self._ids.clear()

    def _release(self, request: Request) -> None:
        self.pool.free(request.pages)
        request.pages = []
        self._ids.discard(request.id)


def device_rows(batch: Batch, scheduler: Scheduler) -> Iterator[tuple[Request, int]]:
    """A free row on the device, for state that is kept there, for each request that begins with a batch. Those that run
    have one as their `row`; it is free once they do not, though a batch in flight may still use it: the next owner's
    first batch is behind that one."""
    new = [row.request for row in batch.rows if row.start == 0]
    taken = {request.row for request in scheduler.running if request not in new}
    return zip(new, (row for row in range(scheduler.max_running) if row not in taken), strict=False)


def _add_row(rows: list[Row], request: Request, budget: int) -> int:
    """Adds the request's next positions to a batch, as many as there is room for. Returns how many."""
    length = min(request.unscheduled, budget)
    if length:
        rows.append(Row(request, request.scheduled, length, request.source))
        request.scheduled += length
        if rows[-1].samples:
            # A request that decodes has a row in every batch, so the batch before is where its token comes from. There
            # it is as far back as the row, since all rows sample but one that fills up a batch.
            request.source = len(rows) - 1
    return length
