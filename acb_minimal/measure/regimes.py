"""Whom asynchrony helps: the bubbles of a synchronous engine, by model size and batch size.

The engine is chapter 6 made synchronous. With graphs there are next to no launch gaps, so the bubbles are all that is
left to win; without, a small model would seem to have few bubbles because its steps are long with launching.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from ..run.checkpoint import Checkpoint
from ..run.engines import synchronous
from ..run.options import Options
from ..run.session import Session
from ..run.workload import Workload
from .metrics import widest_decodes

MODELS = ("llama-3.2-1b", "llama-3.1-8b", "qwen3-32b")
ROWS = (8, 32, 128, 384)
CONTEXT, NEW_TOKENS = 512, 48  # the prompts of 384 rows take 24 batches, in which those that came first decode


class Regime(NamedTuple):
    """A point of the regime map: how long the GPU of a synchronous engine is without a batch.

    Attributes:
        model: its name.
        weight_bytes: device bytes of its weights.
        rows: sequences in a batch of decodes.
        context: positions each of them has in the KV cache when its prompt is through.
        step: seconds, mean over the batches in which all of them decode.
        bubble_share: bubbles over the time of a step, 0 to 1.
    """

    model: str
    weight_bytes: int
    rows: int
    context: int
    step: float
    bubble_share: float


def regimes(
    device: str = "auto", models: tuple[str, ...] = MODELS, rows: tuple[int, ...] = ROWS, compile: bool = False
) -> Iterator[Regime]:
    """Measures every model with every number of rows, and yields each point as it is done.

    Args:
        device: as Session takes it.
        models: their names.
        rows: sequences in a batch of decodes.
        compile: whether the models are compiled.
    """
    for name in models:
        checkpoint = Checkpoint(name)
        for count in rows:
            workload = Workload("regimes", name, count, CONTEXT, NEW_TOKENS, max_running=count, max_batch_tokens=8192)
            job = workload.job(checkpoint.vocab_size)
            session = Session(job, synchronous("ch6"), checkpoint, device, Options(compile=compile), trace=True)
            session.serve()
            decodes = widest_decodes(session.done)
            windows, bubbles = session.trace.batches(), session.trace.bubbles()
            idle = math.fsum(bubbles[number] for number in decodes)
            whole = idle + math.fsum(end - start for start, end in map(windows.get, decodes))
            yield Regime(name, checkpoint.weight_bytes, count, CONTEXT, whole / len(decodes), idle / whole)
