"""An I/O slot: everything a batch takes to the GPU and brings back, on both sides of the bus.

The inputs of a batch are many small integer arrays. They are views into one pinned host buffer with a twin on the
device, so that an upload is a single copy. The slot knows the layout of a batch; it decides nothing about it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

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
    """

    input_ids: np.ndarray | torch.Tensor
    positions: np.ndarray | torch.Tensor
    kv_slots: np.ndarray | torch.Tensor
    page_table: np.ndarray | torch.Tensor
    seq_lens: np.ndarray | torch.Tensor
    query_starts: np.ndarray | torch.Tensor
    sampling_rows: np.ndarray | torch.Tensor

    @classmethod
    def shapes(cls, size: SlotSize) -> list[tuple[int, ...]]:
        tokens, rows = (size.tokens,), (size.rows,)
        return [tokens, tokens, tokens, (size.rows, size.pages), rows, (size.rows + 1,), rows]

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
        )


def _aligned(count: int) -> int:
    """`count` int32 rounded up to whole 16 bytes, the widest load of a GPU."""
    return -(-count // 4) * 4


class IOSlot:
    """One batch's inputs and outputs.

    size        the largest batch it can hold
    page_size   positions per KV page
    device      where the model runs; on CUDA the host side is pinned, so that copies can run beside the host

    After `write`, `inputs` (device) are cut to the batch, `outputs` is where its sampled tokens belong (device,
    int32 [sampled rows]) and `max_query_len` is the length of its longest row.
    """

    def __init__(self, size: SlotSize, page_size: int, device: torch.device):
        pinned = device.type == "cuda"
        self.page_size = page_size
        self.host_buffer = torch.zeros(Inputs.numel(size), dtype=torch.int32, pin_memory=pinned)
        self.device_buffer = torch.zeros_like(self.host_buffer, device=device)
        self.host_tokens = torch.zeros(size.rows, dtype=torch.int32, pin_memory=pinned)
        self.device_tokens = torch.zeros_like(self.host_tokens, device=device)
        self.host_inputs = Inputs.cut(self.host_buffer.numpy(), size)
        self.device_inputs = Inputs.cut(self.device_buffer, size)
        self._table_owners: list[Request | None] = [None] * size.rows

    def write(self, batch: Batch) -> None:
        """Fills the host input buffer. Past the ends of the batch, it keeps what it held."""
        host, num_rows, num_tokens = self.host_inputs, len(batch.rows), batch.num_tokens
        ids: list[int] = []
        for index, (request, start, length) in enumerate(batch.rows):
            if self._table_owners[index] is not request:
                # A request keeps its pages for life: its table row is written when it takes the row, not per step.
                host.page_table[index, : len(request.pages)] = request.pages
                self._table_owners[index] = request
            known = request.tokens[start : start + length]
            ids += known
            ids += [0] * (length - len(known))

        starts = np.array([row.start for row in batch.rows])
        lengths = np.array([row.length for row in batch.rows])
        ends = np.cumsum(lengths)
        row_of_token = np.repeat(np.arange(num_rows), lengths)
        positions = np.arange(num_tokens) + (starts - ends + lengths)[row_of_token]
        page, offset = np.divmod(positions, self.page_size)

        host.input_ids[:num_tokens] = ids
        host.positions[:num_tokens] = positions
        host.kv_slots[:num_tokens] = host.page_table[row_of_token, page] * self.page_size + offset
        host.seq_lens[:num_rows] = starts + lengths
        host.query_starts[1 : num_rows + 1] = ends
        host.sampling_rows[: len(batch.sampled)] = ends[batch.sampled] - 1

        self.max_query_len = int(lengths.max())
        self.inputs = self.device_inputs.trim(num_tokens, num_rows, len(batch.sampled))
        self.outputs = self.device_tokens[: len(batch.sampled)]

    def upload(self, non_blocking: bool = False) -> None:
        """Copies the inputs to the device, on the current stream; the host waits unless `non_blocking`."""
        self.device_buffer.copy_(self.host_buffer, non_blocking=non_blocking)

    def download(self, non_blocking: bool = False) -> np.ndarray:
        """Copies the sampled tokens to the host, on the current stream, and returns the host's view of them.

        The host waits unless `non_blocking`; then the view, int32 [sampled rows], is valid once the copy is done.
        """
        self.host_tokens.copy_(self.device_tokens, non_blocking=non_blocking)
        return self.host_tokens.numpy()[: len(self.outputs)]
