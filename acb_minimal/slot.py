"""An I/O slot: everything a batch takes to the GPU and brings back, on both sides of the bus.

The inputs of a batch are many small integer arrays. They are views into one pinned host buffer with a twin on the
device, so that an upload is a single copy. The slot knows the layout of a batch; it decides nothing about it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .device import Device
from .request import Batch, Request


class SlotSize(NamedTuple):
    """The largest batch a slot can hold.

    Attributes:
        rows: rows.
        tokens: tokens of all rows.
        pages: KV pages of one row.
        vocab: token ids are below it; 0 where nobody asks.
        biases: scores of one row that a request may change by name (sampling.py).
        drafts: that go along in each decode (speculation.py).
    """

    rows: int
    tokens: int
    pages: int
    vocab: int = 0
    biases: int = 0
    drafts: int = 0


class Inputs(NamedTuple):
    """The named views of an input buffer, int32, as NumPy arrays on the host and tensors on the device.

    Attributes:
        input_ids: [tokens] token ids; 0 where the host does not know it yet.
        positions: [tokens] position of each token in its request.
        kv_slots: [tokens] where its key and value go: page * page_size + offset.
        page_table: [rows, pages] each row's pages, in order of position.
        seq_lens: [rows] positions each row has in the KV cache once this batch is written.
        query_starts: [rows + 1] row r's tokens are query_starts[r] to query_starts[r + 1] - 1.
        sampling_rows: [rows] for each row that produces a token, the index of its last token.
        carry_over: [tokens] for a token the host does not know: its index in the outputs of the batch before, which the
            device has; otherwise -1.
    """

    input_ids: np.ndarray | torch.Tensor
    positions: np.ndarray | torch.Tensor
    kv_slots: np.ndarray | torch.Tensor
    page_table: np.ndarray | torch.Tensor
    seq_lens: np.ndarray | torch.Tensor
    query_starts: np.ndarray | torch.Tensor
    sampling_rows: np.ndarray | torch.Tensor
    carry_over: np.ndarray | torch.Tensor

    @property
    def row_of_token(self) -> torch.Tensor:
        """The row of the batch that each of its tokens is in: int64 [tokens], on the device."""
        tokens = torch.arange(len(self.input_ids), device=self.input_ids.device)
        return torch.searchsorted(self.query_starts[1:], tokens, right=True)

    @classmethod
    def shapes(cls, size: SlotSize) -> list[tuple[int, ...]]:
        tokens, rows = (size.tokens,), (size.rows,)
        return [tokens, tokens, tokens, (size.rows, size.pages), rows, (size.rows + 1,), rows, tokens]

    @classmethod
    def cut(cls, buffer, size: SlotSize) -> "Inputs":
        """Views of a one-dimensional buffer of `numel(size)` int32, each starting on a 16-byte boundary."""
        views, start = [], 0
        for shape in cls.shapes(size):
            count = math.prod(shape)
            views.append(buffer[start : start + count].reshape(shape))
            start += _aligned(count)
        return cls(*views)

    @classmethod
    def numel(cls, size: SlotSize) -> int:
        return sum(_aligned(math.prod(shape)) for shape in cls.shapes(size))

    def trim(self, tokens: int, rows: int, samples: int) -> "Inputs":
        """The views without what lies past the ends of a batch of that many tokens, rows and sampled rows."""
        return Inputs(
            self.input_ids[:tokens],
            self.positions[:tokens],
            self.kv_slots[:tokens],
            self.page_table[:rows],
            self.seq_lens[:rows],
            self.query_starts[: rows + 1],
            self.sampling_rows[:samples],
            self.carry_over[:tokens],
        )


def _aligned(count: int) -> int:
    """`count` int32 rounded up to whole 16 bytes, the widest load of a GPU."""
    return -(-count // 4) * 4


@dataclass(frozen=True)
class Written:
    """What `IOSlot.write` has put on its way to the device.

    Attributes:
        batch: the batch, with its padding.
        inputs: the device's views, cut to the batch.
        outputs: where its sampled tokens belong: int32 [sampled rows, padding included], on the device; of a slot with
            several `results`, [results, sampled rows].
    """

    batch: Batch
    inputs: Inputs
    outputs: torch.Tensor


class IOSlot:
    """One batch's inputs and outputs.

    Attributes:
        name: a letter, to tell it from others.
        unknown: for each token id that the last `write` did not know: its index in `input_ids`, its request and its
            position there.
        results: int32 numbers that come back for each row that samples; the token is the first.
        width: tokens of each decode; more than one if drafts go along (speculation.py).
    """

    results = width = 1

    def __init__(self, size: SlotSize, page_size: int, scratch_page: int, device: Device, name: str = "A"):
        """
        Args:
            size: the largest batch it can hold.
            page_size: positions per KV page.
            scratch_page: a page of the cache that belongs to no request; padding rows write to it.
            device: where the model runs.
        """
        self.size, self.page_size, self.scratch_page = size, page_size, scratch_page
        self.device, self.name = device, name
        self.host_buffer, self.device_buffer = self.twins(Inputs.numel(size))
        shape = (size.rows,) if self.results == 1 else (self.results, size.rows)
        self.host_tokens, self.device_tokens = self.twins(*shape)
        self.host_inputs = Inputs.cut(self.host_buffer.numpy(), size)
        self.device_inputs = Inputs.cut(self.device_buffer, size)
        self.token_view = self.host_tokens.numpy()
        self._written: Written | None = None
        self._tables: list[tuple[list[int] | None, int]] = [(None, 0)] * size.rows  # whose pages, and how many of them
        self.unknown: list[tuple[int, Request, int]] = []

    def twins(self, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A pinned buffer, and one like it on the device: int32, zeros."""
        host = self.device.pinned(math.prod(shape)).view(shape)
        return host, torch.zeros_like(host, device=self.device.torch_device)

    @property
    def written(self) -> Written:
        """What the last `write` has put here.

        Raises:
            RuntimeError: there was none.
        """
        if self._written is None:
            raise RuntimeError(f"slot {self.name} holds no batch: write one to it first")
        return self._written

    @property
    def batch(self) -> Batch | None:
        """What it holds, since the last `write`; None before the first."""
        return self._written and self._written.batch

    def write(self, batch: Batch) -> None:
        """Fills the host input buffer. Past the ends of the batch, it keeps what it held.

        A token id that the host does not know yet, because an earlier batch is still producing it, is written as 0,
        with its place among that batch's outputs in `carry_over`; `fill` writes it once it is known.
        """
        num_rows, num_tokens = len(batch.rows) + batch.padding, batch.num_tokens
        self._write_page_table(batch)
        self._write_ids(batch)

        host = self.host_inputs
        starts = np.array([row.start for row in batch.rows] + [0] * batch.padding)
        lengths = np.array([row.length for row in batch.rows] + [batch.width] * batch.padding)
        ends = np.cumsum(lengths)
        row_of_token = np.repeat(np.arange(num_rows), lengths)
        positions = np.arange(num_tokens) + (starts - ends + lengths)[row_of_token]
        page, offset = np.divmod(positions, self.page_size)
        sampled = batch.sampled + list(range(len(batch.rows), num_rows))
        host.positions[:num_tokens] = positions
        host.kv_slots[:num_tokens] = host.page_table[row_of_token, page] * self.page_size + offset
        host.seq_lens[:num_rows] = starts + lengths
        host.query_starts[1 : num_rows + 1] = ends
        host.sampling_rows[: len(sampled)] = ends[sampled] - 1

        inputs = self.device_inputs.trim(num_tokens, num_rows, len(sampled))
        self._written = Written(batch, inputs, self.device_tokens[..., : len(sampled)])

    def _write_page_table(self, batch: Batch) -> None:
        """A request's pages are written when it takes the row, and those it is given later when it has them, not per
        step. Pages that are given anew are a new list."""
        for index, row in enumerate(batch.rows):
            pages, (owner, written) = row.request.pages, self._tables[index]
            first = written if owner is pages else 0
            if owner is not pages or written < len(pages):
                self.host_inputs.page_table[index, first : len(pages)] = pages[first:]
                self._tables[index] = pages, len(pages)
        for index in range(len(batch.rows), len(batch.rows) + batch.padding):
            self.host_inputs.page_table[index, : batch.width] = self.scratch_page
            self._tables[index] = None, 0

    def _write_ids(self, batch: Batch) -> None:
        """Token ids, 0 where the host does not know one, and where the device finds those."""
        ids: list[int] = []
        self.unknown.clear()
        self.host_inputs.carry_over[: batch.num_tokens] = -1
        for request, start, length, source in batch.rows:
            known = request.tokens[start : start + length]
            ids += known
            if len(known) < length:  # only ever the one token of a decode
                self.unknown.append((len(ids), request, start))
                self.host_inputs.carry_over[len(ids)] = source
                ids.append(0)
        self.host_inputs.input_ids[: batch.num_tokens] = ids + [0] * batch.padding

    def pad(self, rows: int) -> None:
        """Writes a batch of `rows` decodes that belong to no request."""
        self.write(Batch([], padding=rows, width=self.width))

    def fill(self) -> None:
        """Writes the token ids that were not known when the batch was written. All of them must be known now, but
        those of requests that have finished since: their row's result is dropped, and its input can stay 0."""
        for index, request, position in self.unknown:
            if request.finish_reason is None:
                self.host_inputs.input_ids[index] = request.tokens[position]

    def upload(self, non_blocking: bool = False) -> None:
        """Copies the inputs to the device, on the current stream; the host waits unless `non_blocking`."""
        self.device.copy("h2d", self.device_buffer, self.host_buffer, non_blocking, self)

    def download(self, non_blocking: bool = False) -> np.ndarray:
        """Copies the sampled tokens to the host, on the current stream.

        Returns:
            The host's view of them, int32 [len(batch.sampled)], or [results, len(batch.sampled)] if there are several:
            valid once the copy is done, for which the host has waited here unless `non_blocking`.
        """
        self.device.copy("d2h", self.host_tokens, self.device_tokens, non_blocking, self)
        return self.token_view[..., : len(self.written.batch.sampled)]
