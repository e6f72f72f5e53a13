"""What those wait who ask: requests that arrive at random, at several rates.

    python docs/results/latency.py                  # on a GPU
    python docs/results/latency.py --sim            # on the simulator
    python docs/results/latency.py derived --sim    # one of its tables

Either way it replaces its own entries of latency.json; those of the simulator are called so. It makes

- `derived`: how much longer the first token takes where batches overlap, beside K - 1.5 H. The engine is chapter 5, and
  chapter 5 with each batch retired right after its launch; decodes are launched as graphs, and prompts are one token,
  so that every batch is like any other. H is the difference of their steps.
- `chapters`: chapters as they are, and with decodes launched as graphs; at three rates.
- `rates`: the same at more rates, for the picture.
"""

import itertools
import sys
from functools import cache

from common import need_gpu, store

from acb_minimal.measure.latency import of_session
from acb_minimal.measure.metrics import Metrics
from acb_minimal.run.arrivals import Arrivals
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import load_chapter, synchronous
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.timed import Machine
from acb_minimal.run.workload import Workload, workload

DERIVED = workload("long").override(requests=250, prompt_tokens=1, new_tokens=64, max_running=96)
DERIVED_RATES, HOST_WORK = (20.0, 40.0, 80.0), (0.0, 2e-3, 4e-3)
LOAD = workload("small").override(requests=100, prompt_tokens=512, new_tokens=64, max_running=64)
# What launches decodes, bookkeeping added to a step in seconds, and the chapters.
WAYS = {
    "kernel by kernel": (False, 0.0, ("ch1", "ch5", "ch11")),
    "as graphs": (True, 0.0, ("ch1", "ch5", "ch6", "ch11")),
    "as graphs, 2 ms more on the host": (True, 2e-3, ("ch1", "ch5", "ch6", "ch11")),
}
THREE, MORE = (16.0, 32.0, 48.0), (8.0, 16.0, 24.0, 32.0, 48.0, 60.0)
PICTURED = "as graphs, 2 ms more on the host"
WAITS = ("TTFT", "TTFT p99", "TPOT", "ITL p99", "E2EL")
NOTE = (
    "ms. TTFT from the arrival of a request to its first token, TPOT from there to the last by token, ITL from a token "
    "to the next, E2EL from the arrival to the last; medians but for p99. Poisson arrivals, the same for all."
)
model = cache(Checkpoint)  # whose weights are made once


def serve(load: Workload, engine: str | type, rate: float, options: dict, device: str) -> Session:
    """A session that has served the load, arriving at a rate."""
    checkpoint = model(load.model)
    made = Options(arrivals=Arrivals(rate=rate), **options)
    session = Session(load.job(checkpoint.vocab_size), engine, checkpoint, device, made)
    session.serve()
    return session


def derived(device: str) -> tuple[list[list], Machine]:
    """A row for each rate and amount of host work."""
    rows = []
    for rate in DERIVED_RATES:
        for work in HOST_WORK:
            engines = synchronous("ch5"), load_chapter("ch5")
            options = {"graphs": True, "host_work": work}
            runs = [serve(DERIVED, engine, rate, options, device) for engine in engines]
            steps = [Metrics.of(run).ms_per_decode_step for run in runs]
            waits = [1e3 * of_session(run).ttft.mean for run in runs]
            k, h = steps[1], steps[0] - steps[1]  # where the host takes less than the GPU, a step is K
            rows.append([rate, k, h, *waits, waits[1] - waits[0], k - 1.5 * h])
            print(*rows[-1], flush=True)
    return rows, runs[0].device


@cache
def waited(way: str, rate: float, device: str) -> tuple[list[list], Machine]:
    """A row for each chapter."""
    graphs, host_work, chapters = WAYS[way]
    rows = []
    for chapter in chapters:
        session = serve(LOAD, chapter, rate, {"graphs": graphs, "host_work": host_work}, device)
        found = of_session(session)
        spreads = found.ttft.median, found.ttft.p99, found.tpot.median, found.itl.p99, found.e2el.median
        rows.append([way, rate, chapter, *(1e3 * seconds for seconds in spreads), found.requests_per_second])
        print(*rows[-1], flush=True)
    return rows, session.device


def make_derived(device: str) -> None:
    rows, machine = derived(device)
    columns = {"requests/s": ".0f", "K": ".2f", "H": ".2f", "TTFT, in turns": ".2f", "TTFT, overlapped": ".2f",
               "longer by": ".2f", "K - 1.5 H": ".2f"}  # fmt: skip
    note = "ms, means. K: a step where batches overlap; H: what it takes longer where they do not."
    store("latency.json", "derived", "First tokens, batches in turns and overlapped", columns, rows, note, machine)


def make_waits(name: str, ways: list[str], rates: tuple[float, ...], device: str) -> None:
    columns = {"decodes": "", "requests/s": ".0f", "chapter": ""} | dict.fromkeys(WAITS, ".1f") | {"served/s": ".1f"}
    rows = []
    for way, rate in itertools.product(ways, rates):
        added, machine = waited(way, rate, device)
        rows += added
        store("latency.json", name, "What requests wait", columns, rows, NOTE, machine)


MADE = {
    "derived": make_derived,
    "chapters": lambda device: make_waits("chapters", list(WAYS), THREE, device),
    "rates": lambda device: make_waits("rates", [PICTURED], MORE, device),
}

if __name__ == "__main__":
    device = "sim" if "--sim" in sys.argv else "cuda"
    if device == "cuda":
        need_gpu()
    asked = [name for name in sys.argv[1:] if name != "--sim"]
    for name in asked or MADE:
        MADE[name](device)
