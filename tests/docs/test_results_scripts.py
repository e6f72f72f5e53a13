"""The scripts beside the stored figures: importing them does nothing, and without a GPU they say so in a line."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SCRIPTS = sorted(RESULTS.rglob("*.py"))
# These run anywhere, or ask for more.
OTHERS = "common", "memory_part_two", "predicted", "switches", "host", "law", "mini_sglang", "model_types", "notebook"
NEED_GPU = [path for path in SCRIPTS if path.stem not in OTHERS]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Without a GPU. Scripts import each other, as when they are run."""
    monkeypatch.syspath_prepend(str(RESULTS))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_can_be_imported_and_does_nothing_then(script, capsys):
    assert runpy.run_path(str(script))["__doc__"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("script", NEED_GPU, ids=lambda path: path.stem)
def test_a_script_that_needs_a_gpu_says_so_in_a_line(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit, match="needs? a CUDA GPU; torch finds none"):
        runpy.run_path(str(script), run_name="__main__")
