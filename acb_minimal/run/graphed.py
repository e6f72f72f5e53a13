"""A model that launches batches of decodes as CUDA graphs, whatever the chapter does.

Chapter 6 captures its graphs itself. This is for the other chapters, to see what asynchrony wins once launching takes
next to no time: forward passes alone are captured, one for each slot and batch size, all in one memory pool.
"""

from collections.abc import Sequence
from typing import Any

from ..model import SplitModel
from ..request import Batch
from ..slot import IOSlot
from ..speculation import SpeculatingModel
from .timed import TimedModel


def graphed(kind: type[TimedModel]) -> type[TimedModel]:
    """That kind of model, but it replays a graph, which `new_slot` has captured, for a batch of decodes of that size:
    of its forward pass; of one that samples by itself, as far as the scores; of one with drafts, what verifies them."""
    what = "logits" if issubclass(kind, SplitModel) else "verify" if issubclass(kind, SpeculatingModel) else "forward"
    launch = getattr(kind, what)

    class GraphedSlot(kind.slot_class):
        """A slot that pads a batch of decodes to the next of `decode_sizes`, if it has any."""

        decode_sizes: Sequence[int] = ()

        def write(self, batch: Batch, **more) -> None:
            super().write(batch if batch.padding else batch.padded(self.decode_sizes), **more)

    class GraphedModel(kind):
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
                    launch(self, slot)
                self._graphs[slot, rows] = graph
            return slot

        def close(self) -> None:
            super().close()
            self._graphs.clear()

    def replay(self: GraphedModel, slot: IOSlot) -> None:
        graph = self._graphs.get((slot, slot.written.batch.decode_size))
        if graph and not self.device.cuda.is_current_stream_capturing():  # an engine that captures has no use for it
            graph.replay()
        else:
            launch(self, slot)

    setattr(GraphedModel, what, replay)
    return GraphedModel
