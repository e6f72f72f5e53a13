"""A model that launches batches of decodes as CUDA graphs, whatever the chapter does.

Chapter 6 captures its graphs itself. This is for the other chapters, to see what asynchrony wins once launching takes
next to no time: forward passes alone are captured, one for each slot and batch size, all in one memory pool.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..request import Batch
from ..slot import IOSlot
from .timed import TimedModel, TimedSlot


class GraphedSlot(TimedSlot):
    """A slot that pads a batch of decodes to the next of `decode_sizes`, if it has any."""

    decode_sizes: Sequence[int] = ()

    def write(self, batch: Batch) -> None:
        super().write(batch if batch.padding else batch.padded(self.decode_sizes))


class AsFarAsTheScores:
    """Comes before a model that samples by itself: what its graphs are made of, and are replayed for."""

    def capture(self, slot: IOSlot) -> None:
        self.logits(slot)

    def logits(self, slot: IOSlot) -> None:
        self.replay(slot, super().logits)


class GraphedModel(TimedModel):
    """A model whose `forward` replays the graph that `new_slot` has captured for a batch of that size."""

    slot_class = GraphedSlot

    def __init__(self, *args):
        super().__init__(*args)
        self._graphs: dict[tuple[IOSlot, int], Any] = {}
        self._pool = self.device.cuda.graph_pool_handle()

    def new_slot(self) -> IOSlot:
        slot, cuda = super().new_slot(), self.device.cuda
        slot.decode_sizes = self.decode_sizes
        for rows in self.decode_sizes:
            slot.pad(rows)
            graph = cuda.CUDAGraph()
            with cuda.graph(graph, pool=self._pool):  # shared, since batches run one after another
                self.capture(slot)
            self._graphs[slot, rows] = graph
        return slot

    def capture(self, slot: IOSlot) -> None:
        """What a graph is made of."""
        self.forward(slot)

    def forward(self, slot: IOSlot) -> None:
        self.replay(slot, super().forward)

    def replay(self, slot: IOSlot, otherwise: Callable[[IOSlot], None]) -> None:
        """Replays the slot's graph; without one for its batch, does what is done otherwise."""
        graph = self._graphs.get((slot, slot.written.batch.decode_size))
        if graph and not self.device.cuda.is_current_stream_capturing():  # an engine that captures has no use for it
            graph.replay()
        else:
            otherwise(slot)

    def close(self) -> None:
        super().close()
        self._graphs.clear()
