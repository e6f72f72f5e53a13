"""The law of overlap (acb_minimal/trace/law.py), held to engines: steps with more and more work for the host.

The host's work is turned up while an engine serves, a synchronous one and an asynchronous one, both with their decodes
launched kernel by kernel and as graphs. K, L and H are measured where nothing was added. Prints a table; on a GPU it is
stored in law.json beside this script, elsewhere all of it is simulated.
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from acb_minimal.measure import metrics
from acb_minimal.measure.result_table import KEYS, ResultTable
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.devices import open_device
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import WORKLOADS
from acb_minimal.sim.costs import Costs
from acb_minimal.trace.law import Law
from acb_minimal.trace.steps import typical_decodes

SWEPT = ("small", "long", "wide")
HOST_WORK = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3)  # seconds added to a step
STEPS, SETTLING = 30, 18  # decode steps with each of them, of which the first are not counted: a host that is a little
# faster than the GPU is ahead of it by a whole batch only after many steps, and is then held up
SYNCHRONOUS, ASYNCHRONOUS = "ch1", "ch5"
PARTS = ("K", "L", "H", "synchronous", "by the law", "asynchronous", "L ", "by law", "gain")
COLUMNS = {"workload": "", "decodes": "", "host work": "g"} | dict.fromkeys(PARTS, ".2f")


def sweep(name: str, device: str) -> Iterator[list]:
    """Rows of the table: one workload with every amount of host work, as graphs and kernel by kernel."""
    workload = WORKLOADS[name]
    prefills = -(-workload.requests * workload.prompt_tokens // workload.max_batch_tokens)
    # Once the last prompt is in, every amount of host work has its turn; the first requests decode all the while.
    workload = workload.override(new_tokens=prefills + STEPS * (len(HOST_WORK) + 1) + SETTLING)
    checkpoint = Checkpoint(workload.model)
    costs = Costs.of(checkpoint.name, checkpoint.weight_bytes)
    as_graphs: dict[float, float] = {}
    for graphs in (True, False):
        both = []
        for chapter in (SYNCHRONOUS, ASYNCHRONOUS):
            job = workload.job(checkpoint.vocab_size)
            both.append(Session(job, chapter, checkpoint, device, Options(graphs=graphs), trace=True))
            both[-1].scheduler.host_work = host_work_of
            both[-1].serve()
        windows, bubbles = both[0].trace.batches(), both[0].trace.bubbles()
        host = statistics.median(bubbles[number] for number in settled(both, 0.0))
        for seconds in HOST_WORK:
            numbers = settled(both, seconds)
            if graphs:  # all of a graph is queued at once: its time on the GPU is K, which grows with the context
                as_graphs[seconds] = statistics.median(end - start for start, end in map(windows.get, numbers))
            more, ramp = (0.0, 0.0) if graphs else (costs.eager_gaps - costs.graph_gaps, costs.ramp)
            # Launching is never twice the same: each engine's own, in these very steps.
            waiting, ahead = (
                Law(as_graphs[seconds] + more, launching(session, numbers), host + seconds, ramp) for session in both
            )
            waited, took = (step(session, numbers) for session in both)
            times = (waiting.on_gpu, waiting.launching, waiting.host, waited, waiting.synchronous, took)
            times += (ahead.launching, ahead.asynchronous)
            decodes = "as graphs" if graphs else "one by one"
            yield [name, decodes, 1e3 * seconds, *(1e3 * time for time in times), waited / took]


def host_work_of(number: int) -> float:
    """The host work added to the step of a batch: each amount for STEPS batches, in turns."""
    return HOST_WORK[number // STEPS % len(HOST_WORK)]


def settled(sessions: list[Session], seconds: float) -> list[int]:
    """The numbers of the batches that are typical decodes of all runs, and had so much host work, as had those just
    before; each amount had one turn, since the kernels take longer from turn to turn."""
    numbers = set.intersection(*(set(typical_decodes(session.done)) for session in sessions))
    first = -(-min(numbers) // STEPS) * STEPS
    turns = range(first, first + STEPS * len(HOST_WORK))
    return [n for n in numbers if n in turns and n % STEPS >= SETTLING and host_work_of(n) == seconds]


def step(session: Session, numbers: list[int]) -> float:
    """Median seconds of the steps of these batches."""
    done = session.done
    return statistics.median(done[number].time - done[number - 1].time for number in numbers)


def launching(session: Session, numbers: list[int]) -> float:
    """Median seconds that the host takes to launch one of these batches."""
    seconds = session.trace.launching()
    return statistics.median(seconds[number] for number in numbers)


def table(rows: list[list], device: str = "auto") -> ResultTable:
    """The rows, and how far the law is off."""
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    pairs = (("synchronous", "by the law"), ("asynchronous", "by law"))
    worst = {}
    for decodes in ("as graphs", "one by one"):
        some = [row for row in found if row["decodes"] == decodes]
        worst[decodes] = max(abs(row[step] / row[law] - 1) for row in some for step, law in pairs)
    note = (
        f"ms per decode step, medians; synchronous is {SYNCHRONOUS}, asynchronous {ASYNCHRONOUS}, each with its own L. "
        f"Of decodes launched as graphs, the step that is furthest from the law is {worst['as graphs']:.1%} off; one "
        f"by one, {worst['one by one']:.1%}."
    )
    machine = open_device(device, Checkpoint(WORKLOADS[SWEPT[0]].model))
    facts = metrics.environment(machine)
    return ResultTable("The law of overlap", COLUMNS, rows, note, facts, "python docs/results/law.py")


if __name__ == "__main__":
    found = table([row for name in SWEPT for row in sweep(name, "auto")])
    Console().print(found.table())
    if "cuda" in found.environment:
        metrics.save(Path(__file__).with_suffix(".json"), "law", asdict(found), KEYS)
