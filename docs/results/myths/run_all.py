"""Runs every experiment beside it, each in a process of its own, and stores what it prints as NAME.txt. Needs a GPU."""

import subprocess
import sys
from pathlib import Path

import torch

from acb_minimal.measure.metrics import environment
from acb_minimal.run.timed import TimedCudaDevice

if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("the experiments need a CUDA GPU; torch finds none")
    facts = environment(TimedCudaDevice())
    origin = ", ".join([facts.pop("device"), facts.pop("date"), *(f"{name} {facts[name]}" for name in facts)])
    for script in sorted(set(Path(__file__).parent.glob("*.py")) - {Path(__file__)}):
        printed = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout
        script.with_suffix(".txt").write_text(f"{origin}\n{printed}")
        print(f"{script.stem}\n{printed}")
