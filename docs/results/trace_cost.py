"""What a trace costs: new tokens a second of chapter 6 on `wide`, with a trace and without, in turns.

    python docs/results/trace_cost.py    # on a GPU: makes trace_cost.json anew
"""

import statistics

from common import need_gpu, store

from acb_minimal.measure.metrics import Metrics
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload

NAME, CHAPTER, RUNS = "wide", "ch6", 3

if __name__ == "__main__":
    need_gpu()
    load, rates = workload(NAME), {"off": [], "on": []}
    checkpoint = Checkpoint(load.model)
    for _ in range(RUNS):
        for name, found in rates.items():
            session = Session(load.job(checkpoint.vocab_size), CHAPTER, checkpoint, "cuda", trace=name == "on")
            session.serve()
            found.append(Metrics.of(session).tokens_per_second)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    title = f"Cost of a trace: {CHAPTER}, {NAME}, new tokens a second"
    columns = {"trace": "", "median": ",.0f"} | {f"run {number + 1}": ",.0f" for number in range(RUNS)}
    rows = [[name, medians[name], *found] for name, found in rates.items()]
    store("trace_cost.json", "trace", title, columns, rows, f"On / off: {medians['on'] / medians['off']:.4f}.")
