"""The chapters as a course: one contract, short steps."""

import ast
import difflib
import inspect
import random
from itertools import pairwise

import pytest

from acb_minimal import model
from acb_minimal.models import counter
from acb_minimal.run import engines
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths, code_lines, load_chapter
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.cuda import CUDAGraph
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import named

CHAPTERS, ALL = chapter_paths(), chapter_paths(None)
PART_TWO = chapter_paths(2)


def test_there_are_six_and_part_two_is_listed_behind_them_by_number(tmp_path, monkeypatch):
    assert len(CHAPTERS) == 6
    assert [*CHAPTERS, *PART_TWO] == list(ALL)
    for name in ("ch10_b", "ch9_a", "ch6_c", "ch1_d"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(engines, "CHAPTERS", tmp_path)
    assert list(chapter_paths(None)) == ["ch1_d", "ch6_c", "ch9_a", "ch10_b"]
    assert list(chapter_paths(2)) == ["ch9_a", "ch10_b"]


@pytest.mark.parametrize("name", ALL)
def test_a_chapter_is_one_class_that_imports_nothing(name):
    source = ALL[name].read_text()
    tree = ast.parse(source)
    assert [type(node) for node in tree.body] == [ast.Expr, ast.ClassDef]  # the docstring and the engine
    assert tree.body[1].bases == []
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(source.splitlines()) <= 120
    for word in ("What changes", "What it buys", "not buy") if name != "ch1_sync" else ("does not do",):
        assert word in ast.get_docstring(tree)


def test_methods_keep_their_names_and_order():
    names = [list(vars(load_chapter(name))) for name in CHAPTERS]
    methods = [[name for name in names if inspect.isfunction(vars(load_chapter(chapter)).get(name))]
               for chapter, names in zip(CHAPTERS, names, strict=True)]  # fmt: skip
    assert methods[:3] == [["__init__", "run", "step"]] * 3
    assert methods[3:] == [["__init__", "run", "step", "launch", "retire"]] * 3


@pytest.mark.parametrize(("old", "new"), list(pairwise(CHAPTERS)))
def test_a_step_is_short(old, new):
    codes = (list(code_lines(CHAPTERS[name].read_text(), inner=False).values()) for name in (old, new))
    assert changed_lines(*codes) <= 40


@pytest.mark.parametrize("new", PART_TWO)
def test_a_chapter_of_part_two_stands_beside_chapter_5(new):
    five, own = (vars(load_chapter(name)) for name in ("ch5_carry_over", new))
    assert [name for name in own if name in five] == list(five)  # names and order, whatever is between them
    codes = (list(code_lines(ALL[name].read_text(), inner=False).values()) for name in ("ch5_carry_over", new))
    assert changed_lines(*codes) <= 40


def changed_lines(old: list[str], new: list[str]) -> int:
    return sum(line[0] in "+-" for line in difflib.ndiff(old, new))


CHECKPOINT = Checkpoint("counter")
_rng = random.Random(0)
PAIRS = [(a, a + _rng.randint(0, 12)) for a in _rng.choices(range(900), k=10)]


def right(chapter: str, policy: str, seed: int) -> bool:
    """Whether a chapter counts as it should under a policy; breaking down is as wrong as counting wrong."""
    device = SimulatedDevice(Costs.of("counter"), named(policy, seed))
    prompts = [counter.prompt(*pair) for pair in PAIRS]
    session = Session(Job(prompts, max_running=3, max_batch_tokens=6, page_size=4), chapter, CHECKPOINT, device)
    try:
        texts = {completion.id: completion.text for completion in session.run()}
    except Exception:
        return False
    return texts == {str(number): counter.answer(*pair) for number, pair in enumerate(PAIRS)}


def test_a_batch_size_without_a_graph_runs_eagerly(monkeypatch):
    """Graphs for 2 rows only: batches of 1 are padded to 2, batches of 3 find none."""
    replays = []
    monkeypatch.setattr(model, "decode_sizes", lambda largest: [2])
    replay = CUDAGraph.replay
    monkeypatch.setattr(CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    assert right("ch6", "lazy", 0)
    assert len(set(replays)) == 2  # one graph for each slot, and both were used


def test_a_forward_pass_keeps_the_shape_it_was_launched_with():
    """As a kernel does its arguments; only what lies at the addresses can still change."""
    device = SimulatedDevice(Costs.of("counter"), named("lazy"))
    session = Session(Job([counter.prompt(3, 9)]), "ch2", CHECKPOINT, device)
    made = session.load_model()
    slot = made.new_slot()
    slot.pad(1)
    slot.upload()
    slot.device_tokens.fill_(-1)
    made.forward(slot)
    slot.pad(4)
    session.device.cuda.synchronize()
    assert [token >= 0 for token in slot.device_tokens[:4].tolist()] == [True, False, False, False]
    made.close()
