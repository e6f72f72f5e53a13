"""Continuous batching: which requests run in the next batch, and what its tokens mean for them.

Everything here is decided from counts, never from token values, so that a batch can be scheduled while the tokens
of the batch before it are still on the GPU. Of the device it knows the clock; of tensors nothing.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from .device import Device
from .errors import InputError
from .kv_cache import PagePool
from .request import Batch, Request, Row


class Step(NamedTuple):
    """A batch whose tokens have come back: when (seconds, the device's clock) and how large it was."""

    time: float
    rows: int
    tokens: int


class Scheduler:
    """Admits requests in arrival order and packs each batch up to a token budget.

    pool               pages to reserve from
    max_running        rows in a batch at most
    max_batch_tokens   tokens in a batch at most: decodes come first, prompts are cut to what is left
    vocab_size, max_positions  limits of the model, to refuse a request that does not fit
    device             whose clock `steps` are on

    A request is admitted when every page it can ever need is free, and holds them until it finishes. So nothing is
    preempted and nothing deadlocks.
    """

    def __init__(
        self,
        pool: PagePool,
        max_running: int,
        max_batch_tokens: int,
        vocab_size: int,
        max_positions: int,
        device: Device,
    ):
        if max_running < 1:
            raise InputError(f"max_running is {max_running}; it must be at least 1")
        if max_batch_tokens < max_running:
            raise InputError(
                f"max_batch_tokens is {max_batch_tokens}; with {max_running} running requests, each decoding a "
                f"token a step, it must be at least {max_running}"
            )
        self.pool = pool
        self.max_running, self.max_batch_tokens = max_running, max_batch_tokens
        self.vocab_size, self.max_positions = vocab_size, max_positions
        self.device = device
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.steps: list[Step] = []
        self._ids: set[str] = set()
        self._next_number = 0

    def add(self, request: Request) -> None:
        """Queues a request. Raises InputError, and keeps nothing of it, if it can never be served."""
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
        started = self.device.clock()
        rows: list[Row] = []
        sampled: list[int] = []
        budget = self.max_batch_tokens
        for request in self.running:
            budget -= self._add_row(request, budget, rows, sampled)
        while budget and self.waiting and len(self.running) < self.max_running:
            request = self.waiting[0]
            pages = self.pool.allocate(self.pool.pages_for(request.max_positions))
            if pages is None:
                break  # a smaller request further back must not overtake, or a large one might wait for ever
            request.pages = pages
            self.running.append(self.waiting.popleft())
            budget -= self._add_row(request, budget, rows, sampled)
        batch = Batch(rows, sampled, self.max_batch_tokens - budget, self._next_number) if rows else None
        self.device.spent("schedule", started, len(rows), batch.number if batch else None)
        self._next_number += len(rows) > 0
        return batch

    @staticmethod
    def _add_row(request: Request, budget: int, rows: list[Row], sampled: list[int]) -> int:
        """Adds the request's next positions, `budget` at most, and returns how many."""
        length = min(request.unscheduled, budget)
        if length:
            start = request.scheduled
            rows.append(Row(request, start, length, request.source))
            request.scheduled = start + length
            if request.scheduled >= request.prompt_len:
                # A request that decodes has a row in every batch, so the batch before is where its token comes from.
                request.source = len(sampled)
                sampled.append(len(rows) - 1)
        return length

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        """Takes in the tokens of `batch`, int [len(batch.sampled)], and returns the requests they finish.

        A finished request's pages are free at once.
        """
        started = self.device.clock()
        finished = []
        for index, token in zip(batch.sampled, tokens.tolist(), strict=True):
            request = batch.rows[index].request
            if request.finish_reason is not None:
                continue  # this batch was scheduled before the one that finished the request had come back
            request.tokens.append(token)
            if token in request.stop_tokens:
                request.finish_reason = "stop"
            elif len(request.tokens) == request.prompt_len + request.max_new_tokens:
                request.finish_reason = "length"
            else:
                continue
            self._release(request)
            finished.append(request)
        if finished:
            self.running = [request for request in self.running if request.finish_reason is None]
        self.device.spent("update", started, len(batch.rows), batch.number, reads=tokens)
        self.steps.append(Step(self.device.clock(), len(batch.rows), batch.num_tokens))
        return finished

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
