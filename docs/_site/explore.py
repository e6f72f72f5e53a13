"""What the page that plays the engines is given: recordings of the chapters on the simulator, whole and without a line,
as a script of its own.

Whatever is recorded was run here, when the site is built. The times that the dials can be set to are measured ones,
from docs/results, or published ones.
"""

import functools
import json
from typing import Any

import widgets
from dialled import Dialled
from figures import rows, stored
from recorder import record, record_schedule

from acb_minimal.check.mutations import mutants
from acb_minimal.measure import result_table
from acb_minimal.models import counter
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths, load_chapter
from acb_minimal.run.workload import WORKLOADS, Job
from acb_minimal.sim.costs import Costs

PAIRS = [(3, 11), (98, 103), (40, 47), (7, 9)]
FULL = "ch6_cuda_graphs"  # it launches graphs by itself


@functools.cache
def checkpoint() -> Checkpoint:
    return Checkpoint("counter")


def job() -> Job:
    """Four requests, three at a time: long enough for a few steps of three decodes, with one that leaves and one that
    joins."""
    return Job([counter.prompt(a, b) for a, b in PAIRS], max_running=3, max_batch_tokens=32)


def run(engine_class: type, graphs: bool = False) -> dict[str, Any]:
    """A recording; what its times are set to makes no difference to it."""
    return record(engine_class, job(), checkpoint(), Dialled.to(10e-3, 10e-3, 1e-3, 0.0), graphs)


def costs() -> dict[str, Any]:
    """What the recordings are timed by, beside the dials, in seconds."""
    known = Dialled.to(1.0, 1.0, 1.0, 0.0)
    copy, carry = known.copy_launch, known.launch("carry_over", None)
    return {
        "shares": known.shares,
        "call": known.call,
        "launching": {"upload": copy, "download": copy, "carry_over": carry, "replay": known.replay_launch},
        "computing": {"carry_over": known.compute("carry_over", None).busy},
    }


def presets() -> list[dict[str, Any]]:
    """Settings of the dials that were measured or published: in ms, with where they are from."""
    facts = stored("law.json")["law"]["environment"]
    device = f"{facts['device']}, {facts['date']}"

    def measured(*wanted: Any) -> dict[str, float]:
        """K, L and H of a workload, so launched, with so many ms of host work."""
        law = {(row["workload"], row["decodes"], row["host work"]): row for row in rows("law.json", "law")}
        return {dial: round(law[wanted][dial], 2) for dial in "KLH"}

    made = []
    for name in ("small", "long", "wide"):
        load = WORKLOADS[name]
        told = f"{load.model}, {load.max_running} requests at a time: K, L and H of chapter 1, measured ({device})"
        dials = measured(name, "one by one", 0.0) | {"R": round(1e3 * Costs.of(load.model).ramp, 2)}
        made.append({"name": name, "says": told, **dials, "graphs": False})
    seconds, active = result_table.PUBLISHED["synchronous"]
    steps = WORKLOADS["headline"].new_tokens  # a token each for every request
    step = 1e3 * seconds / steps
    told = (
        f"Hugging Face's run of an 8B model: {seconds} s in {steps:,} steps, the GPU active for {active:.1%} "
        f"of it. K is the active time, H the rest; L is not known, and as good as nothing here"
    )
    dials = {"K": round(active * step, 2), "L": 0.01, "H": round((1 - active) * step, 2), "R": 0.0}
    made.append({"name": "published", "says": told, **dials, "graphs": False})
    told = (
        f"small with 4 ms of work added to the host's in every step, decodes launched as graphs: K and H measured, L "
        f"as it is without graphs ({device})"
    )
    dials = measured("small", "as graphs", 4.0) | {"L": measured("small", "one by one", 4.0)["L"], "R": 0.0}
    made.append({"name": "busy host", "says": told, **dials, "graphs": True})
    return made


def data() -> str:
    """The script: a constant that has it all."""
    chapters = {}
    for stem, path in chapter_paths().items():
        without = {}
        found = {row["line"]: row for row in rows("deletions.json", stem)} if stem in stored("deletions.json") else {}
        for mutant in mutants(stem):
            row, engine = found[mutant.line], mutant.engine()
            seed = row["seed"] or 0
            if all(row[what] is None for what in ("hazard in batch", "wrong token in batch", "error")):
                without[mutant.line] = {"text": mutant.text, "recording": run(engine)}
            else:
                made = record_schedule(engine, str(seed))
                without[mutant.line] = {"text": mutant.text, "recording": made, "seed": seed}
        lines = [line for _, line in widgets.lines(path)]
        chapters[stem] = {
            "lines": [{"number": line.number, "indent": line.indent, "html": line.html} for line in lines],
            "recording": run(load_chapter(stem)),
            "graphs": None if stem == FULL else run(load_chapter(stem), graphs=True),
            "without": without,
        }
    everything = {"chapters": chapters, "costs": costs(), "presets": presets()}
    return f"const EXPLORE = {json.dumps(everything, separators=(',', ':'))};\n"
