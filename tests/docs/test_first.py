"""The run that the README and the home page open with is what the command prints now."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("first", ROOT / "docs" / "_site" / "first.py")
spec.loader.exec_module(first := importlib.util.module_from_spec(spec))


def test_the_readme_s_first_run_is_what_acb_compare_prints():
    """Line by line, in this order. Left out are answers, and the table, which has the date."""
    shown = [line for line in first.block().splitlines() if line]
    environment = os.environ | {"COLUMNS": "80", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "acb_minimal.cli", "compare"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    rest = iter(printed)
    missing = [line for line in shown if line not in rest]
    assert not missing, f"not printed, or not in this order: {missing[0]!r}"
    bars = [line for line in printed if line.endswith("x") and "█" in line]
    assert len(bars) == len(first.steps()) == 6
    assert set(bars) <= set(shown)


def test_the_readme_s_speed_up_is_that_of_its_bars():
    steps = list(first.steps().values())
    assert f"a speedup of {steps[0] / steps[-1]:.2f}" in " ".join(first.README.read_text().split())
