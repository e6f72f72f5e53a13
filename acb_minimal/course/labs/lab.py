"""What a lab is: an engine to start from, what is asked for, hints, and what there is to say afterwards.

A lab is a folder in chapters/labs: `starter.py`, whose docstring is the task; `lab.toml`, what the judge asks for,
hints and other ways; and `solution.py`, unless that is the chapter it leads to. This file knows texts only; judging.py
runs an engine.
"""

import ast
import difflib
import re
import textwrap
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

from ...errors import InputError
from ...run.engines import CHAPTERS, chapter_path, code_lines

FOLDER = CHAPTERS / "labs"
BUILDERS = (
    "batch", "streams", "events", "marks", "swap", "ahead", "slots", "carry", "graphs", "masks", "held", "counts",
    "halves", "berths", "place", "truth", "reserve", "ready", "glance",
)  # fmt: skip
HUNTS = (
    "haste", "idle", "late", "lucky", "scramble", "scarce", "stutter", "loop", "early", "unseen", "blank", "squared",
    "vault", "hurry", "behind", "beyond", "asked", "gone",
)  # fmt: skip
NAME = re.compile(r"[^\W\d]\w*")
TELLING = 3  # commented lines of a solution that nobody writes word for word


@dataclass(frozen=True)
class Way:
    """Another right way."""

    says: str
    source: str | None  # an engine that goes it; None if it is advice alone

    @classmethod
    def read(cls, lab: str, solution: str, says: str, changes: list[tuple[str, str]] = ()) -> "Way":
        """A way that a lab's file tells, if need be as changes in the solution."""
        says = _line(says)
        if not changes:
            return cls(says, None)
        told = textwrap.fill(f'"""Lab {lab}, another way: {says}', 117) + '"""'
        return cls(says, "\n".join([told, "", "", *code_lines(edited(solution, changes), inner=False).values(), ""]))


@dataclass(frozen=True)
class Lab:
    """A lab: a builder, from one chapter's engine to the next one's, or a hunt for the bug in an engine. What the judge
    asks for besides order and right tokens is at its end."""

    name: str
    kind: Literal["build", "hunt"]
    title: str  # of a builder its aim, of a hunt the symptom
    task: str
    starter: str  # the engine that a learner gets
    solution: str  # an engine that passes; of a hunt, with the smallest change known
    goal: str  # the chapter that the learner's engine has to be as fast as; empty: as fast as the solution
    hints: tuple[str, ...]  # from a question to nearly the line
    others: tuple[Way, ...]
    start: str = ""  # of a builder, the chapter that it comes from
    found: str = ""  # of a hunt, what the bug is called
    threads: tuple[str, ...] = ()  # of a hunt, where engines in use have had it, as "owner/repository#number"
    one_forward: bool = False  # a step may have no more than one forward pass
    waits: int | None = None  # how often the host may wait in a step
    streams: int = 1  # that upload, forward pass and download have to be in
    slots: int = 1  # that the batches have to take turns with
    hidden: tuple[str, ...] = ()  # spans of host work for the next batch that have to lie beside a batch on the GPU
    reserve: bool = False  # the engine says how many positions to reserve for drafts, and may say no more than it needs
    firsts: bool = False  # first tokens have to be handed out as soon as by the goal

    @classmethod
    def read(cls, name: str) -> "Lab":
        """The lab of that name."""
        folder = FOLDER / name
        kept = tomllib.loads((folder / "lab.toml").read_text())
        starter = (folder / "starter.py").read_text()
        head, *task, _ = ast.get_docstring(ast.parse(starter)).split("\n\n")
        title = head.partition(": ")[2].removesuffix(".")
        own = folder / "solution.py"
        solution = (own if own.is_file() else chapter_path(kept["goal"])).read_text()
        kept["others"] = tuple(Way.read(name, solution, **way) for way in kept["others"])
        kept["hints"] = tuple(map(_line, kept["hints"]))
        kept |= {part: tuple(kept.get(part, ())) for part in ("threads", "hidden")}
        title, task = title[0].upper() + title[1:], _line(" ".join(task))
        return cls(name=name, title=title, task=task, starter=starter, solution=solution, **kept)

    @property
    def links(self) -> list[str]:
        """The addresses of `threads`; GitHub leads from there on, if it is a pull request."""
        return [f"https://github.com/{thread.replace('#', '/issues/')}" for thread in self.threads]

    @property
    def goal_name(self) -> str:
        """What to call the engine that a learner's has to be as fast as."""
        return chapter_path(self.goal).stem if self.goal else "the solution"

    def copied(self, source: str) -> bool:
        """Whether an engine is the chapter's file or the solution's, or has their comments word for word."""
        files = [self.solution, *([chapter_path(self.goal).read_text()] if self.goal else [])]
        told = [{line for line in code_lines(text).values() if "#" in line} for text in (*files, self.starter, source)]
        *answers, starter, mine = told
        new = [answer - starter for answer in answers]
        docstring, *texts = [ast.get_docstring(ast.parse(text)) for text in (source, *files)]
        known = docstring is not None and docstring in texts
        return known or any(len(lines) >= TELLING and lines <= mine for lines in new)


def edited(source: str, changes: list[tuple[str, str]]) -> str:
    """A source with other text in some places.

    Raises:
        ValueError: a text is not there exactly once.
    """
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} is there {source.count(old)} times; a change needs it once")
        source = source.replace(old, new)
    return source


def changed_lines(old: str, new: str) -> int:
    """How many lines differ from one source to another, comments left out; a line that was moved counts once."""
    lines = list(difflib.ndiff(*(list(code_lines(text, comments=False).values()) for text in (old, new))))
    return max(sum(line.startswith(sign) for line in lines) for sign in "-+")


def difference(mine: str, theirs: str) -> str:
    """The diff from one engine to another, without docstrings, comments and names that are only called otherwise; empty
    if nothing else differs."""
    old, new = (_plain(text) for text in (mine, theirs))
    old = _renamed(old, new)
    return "\n".join(list(difflib.unified_diff(old, new, n=1, lineterm=""))[2:])


def _plain(source: str) -> list[str]:
    """The lines of a source as Python itself would write it, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [line for line in ast.unparse(tree).splitlines() if line]


def _renamed(mine: list[str], theirs: list[str]) -> list[str]:
    """With their name for each that only `mine` has, where it stands in lines that are alike but for names."""
    masked = [[NAME.sub("_", line) for line in lines] for lines in (mine, theirs)]
    ours, known = (set(NAME.findall("\n".join(lines))) for lines in (mine, theirs))
    pairs: dict[str, Counter[str]] = defaultdict(Counter)
    for first, second, size in difflib.SequenceMatcher(None, *masked, False).get_matching_blocks():
        for old, new in zip(mine[first : first + size], theirs[second : second + size], strict=True):
            for name, other in zip(NAME.findall(old), NAME.findall(new), strict=True):
                if name not in known and other not in ours:
                    pairs[name][other] += 1
    names = {name: counts.most_common(1)[0][0] for name, counts in pairs.items()}
    if len(set(names.values())) < len(names):  # two of mine for one of theirs: no mere renaming
        return mine
    return [NAME.sub(lambda match: names.get(match[0], match[0]), line) for line in mine]


def _line(prose: str) -> str:
    """Prose as one line."""
    return " ".join(prose.split())


LABS = {name: Lab.read(name) for name in BUILDERS + HUNTS}


def find(name: str) -> Lab:
    """The lab of that name.

    Raises:
        InputError: there is none.
    """
    if name not in LABS:
        raise InputError(f"unknown lab {name!r}: the labs are {', '.join(LABS)}")
    return LABS[name]
