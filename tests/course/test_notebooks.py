"""The notebooks run from top to bottom without a GPU and say so; as committed, they show a run on an H200."""

import ast
import importlib
import re

import pytest
import torch

from acb_minimal.run.engines import CHAPTERS, chapter_paths
from acb_minimal.run.workload import WORKLOADS

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("IPython")
from IPython.core.formatters import DisplayFormatter  # noqa: E402

from acb_minimal.course import counting, pools  # noqa: E402

NOTEBOOKS = [path.with_suffix(".ipynb") for path in chapter_paths(None).values()]
PART_ONE = NOTEBOOKS[: len(chapter_paths())]
# What is simulated on every machine says so in its source.
SIMULATED_ON_PURPOSE = re.compile(r"\bsimulate\(|\bslower_hosts\(")
SHOWS_TIMES = re.compile(
    r"\b(table|timeline|bars|host_work|left_to_gain|two_by_two|slower_hosts|held|beside|closely|answered|often|steps|waited)\("
)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
of_part_one = pytest.mark.parametrize("path", PART_ONE, ids=lambda path: path.stem)


def cells_of(path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, nbformat.NO_CONVERT).cells if cell.cell_type == kind]


def answers_of(path) -> list[str]:
    """The code in the answers to a notebook's questions."""
    (questions,) = [cell.source for cell in cells_of(path, "markdown") if cell.source.startswith("## Questions")]
    return re.findall(r"```python\n(.*?)```", questions, re.S)


def text_of(data: dict, metadata: dict, printed: str = "") -> str:
    """All text that Jupyter shows; of pictures only what they are called."""
    texts = [value for kind, value in data.items() if kind.startswith("text/")]
    alts = [str(value.get("alt")) for value in metadata.values() if isinstance(value, dict)]
    return "\n".join([printed, *texts, *alts])


def committed(cell) -> str:
    outputs = (text_of(output.get("data", {}), output.get("metadata", {}), output.get("text", ""))
               for output in cell.outputs)  # fmt: skip
    return "\n".join(outputs)


def test_every_chapter_has_a_notebook():
    assert sorted(CHAPTERS.glob("*.ipynb")) == sorted(NOTEBOOKS)


@each_notebook
def test_a_notebook_and_its_answers_use_what_there_is(path):
    sources = [cell.source for cell in cells_of(path, "code")] + answers_of(path)
    imported = set()
    for node in ast.walk(ast.parse("\n".join(sources))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert not [name.name for name in node.names if not hasattr(module, name.name)]
            imported.update(name.name for name in node.names)
    assert ({"where", "serve", "measure"} if path in PART_ONE else {"where", "changes"}) <= imported


@pytest.fixture
def smaller(monkeypatch):
    """What notebooks serve, and in how many orders, cut to a part of it."""
    for name, load in WORKLOADS.items():
        monkeypatch.setitem(WORKLOADS, name, load.override(requests=16, new_tokens=40))
    monkeypatch.setattr(pools, "LOAD", pools.LOAD.override(requests=16, max_running=16))
    monkeypatch.setattr(pools, "WHOLE", 16 * 8)
    monkeypatch.setattr(counting, "SCHEDULES", {"random": [("random", 0)]})


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@each_notebook
def test_a_notebook_runs_without_a_gpu_and_says_what_is_simulated(path, smaller):
    names, shown = {}, []
    for source in [*(cell.source for cell in cells_of(path, "code")), *answers_of(path)]:
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        value = last and eval(compile(ast.Expression(last.value), path.name, "eval"), names)
        shown.append((source, text_of(*DisplayFormatter().format(value))))
    (_, first), *others = shown
    assert "SIMULATED" in first
    assert "This ran on: simulated H200" in first
    timed = [text for source, text in others if SHOWS_TIMES.search(source)]
    assert len(timed) >= 4
    assert all("simulated" in text for text in timed)
    assert not [text for _, text in others if "WRONG" in text]


@each_notebook
def test_a_notebook_ends_in_questions_and_a_lab(path):
    *_, questions, build = (cell.source for cell in cells_of(path, "markdown"))
    assert 2 <= questions.count("<details><summary>Answer</summary>") == questions.count("</details>")
    assert build.startswith("## Now build it")
    assert "`acb lab watch " in build


@each_notebook
def test_prose_has_no_measured_figures(path):
    """Times and shares belong in outputs, where they are of the run that is shown."""
    prose = "\n".join(cell.source for cell in cells_of(path, "markdown"))
    assert not re.findall(r"\d\s*(?:ms|µs|us|s|seconds|milliseconds|tokens/s)\b", prose)
    assert not re.search(r"NVIDIA|H100|A100", prose)


@of_part_one
def test_a_committed_notebook_shows_a_run_on_an_h200(path):
    cells = cells_of(path, "code")
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "This ran on: NVIDIA H200" in committed(cells[0])
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"], cell.source
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source
        if SIMULATED_ON_PURPOSE.search(cell.source):
            assert "simulated" in committed(cell), cell.source
        else:  # a table's caption says how figures are taken here and there
            assert "simulated" not in committed(cell).replace("(simulated: mean)", ""), cell.source
        if SHOWS_TIMES.search(cell.source) and not SIMULATED_ON_PURPOSE.search(cell.source):
            assert "NVIDIA H200" in committed(cell), cell.source
    assert path.stat().st_size < 600_000
