"""What things cost on the H200, for the simulator: what was measured (docs/results/calibrate.py), and straight lines.

Batches of decodes lie on lines between those that were measured; all else on lines fitted to measurements. The figures
are in costs.json, beside the machine, versions and date they were measured on. This file only evaluates them.
"""

import json
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..request import Batch
from .operations import Cost

FILE = Path(__file__).with_name("costs.json")
# Not measured, but taken to cost as much as something that was: sampling and counting have as many kernels as the
# carry-over, or a few more (what their bytes take is left out), and so have what is drafted and corrected; a mask is
# copied to its row as a token id is. A decode of several tokens: as so many decodes that share its keys and values.
TAKEN_AS = {"logits": "forward", "sample": "carry_over", "count": "carry_over", "correct": "carry_over",
            "draft": "carry_over", "masks": "fill"}  # fmt: skip
COMPILED = "compiled"  # in the entry of a model: the same figures with its linears joined and much of it compiled


class Shape(NamedTuple):
    """What the cost of a forward pass depends on."""

    rows: int  # of the batch, padding included
    tokens: int  # likewise
    context: int  # positions its rows have in the KV cache, all together
    pairs: int  # (query, position) pairs that attention computes
    decodes: bool  # whether it is a batch of decodes

    @classmethod
    def of(cls, batch: Batch) -> "Shape":
        """The shape of a batch."""
        pad = batch.padding  # rows of one token, which see nothing but themselves
        seen = [row.start + row.length for row in batch.rows]
        pairs = sum(row.length * positions for row, positions in zip(batch.rows, seen, strict=True))
        return cls(len(batch.rows) + pad, batch.num_tokens, sum(seen) + pad, pairs + pad, batch.decodes)


def _seconds(where: str, name: str) -> property:
    return property(lambda costs: 1e-6 * getattr(costs, where)[name])


@dataclass(frozen=True)
class Costs:
    """Seconds that host and device work take for one model."""

    gpu: str  # what to call a GPU simulated with them
    figures: dict  # the entries of costs.json that hold for every model, in microseconds
    model: dict  # the entry of the model
    rows: int = 1  # that each row of a batch stands for
    positions: int = 0  # that each of those has in the KV cache besides the row's own

    call = _seconds("figures", "call")  # host: one record, wait_event, or return from a synchronize
    copy_launch = _seconds("figures", "copy_launch")  # host: starting a non-blocking copy
    replay_launch = _seconds("model", "replay_launch")  # host: launching a captured forward pass
    # Device: between the kernels of a forward pass that were launched one by one, though all are queued.
    eager_gaps = _seconds("model", "eager_gaps")
    graph_gaps = _seconds("model", "graph_gaps")  # device: between the kernels of one that was captured
    # Device: what a forward pass takes longer that is launched one by one while the GPU has nothing to do.
    ramp = _seconds("model", "ramp")

    def scaled(self, rows: int, positions: int) -> "Costs":
        """The same, but each row of a batch of decodes is timed as so many rows with so many positions before them."""
        return replace(self, rows=rows, positions=positions)

    def launched_in(self, seconds: float) -> "Costs":
        """The same, but launching a batch of decodes, kernel by kernel, takes so long."""
        return replace(self, model=self.model | {"decode_launch": 1e6 * seconds})

    @classmethod
    def of(cls, model: str, weight_bytes: int = 0, compiled: bool = False) -> "Costs":
        """Costs of a calibrated model by its name, maybe compiled; of any other, those of the calibrated model whose
        weights are nearest in size, which `gpu` then names.

        Raises:
            InputError: what it costs compiled was not measured.
        """
        record = json.loads(FILE.read_text())
        gpu, models = f"simulated {record['environment']['device'].removeprefix('NVIDIA ')}", record["models"]
        if model not in models:
            model = min(models, key=lambda name: abs(math.log(models[name]["weight_bytes"] / max(weight_bytes, 1))))
            gpu += f", timed as {model}"
        entry = models[model]
        if compiled:
            if COMPILED not in entry:
                raise InputError(f"costs of compiled models are not calibrated for {model!r}: only a GPU can run it so")
            entry = entry[COMPILED]
        decode = {
            int(rows): {int(positions): us for positions, us in batches.items()}
            for rows, batches in entry["decode"].items()
        }
        return cls(gpu, record["figures"], entry | {"decode": decode})

    def copy(self, engine: str, nbytes: int) -> float:
        """Device: a copy of `nbytes` on engine "h2d" or "d2h"."""
        return _line(self.figures[engine], byte=nbytes)

    def launch(self, what: str, shape: Shape) -> float:
        """Host: launching a forward pass kernel by kernel, the carry-over, or sampling alone."""
        if TAKEN_AS.get(what, what) == "carry_over":
            return 1e-6 * self.figures["carry_over_launch"]
        return 1e-6 * self.model["decode_launch" if shape.decodes else "mixed_launch"]

    def compute(self, what: str, shape: Shape, graph: bool = False) -> Cost:
        """Device: a forward pass, the carry-over, or sampling alone, launched kernel by kernel or as part of a graph.

        What is measured are replays of graphs, whose kernels have gaps between them as well, if short ones.
        """
        if TAKEN_AS.get(what, what) == "carry_over":
            return Cost(1e-6 * self.figures["carry_over"])
        if shape.decodes:
            width = shape.tokens / shape.rows
            positions = (shape.context / shape.rows + self.positions) / width
            replay = 1e-6 * decode_time(self.model["decode"], self.rows * shape.tokens, positions)
        else:
            replay = _line(self.model["mixed"], token=shape.tokens, pair=shape.pairs)
        busy = replay - self.graph_gaps
        return Cost(busy, self.graph_gaps) if graph else Cost(busy, self.eager_gaps, self.ramp)

    def host(self, what: str, rows: int) -> float:
        """Host: "schedule", "write", "fill", "masks" or "update" for a batch of `rows`."""
        return _line(self.figures[TAKEN_AS.get(what, what)], row=rows)


def decode_time(measured: dict[int, dict[int, float]], rows: float, positions: float) -> float:
    """Microseconds of a batch of decodes with so many rows, and so many positions of each in the KV cache, on average.
    Measured were at least two numbers of rows, and for each at least two of positions, in ascending order."""
    return _between({count: _between(batches, positions) for count, batches in measured.items()}, rows)


def _between(points: dict[int, float], x: float) -> float:
    """The value at x: on the straight line between the points beside it; the first and the last line go on."""
    places = list(points)
    after = min(max(bisect_right(places, x), 1), len(places) - 1)
    left, right = places[after - 1], places[after]
    return points[left] + (points[right] - points[left]) * (x - left) / (right - left)


def _line(figures: dict[str, float], **counts: int) -> float:
    """Seconds: a base and so much for each row, token, byte..., from microseconds."""
    return 1e-6 * (figures["base"] + sum(figures[name] * count for name, count in counts.items()))
