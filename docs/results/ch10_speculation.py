"""Chapter 10: tokens a second against how many drafts are right, synchronous and asynchronous.

    python docs/results/ch10_speculation.py          # on a GPU: makes `measured` in ch10_speculation.json anew
    python docs/results/ch10_speculation.py --sim    # on the simulator: makes `simulated` anew

The weights are random, so that no text has the repetitions by which drafts are right: how many are is a dial. Each of
three drafts counts as right with that chance, as long as those before it do. Drafting, correcting and verifying take
what they take. Forward passes of decodes are launched as graphs. Beside chapter 10, what it is with one statement moved
so that it retires each batch before it schedules the next; and both without drafts, which is chapter 5.
"""

import sys

from common import RESULTS, need_gpu
from rich.console import Console

from acb_minimal.measure.metrics import Metrics, environment
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.devices import open_device
from acb_minimal.run.engines import load_chapter, synchronous
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload

DRAFTS = 3
NEW_TOKENS = {"small": 192, "wide": 96}
PROMPT_TOKENS = 256
SHARES = (None, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of drafts; None: there are none
ENGINES = {None: (synchronous("ch5"), load_chapter("ch5")), DRAFTS: (synchronous("ch10"), load_chapter("ch10"))}
COLUMNS = {"workload": "", "drafts right, %": ".0f", "tokens a row and step": ".2f"}
COLUMNS |= {"sync: step": ".2f", "sync: tokens/s": ",.0f", "async: step": ".2f", "async: tokens/s": ",.0f"}
COLUMNS |= {"speedup": ".2f"}
NOTE = (
    f"{DRAFTS} drafts; in the first line of each workload there are none. Tokens a row and step: as counted; of drafts "
    "that are right with chance p, (1 - p^4) / (1 - p). Step: ms per decode step, medians. Tokens/s: of the whole run, "
    "prompts included. Speedup: of asynchronous tokens/s over synchronous ones."
)


def rows(name: str, device: str, **changes: int) -> list[list]:
    """Lines of the table."""
    load = workload(name).override(new_tokens=NEW_TOKENS[name], prompt_tokens=PROMPT_TOKENS, **changes)
    checkpoint = Checkpoint(load.model)
    job, found = load.job(checkpoint.vocab_size), []
    for share in SHARES:
        figures = []
        for engine in ENGINES[None if share is None else DRAFTS]:
            drafts = {} if share is None else {"speculate": DRAFTS, "acceptance": share}
            session = Session(job, engine, checkpoint, device, Options(graphs=True, **drafts))
            session.serve()
            figures.append(Metrics.of(session))
            right, steps = (getattr(session.scheduler, name, 0) for name in ("accepted", "drafted"))
        tokens = 1 + (DRAFTS * right / steps if steps else 0)
        each = [each for figure in figures for each in (figure.ms_per_decode_step, figure.tokens_per_second)]
        percent = None if share is None else 100 * share
        found.append([name, percent, tokens, *each, each[3] / each[1]])
        print(*found[-1], flush=True)
    return found


if __name__ == "__main__":
    simulated = "--sim" in sys.argv
    if not simulated:
        need_gpu()
    entry, kind = ("simulated", "sim") if simulated else ("measured", "cuda")
    device = open_device(kind, Checkpoint(workload("small").model))
    made = []
    for name in NEW_TOKENS:
        made += rows(name, kind)
        table = ResultTable(f"Speculation, {entry}", COLUMNS, made, NOTE, environment(device))
        table.save(RESULTS / "ch10_speculation.json", entry)
    Console(width=120).print(table.table())
