"""What a lab is: an engine to start from, what is asked for, hints, and what there is to say afterwards.

A lab is a file in builders/ or hunts/: prose, and pieces of code that take the place of others. A starter is derived
from a chapter: its text under a docstring with the task, for a bug hunt with a few places changed. This file knows
texts only; judging.py runs an engine.
"""

import difflib
import textwrap
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ...run.engines import chapter_path, code_lines

FOLDERS = {"build": "builders", "hunt": "hunts"}
FIND = """
Find the bug, and repair it with as small a change as you can, so that the engine is as fast as chapter {number}. To
compare it with the chapter line by line would be a pity.
"""
Change = tuple[str, str]  # a text that is in a source once, and what comes in its place

FOOT = """
    acb lab check            judges this engine; with --watch on every save
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


@dataclass(frozen=True)
class Lab:
    """A lab: a builder, from one chapter's engine to the next one's, or a hunt for the bug in an engine.

    Attributes:
        name: one word.
        kind: "build" or "hunt".
        title: of a builder its aim, of a hunt the symptom.
        start: the chapter whose engine it starts from.
        changes: in that engine; of a hunt, they are the bug.
        goal: the chapter that the learner's engine has to be as fast as.
        task: what is asked for, a few sentences.
        hints: from a question to nearly the line.
        others: what other right ways there are.
        found: of a hunt, what the bug is called.
        threads: of a hunt, where engines in use have had it, as "owner/repository#number".
        fix: of a hunt, the smallest change of the starter that is known; none: back to the chapter.
        answer: of a builder, changes in the chapter `goal` that make it right; none: as it is.
        waits: how often the host may wait in a step.
        streams: in how many streams upload, forward pass and download have to be.
        wins: whether it is about time or waits, and not only order.
    """

    name: str
    kind: Literal["build", "hunt"]
    title: str
    start: str
    goal: str
    task: str
    hints: tuple[str, ...]
    others: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    found: str = ""
    threads: tuple[str, ...] = ()
    fix: tuple[Change, ...] = ()
    answer: tuple[Change, ...] = ()
    waits: int | None = None
    streams: int = 1
    wins: bool = True

    @classmethod
    def read(cls, kind: Literal["build", "hunt"], name: str) -> "Lab":
        """The lab of that name."""
        kept = tomllib.loads((Path(__file__).parent / FOLDERS[kind] / f"{name}.toml").read_text())
        for changes in ("changes", "fix", "answer"):
            kept[changes] = tuple((change["old"], change["new"]) for change in kept.get(changes, ()))
        task = kept.pop("task") + (FIND.format(number=kept["goal"][2:]) if kind == "hunt" else "")
        texts = {part: tuple(map(_line, kept.pop(part))) for part in ("hints", "others")}
        return cls(name=name, kind=kind, task=_line(task), threads=tuple(kept.pop("threads", ())), **texts, **kept)

    @cached_property
    def starter(self) -> str:
        """The engine that a learner gets."""
        what = "Lab" if self.kind == "build" else "Bug hunt"
        told = textwrap.fill(self.task, 120)
        docstring = f'"""{what} {self.name}: {self.title[0].lower()}{self.title[1:]}.\n\n{told}\n{FOOT}"""\n'
        return docstring + "\n\n" + edited(code(chapter_path(self.start).read_text()), self.changes)

    @cached_property
    def solution(self) -> str:
        """An engine that passes: of a hunt, the one that takes the fewest changes of those known."""
        if self.fix:
            return edited(self.starter, self.fix)
        return edited(chapter_path(self.goal).read_text(), self.answer)

    @property
    def links(self) -> list[str]:
        """The addresses of `threads`; GitHub leads from there on, if it is a pull request."""
        return [f"https://github.com/{thread.replace('#', '/issues/')}" for thread in self.threads]


def _line(prose: str) -> str:
    """Prose as one line."""
    return " ".join(prose.split())


def edited(source: str, changes: tuple[Change, ...]) -> str:
    """A source with other text in some places.

    Raises:
        ValueError: a text is not there exactly once.
    """
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} is there {source.count(old)} times; a change needs it once")
        source = source.replace(old, new)
    return source


def code(source: str) -> str:
    """A source without its docstring; as it is if it cannot be parsed."""
    return "".join(f"{line}\n" for line in code_lines(source, inner=False).values())


def statements(source: str) -> list[str]:
    """The lines of a source without its docstrings, comments and blank lines; indents are kept."""
    return list(code_lines(source, comments=False).values())


def changed_lines(old: str, new: str) -> int:
    """How many lines differ from one source to another, comments left out; a line that was moved counts once."""
    lines = list(difflib.ndiff(statements(old), statements(new)))
    return max(sum(line.startswith(sign) for line in lines) for sign in "-+")
