"""Experiments of notebooks: which runs are made, and which of them count."""

from types import SimpleNamespace

import pytest
import torch

from acb_minimal.course import experiments
from acb_minimal.course.experiments import two_by_two
from acb_minimal.errors import InputError

ENGINES = ["ch5, synchronous", "ch5", "ch6, synchronous", "ch6"]
MS = {"ch5, synchronous": (40, 20, 30), "ch5": (18, 16, 17), "ch6, synchronous": (15, 15, 15), "ch6": (12, 10, 11)}


@pytest.fixture
def served(monkeypatch) -> list[str]:
    """The engines that were served, on a GPU that takes MS in turn for a step; a tenth of that is a bubble."""
    engines = []

    def serve(workload, engine, device, checkpoint, options, progress):
        assert (workload.name, workload.new_tokens, device) == ("long", 48, experiments.machine().kind)
        engines.append(engine)
        ms = MS[engine][engines.count(engine) - 1]
        late = [0.5 * (number >= 5) for number in range(9)]  # of its steps, one is no usual one
        steps = [SimpleNamespace(time=number * ms / 1e3 + late[number], rows=2, decodes=True) for number in range(9)]
        bubbles = {number: ms / 1e4 for number in range(9)} | {5: 0.5}
        return SimpleNamespace(steps=steps, trace=SimpleNamespace(bubbles=lambda: bubbles))

    monkeypatch.setattr(experiments, "serve", serve)
    monkeypatch.setattr(experiments, "synchronous", lambda chapter: f"{chapter}, synchronous")
    monkeypatch.setattr(experiments, "machine", lambda: SimpleNamespace(kind="cuda", name="a GPU"))
    return engines


def test_four_engines_are_served_in_turns_and_the_run_in_the_middle_counts(served):
    table = two_by_two("long", new_tokens=48, runs=3)
    assert served == ENGINES * 3
    assert table.title == "long (llama-3.1-8b) on a GPU"
    assert table.caption == "Of 3 runs each, in turns, the one in the middle."
    _, *columns = (list(column.cells) for column in table.columns)
    assert columns == [
        ["30.00", "17.00", "15.00", "11.00"],
        ["10.00%"] * 4,
        ["0.0%", "43.3%", "50.0%", "63.3%"],
    ]


def test_one_run_of_each_says_nothing_of_runs(served):
    table = two_by_two("long", new_tokens=48)
    assert served == ENGINES
    assert table.caption is None
    assert list(table.columns[1].cells) == ["40.00", "18.00", "15.00", "12.00"]


def test_on_the_simulator_a_second_run_would_be_as_the_first(served, monkeypatch):
    monkeypatch.setattr(experiments, "machine", lambda: SimpleNamespace(kind="sim", name="a simulated GPU"))
    assert two_by_two("long", new_tokens=48, runs=3).caption is None
    assert served == ENGINES


@pytest.mark.parametrize("kind", ["cuda", "sim"])
@pytest.mark.parametrize("runs", [0, 2])
def test_runs_are_odd_in_number(served, monkeypatch, runs, kind):
    monkeypatch.setattr(experiments, "machine", lambda: SimpleNamespace(kind=kind, name="a GPU"))
    with pytest.raises(InputError, match=f"runs is {runs}; it must be an odd number"):
        two_by_two("long", new_tokens=48, runs=runs)
    assert not served


def test_streams_and_copies_are_shown_as_text():
    tables = experiments.default_stream(), experiments.pageable_copies(8)
    cells = [[list(column.cells) for column in table.columns] for table in tables]
    assert [[column.header for column in table.columns] for table in tables] == [
        ["slow kernel in", "copy in", "copy arrives after"],
        ["from", "host held for", "copy done after"],
    ]
    assert cells[0][0] == ["the default stream", "a side stream"] * 2
    assert cells[0][1] == ["the default stream", "a side stream", "a side stream", "the default stream"]
    assert cells[1][0] == ["pinned memory", "pageable memory"]
    if not torch.cuda.is_available():
        behind, beside = cells[0][2][:2], [float(cell.removesuffix(" ms")) for cell in cells[0][2][2:]]
        assert behind == ["50 ms", "50 ms"]
        assert 0 < max(beside) < 1
        assert [cell == cells[1][2][1] for cell in cells[1][1]] == [False, True]
