"""The exercises: each solution in the notebooks is right, wrong answers are not accepted, and none raises."""

import ast
import re
from functools import cache

import pytest

from acb_minimal.course import exercises
from acb_minimal.errors import InputError
from acb_minimal.run.engines import chapter_paths

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("IPython")
pytest.importorskip("matplotlib")

CHAPTERS = {name.partition("_")[0]: path.with_suffix(".ipynb") for name, path in chapter_paths().items()}
NAMES = [f"{chapter}.{number}" for chapter in CHAPTERS for number in (1, 2, 3)]


@cache
def cells(chapter: str) -> list:
    return nbformat.read(CHAPTERS[chapter], nbformat.NO_CONVERT).cells


@cache
def namespace(chapter: str) -> dict:
    """What the notebook has defined when its exercises begin. Of its cells only imports and assignments are run."""
    names: dict = {}
    for cell in cells(chapter):
        if cell.cell_type == "code" and "answer = None" not in cell.source:
            statements = ast.parse(cell.source)
            statements.body = [node for node in statements.body if not isinstance(node, ast.Expr)]
            exec(compile(statements, chapter, "exec"), names)
    return names


def exercise(name: str) -> tuple[str, str]:
    """The cell of an exercise and its solution's code."""
    chapter, asked = name.partition(".")[0], f'check("{name}", answer'
    (cell,) = [cell.source for cell in cells(chapter) if cell.cell_type == "code" and asked in cell.source]
    (text,) = [cell.source for cell in cells(chapter) if cell.cell_type == "markdown" and asked in cell.source]
    (solution,) = re.findall(r"```python\n(.*?)```", text, re.S)
    return cell, solution


def verdict(name: str, capsys, *sources: str) -> str:
    """What is printed when these run one after another in the notebook's namespace."""
    names = dict(namespace(name.partition(".")[0]))
    for source in sources:
        exec(compile(source, name, "exec"), names)
    return capsys.readouterr().out


def with_answer(name: str, answer: str) -> str:
    return exercise(name)[0].replace("answer = None", f"answer = {answer}")


def test_there_are_three_for_each_chapter():
    assert list(exercises.EXERCISES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_s_solution_is_right(name, capsys):
    cell, solution = exercise(name)
    assert verdict(name, capsys, cell, solution) == f"{name}: not answered yet\n{name}: right\n"


WRONG = [
    ("ch1.1", "1"),
    ("ch1.1", "3"),
    ("ch1.2", "(1.0, 1.0)"),
    ("ch1.2", "tuple(reversed((small['ch1'].breakdown.step / small['ch1'].breakdown.kernels, 1.0)))"),
    ("ch1.3", "changed('ch1')"),
    ("ch1.3", "changed('ch1', ('self.slot.download()', 'self.slot.download(non_blocking=True)'))"),
    ("ch2.1", "changed('ch2')"),
    ("ch2.1", "without('ch2', 'self.h2d.synchronize')"),
    ("ch2.1", "without('ch2', 'self.compute.synchronize')"),
    ("ch2.2", "0.5"),
    ("ch2.3", "[3, 4, 5, 6, 7]"),
    ("ch2.3", "[1] * 16"),
    ("ch2.3", "[0] * 15"),
    ("ch3.1", "1.0"),
    ("ch3.2", "changed('ch3')"),
    ("ch3.2", "without('ch3', 'self.d2h.wait_event')"),
    ("ch3.2", "changed('ch3', ('self.d2h.wait_event(self.computed)', 'self.computed.synchronize()'))"),
    ("ch3.3", "changed('ch3')"),
    ("ch3.3", "without('ch3', 'self.downloaded.synchronize')"),
    ("ch4.1", "wide['ch3'].breakdown.step"),
    ("ch4.2", "0"),
    ("ch4.2", "sum(b - a + 2 <= 8 for a, b in PAIRS)"),
    ("ch4.2", "len(PAIRS)"),
    ("ch4.3", "changed('ch4')"),
    ("ch4.3", "without('ch4', 'self.slot, self.other = self.other')"),
    (
        "ch4.3",
        "changed('ch4', ('        self.slot, self.other = self.other, self.slot ', '        pass '), "
        "('            self.slot.write(batch) ', "
        "'            self.downloaded.synchronize()\\n            self.slot.write(batch) '))",
    ),
    ("ch5.1", "{'wide': 'NPU', 'small': 'GPU'}"),
    ("ch5.1", "{'wide': 'GPU', 'small': 'GPU'}"),
    ("ch5.2", "changed('ch5')"),
    ("ch5.2", "without('ch5', 'self.downloaded[slot].synchronize')"),
    ("ch5.3", "lambda ids, carry_over, tokens: ids"),
    ("ch5.3", "lambda ids, carry_over, tokens: [tokens[index] for index in carry_over]"),
    ("ch6.1", "len(decode_sizes(384))"),
    ("ch6.2", "0.0"),
    ("ch6.3", "10"),
    ("ch6.3", "100"),
]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_gets_a_hint(name, answer, capsys):
    said = verdict(name, capsys, with_answer(name, answer))
    assert said.startswith(f"{name}: not yet: ")
    assert "cannot be judged" not in said
    assert len(said.splitlines()) == 1


def test_every_exercise_has_a_wrong_answer_to_refuse():
    assert {name for name, _ in WRONG} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer", ["object()", "[]", "(float('nan'), float('nan'))", "float('nan')"])
def test_nonsense_raises_nothing_and_is_not_accepted(name, answer, capsys):
    assert verdict(name, capsys, with_answer(name, answer)).startswith(f"{name}: not yet: ")


def test_an_exercise_that_does_not_exist():
    with pytest.raises(InputError, match=r"there is no exercise 'ch7.1': the exercises are ch1.1, "):
        exercises.check("ch7.1", 1)
