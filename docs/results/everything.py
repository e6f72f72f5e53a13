"""All that is published of a GPU, measured in a row, from one state of the code.

    python docs/results/everything.py                  # what this state of the code has not measured yet
    python docs/results/everything.py --list           # what that is, and how long it takes
    python docs/results/everything.py --minutes 9      # as many parts as should be done by then
    python docs/results/everything.py small ch7        # these, measured or not

A part that is done is in everything.json, with the state of the code, the GPU and the date, so that this can be stopped
and goes on where it was, on another machine too. A part that fails is told, and the next one begins. mini-sglang needs
its own checkout and is not among them (mini_sglang.py), nor are several GPUs (ranks.py).
"""

import argparse
import datetime
import hashlib
import json
import shlex
import subprocess
import sys
import time

from common import RESULTS, need_gpu
from rich.console import Console

from acb_minimal.measure.metrics import environment
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.run.timed import TimedCudaDevice

ROOT = RESULTS.parents[1]
KEPT = RESULTS / "everything.json"
COMPARE = "acb compare --workload {} --runs 3 --json docs/results/h200.json --traces docs/results/traces"
NOTEBOOKS = sorted((ROOT / "chapters").glob("*.ipynb"), key=lambda path: int(path.name[2:].split("_")[0]))
# By name, minutes that it takes on an H200 and the command. What others rest on comes first.
PARTS = {
    "small": (3, COMPARE.format("small")),
    "long": (4, COMPARE.format("long")),
    "wide": (7, COMPARE.format("wide")),
    "published": (9, "acb compare --workload headline --chapter ch1 --chapter ch6 --graphs --host-work 8.8 "
                     "--no-kernels --json docs/results/published.json"),
    "headline": (2, "acb compare --workload headline --chapter ch6 --compile --no-kernels "
                    "--json docs/results/headline-compiled.json"),
    "law": (5, "python docs/results/law.py"),
    "calibrate": (4, "python docs/results/calibrate.py"),
    "ch7": (2, "python docs/results/ch7_grammar.py"),
    "ch8": (2, "python docs/results/ch8_sampling.py"),
    "ch9": (5, "python docs/results/ch9_preemption.py"),
    "ch10": (3, "python docs/results/ch10_speculation.py"),
    **{f"latency-{name}": (minutes, f"python docs/results/latency.py {name}")
       for name, minutes in (("derived", 4), ("chapters", 4), ("rates", 3))},
    **{path.stem.split("_")[0] + "-notebook": (2, f"python docs/results/notebook.py chapters/{path.name}")
       for path in NOTEBOOKS},
    "roofline": (3, "python docs/results/roofline.py"),
    "regimes": (4, "python docs/results/regimes.py"),
    "peer": (5, "python docs/results/peer.py"),
    "memory": (2, "python docs/results/memory.py"),
    "attention": (1, "python docs/results/attention.py"),
    "host": (1, "python docs/results/host.py"),
    "trace_cost": (3, "python docs/results/trace_cost.py"),
}  # fmt: skip
MEASURING = ("run", "measure")
COLUMNS = {"part": "", "seconds": ".0f", "date": "", "GPU": "", "code": "", "command": ""}


def state_of_code() -> str:
    """Eight digits for the Python that figures of a GPU hang on: engines, and what runs and measures them."""
    folders = (ROOT / "chapters", ROOT / "acb_minimal", *(ROOT / "acb_minimal" / name for name in MEASURING))
    files = sorted(path for folder in folders for path in folder.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


def gpu() -> str:
    """Which GPU this is: the beginning of its own number."""
    told = subprocess.run(["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True)
    return told.stdout.removeprefix("GPU-")[:8]


def rows() -> list[list]:
    """Of the table so far."""
    return json.loads(KEPT.read_text())["runs"]["rows"] if KEPT.exists() else []


def measure(name: str, code: str) -> bool:
    """Runs a part, and stores that it has been; says whether it was right."""
    _, command = PARTS[name]
    print(f"--- {name}: {command}", flush=True)
    words, started = shlex.split(command), time.monotonic()
    words[:1] = [sys.executable, "-m", "acb_minimal.cli"] if words[0] == "acb" else [sys.executable]
    if subprocess.run(words, cwd=ROOT).returncode:
        print(f"--- {name} failed", flush=True)
        return False
    done = [name, time.monotonic() - started, f"{datetime.date.today()}", gpu(), code, command]
    others = [row for row in rows() if row[0] != name]
    made = sorted([*others, done], key=lambda row: list(PARTS).index(row[0]))
    title, note = "What was measured when", "Code: the state of the engines, and of what runs, times and measures them."
    ResultTable(title, COLUMNS, made, note, environment(TimedCudaDevice())).save(KEPT, "runs")
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    asked, code, begun = parser.parse_args(), state_of_code(), time.monotonic()
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: give some of {', '.join(PARTS)}")
    have = {row[0] for row in rows() if row[4] == code}
    todo = asked.parts or [name for name in PARTS if name not in have]
    if asked.list:
        for name in todo:
            Console(soft_wrap=True).print(f"{name:16} {PARTS[name][0]:3} min  {PARTS[name][1]}", highlight=False)
        sys.exit()
    need_gpu()
    failed = []
    for name in todo:
        if (time.monotonic() - begun) / 60 + PARTS[name][0] <= asked.minutes and not measure(name, code):
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
