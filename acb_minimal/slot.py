"""An I/O slot: everything a batch takes to the GPU and brings back, on both sides of the bus.

The inputs of a batch are many small integer arrays. They are views into one pinned host buffer with a twin on the
device, so that an upload is a single copy. The slot knows the layout of a batch; it decides nothing about it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .costs import Shape
from .device import Device
from .request import Batch, Request


class SlotSize(NamedTuple):
    """The largest batch a slot can hold: rows, tokens, and KV pages of one row."""

    rows: int
    tokens: int
    pages: int


class Inputs(NamedTuple):
    """The named views of an input buffer, int32, as NumPy arrays on the host and tensors on the device.

    input_ids      [tokens]       token ids; 0 where the host does not know it yet
    positions      [tokens]       position of each token in its request
    kv_slots       [tokens]       where its key and value go: page * page_size + offset
    page_table     [rows, pages]  each row's pages, in order of position
    seq_lens       [rows]         positions each row has in the KV cache once this batch is written
    query_starts   [rows + 1]     row r's tokens are query_starts[r] to query_starts[r + 1] - 1
    sampling_rows  [rows]         for each row that produces a token, the index of its last token
    carry_over     [tokens]       for a token the host does not know: its index in the outputs of the batch before,
                                  which the device has; otherwise -1
    """

    input_ids: np.ndarray | torch.Tensor
    positions: np.ndarray | torch.Tensor
    kv_slots: np.ndarray | torch.Tensor
    page_table: np.ndarray | torch.Tensor
    seq_lens: np.ndarray | torch.Tensor
    query_starts: np.ndarray | torch.Tensor
    sampling_rows: np.ndarray | torch.Tensor
    carry_over: np.ndarray | torch.Tensor

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


class IOSlot:
    """One batch's inputs and outputs.

    size          the largest batch it can hold
    page_size     positions per KV page
    scratch_page  a page of the cache that belongs to no request; padding rows write to it
    device        where the model runs
    name          a letter, for traces

    After `write`, `inputs` (device) are cut to the batch, `outputs` is where its sampled tokens belong (device,
    int32 [sampled rows]), `max_query_len` is the length of its longest row, `decode_rows` the number of its rows if
    all of them are one token, else 0, `shape` what its cost depends on, and `batch` its number.
    """

    def __init__(self, size: SlotSize, page_size: int, scratch_page: int, device: Device, name: str = "A"):
        self.page_size, self.scratch_page, self.device, self.name = page_size, scratch_page, device, name
        self.batch: int | None = None
        self.host_buffer = device.pinned(Inputs.numel(size))
        self.device_buffer = torch.zeros_like(self.host_buffer, device=device.torch_device)
        self.host_tokens = device.pinned(size.rows)
        self.device_tokens = torch.zeros_like(self.host_tokens, device=device.torch_device)
        self.host_inputs = Inputs.cut(self.host_buffer.numpy(), size)
        self.device_inputs = Inputs.cut(self.device_buffer, size)
        device.watch(f"slot {name}'s pinned inputs", self.host_buffer)
        device.watch(f"slot {name}'s inputs", self.device_buffer)
        device.watch(f"slot {name}'s pinned outputs", self.host_tokens)
        device.watch(f"slot {name}'s outputs", self.device_tokens)
        self._table_owners: list[Request | None] = [None] * size.rows
        self._unknown: list[tuple[int, Request, int]] = []

    def write(self, batch: Batch, sizes: Sequence[int] = ()) -> None:
        """Fills the host input buffer. Past the ends of the batch, it keeps what it held.

        A token id that the host does not know yet, because an earlier batch is still producing it, is written as 0,
        with its place among that batch's outputs in `carry_over`; `fill` writes it once it is known.

        sizes  a batch of decodes is padded to the smallest of these that holds it, with rows on the scratch page
        """
        started = self.device.clock()
        decode = batch.num_tokens == len(batch.rows)
        fitting = [size for size in sizes if decode and size >= len(batch.rows)]
        padding = min(fitting) - len(batch.rows) if fitting else 0
        host = self.host_inputs
        num_rows, num_tokens = len(batch.rows) + padding, batch.num_tokens + padding
        ids: list[int] = []
        self._unknown.clear()
        host.carry_over[:num_tokens] = -1
        for index, (request, start, length, source) in enumerate(batch.rows):
            if self._table_owners[index] is not request:
                # A request keeps its pages for life: its table row is written when it takes the row, not per step.
                host.page_table[index, : len(request.pages)] = request.pages
                self._table_owners[index] = request
            known = request.tokens[start : start + length]
            ids += known
            if len(known) < length:  # only ever the one token of a decode
                self._unknown.append((len(ids), request, start))
                host.carry_over[len(ids)] = source
                ids.append(0)
        for index in range(len(batch.rows), num_rows):
            host.page_table[index, 0] = self.scratch_page
            self._table_owners[index] = None

        starts = np.array([row.start for row in batch.rows] + [0] * padding)
        lengths = np.array([row.length for row in batch.rows] + [1] * padding)
        ends = np.cumsum(lengths)
        row_of_token = np.repeat(np.arange(num_rows), lengths)
        positions = np.arange(num_tokens) + (starts - ends + lengths)[row_of_token]
        page, offset = np.divmod(positions, self.page_size)
        sampled = batch.sampled + list(range(len(batch.rows), num_rows))

        host.input_ids[:num_tokens] = ids + [0] * padding
        host.positions[:num_tokens] = positions
        host.kv_slots[:num_tokens] = host.page_table[row_of_token, page] * self.page_size + offset
        host.seq_lens[:num_rows] = starts + lengths
        host.query_starts[1 : num_rows + 1] = ends
        host.sampling_rows[: len(sampled)] = ends[sampled] - 1

        self.decode_rows = num_rows if decode else 0
        self.max_query_len = int(lengths.max())
        self.num_sampled = len(batch.sampled)
        self.inputs = self.device_inputs.trim(num_tokens, num_rows, len(sampled))
        self.outputs = self.device_tokens[: len(sampled)]
        seen = starts + lengths
        self.shape = Shape(num_rows, num_tokens, int(seen.sum()), int((lengths * seen).sum()))
        self.batch = batch.number
        self.device.spent("write", started, num_rows, self.batch, self.name, writes=self.host_buffer)

    def pad(self, rows: int) -> None:
        """Writes a batch of `rows` decodes that belong to no request."""
        self.write(Batch([], [], 0), [rows])

    def fill(self) -> None:
        """Writes the token ids that were not known when the batch was written. All of them must be known now, but
        those of requests that have finished since: their row's result is dropped, and its input can stay 0."""
        started = self.device.clock()
        for index, request, position in self._unknown:
            if request.finish_reason is None:
                self.host_inputs.input_ids[index] = request.tokens[position]
        written = self.host_buffer if self._unknown else None
        self.device.spent("fill", started, len(self._unknown), self.batch, self.name, writes=written)

    def upload(self, non_blocking: bool = False) -> None:
        """Copies the inputs to the device, on the current stream; the host waits unless `non_blocking`."""
        self.device.copy("h2d", self.device_buffer, self.host_buffer, non_blocking, self)

    def download(self, non_blocking: bool = False) -> np.ndarray:
        """Copies the sampled tokens to the host, on the current stream, and returns the host's view of them.

        The host waits unless `non_blocking`; then the view, int32 [sampled rows], is valid once the copy is done.
        """
        self.device.copy("d2h", self.host_tokens, self.device_tokens, non_blocking, self)
        return self.host_tokens.numpy()[: self.num_sampled]
