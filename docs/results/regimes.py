"""Whom asynchrony helps: the bubbles of a synchronous engine, by model size and batch size.

    python docs/results/regimes.py    # on a GPU: makes regimes.json anew

The engine is chapter 6 made synchronous. With graphs there are next to no launch gaps, so the bubbles are all that is
left to win; without, a small model would seem to have few bubbles because its steps are long with launching.
"""

import math

from common import need_gpu, store

from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import synchronous
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Workload
from acb_minimal.trace.steps import typical_decodes

MODELS = ("llama-3.2-1b", "llama-3.1-8b", "qwen3-32b")
ROWS = (8, 32, 128, 384)
CONTEXT, NEW_TOKENS = 512, 48  # the prompts of 384 rows take 24 batches, in which those that came first decode
COLUMNS = {"model": "", "weights, GB": ".1f", "rows": "d", "context": "d", "ms per step": ".2f", "bubbles": ".1%"}


def regime(checkpoint: Checkpoint, rows: int, device: str = "cuda") -> list:
    """A row of the table: means over the batches in which all rows decode."""
    load = Workload("regimes", checkpoint.name, rows, CONTEXT, NEW_TOKENS, max_running=rows, max_batch_tokens=8192)
    session = Session(load.job(checkpoint.vocab_size), synchronous("ch6"), checkpoint, device, trace=True)
    session.serve()
    decodes = typical_decodes(session.done)
    windows, bubbles = session.trace.batches(), session.trace.bubbles()
    idle = math.fsum(bubbles[number] for number in decodes)
    whole = idle + math.fsum(end - start for start, end in map(windows.get, decodes))
    step = 1e3 * whole / len(decodes)
    return [checkpoint.name, checkpoint.weight_bytes / 1e9, rows, CONTEXT, step, idle / whole]


if __name__ == "__main__":
    need_gpu()
    found = []
    for name in MODELS:
        checkpoint = Checkpoint(name)
        found += [regime(checkpoint, rows) for rows in ROWS]
    store("regimes.json", "regimes", "Bubbles of a synchronous engine with CUDA graphs", COLUMNS, found)
