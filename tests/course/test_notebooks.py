"""The notebooks run from top to bottom without a GPU and say so; as committed, they show a run on an H200."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch

from acb_minimal.run.engines import CHAPTERS, chapter_paths

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
from jupyter_client.kernelspec import KernelSpec  # noqa: E402
from jupyter_client.manager import AsyncKernelManager  # noqa: E402

NOTEBOOKS = [path.with_suffix(".ipynb") for path in chapter_paths().values()]
COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
# What is simulated on every machine says so in its source.
SIMULATED_ON_PURPOSE = re.compile(r"\bsimulate\(|\bslower_hosts?\(")
SHOWS_TIMES = re.compile(r"\b(table|timeline|bars|host_work|left_to_gain|two_by_two|slower_hosts)\(")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


class ThisPython(AsyncKernelManager):
    """A kernel of the interpreter that runs the tests, whatever Jupyter has installed under the name python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(argv=COMMAND, display_name="Python 3", language="python")


def text_of(cell) -> str:
    """All text in a cell's outputs; of pictures only what they are called."""
    texts = []
    for output in cell.get("outputs", []):
        texts.append(output.get("text", ""))
        texts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
        texts += [str(value.get("alt")) for value in output.get("metadata", {}).values() if isinstance(value, dict)]
    return "\n".join(texts)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_chapter_has_a_notebook():
    assert all(path.is_file() for path in NOTEBOOKS)
    assert sorted(CHAPTERS.glob("*.ipynb")) == NOTEBOOKS


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@each_notebook
def test_a_notebook_runs_without_a_gpu_and_says_what_is_simulated(path, monkeypatch):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    for cell in code_cells(notebook):
        cell.outputs = []
    folder = {"metadata": {"path": str(Path(path).parent)}}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_manager_class=ThisPython, resources=folder)
    client.execute()  # raises for any error
    first, *others = code_cells(notebook)
    assert "SIMULATED" in text_of(first)
    assert "This ran on: simulated H200" in text_of(first)
    timed = [cell for cell in others if SHOWS_TIMES.search(cell.source)]
    assert len(timed) >= 4
    for cell in timed:
        assert "simulated" in text_of(cell), cell.source
    for cell in others:
        assert "WRONG" not in text_of(cell), cell.source


@each_notebook
def test_a_notebook_ends_in_three_exercises_with_solutions(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    chapter = path.stem.partition("_")[0]
    asked = re.findall(r'^check\("(.*?)", answer', "\n".join(cell.source for cell in code_cells(notebook)), re.M)
    assert asked == [f"{chapter}.{number}" for number in (1, 2, 3)]
    assert sum("<summary>A solution</summary>" in cell.source for cell in notebook.cells) == 3


@each_notebook
def test_prose_has_no_measured_figures(path):
    """Times and shares belong in outputs, where they are of the run that is shown."""
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.findall(r"\d\s*(?:ms|µs|us|s|seconds|milliseconds|tokens/s)\b", prose)
    assert not re.search(r"NVIDIA|H100|A100", prose)


@each_notebook
def test_a_committed_notebook_shows_a_run_on_an_h200(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "This ran on: NVIDIA H200" in text_of(cells[0])
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"], cell.source
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source
        if SIMULATED_ON_PURPOSE.search(cell.source):
            assert "simulated" in text_of(cell), cell.source
        else:  # a table's caption says how figures are taken here and there
            assert "simulated" not in text_of(cell).replace("(simulated: mean)", ""), cell.source
        if SHOWS_TIMES.search(cell.source) and not SIMULATED_ON_PURPOSE.search(cell.source):
            assert "NVIDIA H200" in text_of(cell), cell.source
    assert path.stat().st_size < 600_000
