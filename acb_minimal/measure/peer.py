"""transformers' own continuous batching on the shape of the published run: how long a step takes, what its host does.

`generate_batch` serves 32 requests of llama-3.1-8b's shape, synchronously and asynchronously, with CUDA graphs and
without, at a few lengths of what each request already has. A step is measured without a profiler, by the times that
transformers keeps of every token; its kernels in a second run under torch's profiler; and in a third, what its host
does: a thread looks every millisecond which function the serving thread is in.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from ..errors import InputError
from ..run.timed import TimedCudaDevice
from .generate_batch import EVERY, NEW_TOKENS, ROWS, Served, Setting, serve
from .metrics import environment
from .result_table import ResultTable

CONTEXTS = (128, 4096, 8000)
WHOLE = 8192  # steps of the published run
FIRST = 128  # tokens that each request has at its beginning
COLUMNS = {
    "tokens each has": ",d", "CUDA graphs": "", "asynchronous": "", "ms per step": ".2f", "kernels, ms": ".2f",
    "acb idle on its trace": "",
}  # fmt: skip
DOING = {"tokens each has": ",d", "asynchronous": "", "the host is in": "", "of its time": ".1%", "ms per step": ".2f"}
RUN = {"asynchronous": "", "seconds": ".0f", "ms per step": ".2f"}
SHOWN = 8  # functions of a setting


def peer(
    contexts: Sequence[int] = CONTEXTS,
    traces: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, ResultTable]:
    """Measures steps with CUDA graphs at all lengths, and without at the shortest.

    Args:
        contexts: tokens of each prompt, in turn; two at least.
        traces: where to write a trace for each setting of the shortest context, some tens of steps.
        progress: is told what comes next.

    Returns:
        "steps"; the "whole" run, drawn from them; and what the "host" does.

    Raises:
        InputError: there is no CUDA GPU, or there are too few lengths.
    """
    if len(set(contexts)) < 2 or min(contexts) < 1:
        raise InputError(f"contexts {', '.join(map(str, contexts))}: give two lengths or more, each at least 1")
    if not torch.cuda.is_available():
        raise InputError("transformers' continuous batching is measured on a CUDA GPU; torch finds none")
    served = []
    shortest = min(contexts)
    for context, graphs in [*((context, True) for context in sorted(contexts)), (shortest, False)]:
        progress(f"{context:,} tokens each, {'with' if graphs else 'without'} CUDA graphs")
        settings = [Setting(context, graphs, ahead) for ahead in (False, True)]
        kept = traces if context == shortest else None
        with ProcessPoolExecutor(1, get_context("spawn")) as process:  # the profiler leaves its mark on a process
            served += process.submit(serve, settings, "llama-3.1-8b", kept).result()
    return tables(served, environment(TimedCudaDevice()))


def tables(served: list[Served], environment: dict[str, str]) -> dict[str, ResultTable]:
    """The settings as tables."""
    rows = [
        [s.setting.context, _yes(s.setting.graphs), _yes(s.setting.ahead), 1e3 * s.step, 1e3 * s.kernels, s.said]
        for s in served
    ]  # fmt: skip
    with_graphs = [s for s in served if s.setting.graphs]
    note = (
        f"{ROWS} requests, {NEW_TOKENS} new tokens each; step: median, without a profiler; kernels: under it, where "
        "those of graphs run a little longer."
    )
    seconds = [whole([s for s in with_graphs if s.setting.ahead == ahead]) for ahead in (False, True)]
    drawn = (
        f"{WHOLE:,} steps with CUDA graphs, from {FIRST} tokens on: not run, but drawn from the steps that were "
        "measured, as if those between two lengths, and beyond, lay on a straight line."
    )
    doing = [
        [s.setting.context, _yes(s.setting.ahead), name, share, 1e3 * share * s.step]
        for s in with_graphs
        for name, share in s.doing[:SHOWN]
    ]
    looked = f"With CUDA graphs, decodes only; looked at every {1e3 * EVERY:.0f} ms, without a profiler."
    run = [[_yes(ahead), seconds[ahead], 1e3 * seconds[ahead] / WHOLE] for ahead in (False, True)]
    return {
        "steps": ResultTable("transformers' generate_batch", COLUMNS, rows, note, environment),
        "whole": ResultTable("What the whole run would take", RUN, run, drawn, environment),
        "host": ResultTable("Where the time of its host goes", DOING, doing, looked, environment),
    }


def whole(served: list[Served]) -> float:
    """Seconds of the published run's steps, if steps between the lengths measured lie on straight lines.

    The last line is drawn on to the end of the run.
    """
    points = sorted((s.setting.context + NEW_TOKENS / 2, s.step) for s in served)
    pairs, total = list(itertools.pairwise(points)), 0.0
    for length in range(FIRST, FIRST + WHOLE):
        (x0, y0), (x1, y1) = next((pair for pair in pairs if length <= pair[1][0]), pairs[-1])
        total += y0 + (y1 - y0) * (length - x0) / (x1 - x0)
    return total


def _yes(value: bool) -> str:
    return "yes" if value else "no"
