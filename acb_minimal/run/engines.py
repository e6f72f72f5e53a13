"""Engines: the chapters by name, and variants of them with something taken away or moved, to run beside them."""

import ast
import difflib
import importlib.util
import itertools
import linecache
import re
import tokenize
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..errors import InputError

# In a checkout they lie beside the package, in an installed copy inside it.
CHAPTERS = next(
    folder for above in (2, 1) if (folder := Path(__file__).parents[above] / "chapters").is_dir() or above == 1
)
PART_ONE = range(1, 7)
HUNK = r"^@@ -(\d+).* \+(\d+).* @@"  # the head of one in a unified diff
_numbers = itertools.count()


def chapter_paths(part: int | None = 1) -> dict[str, Path]:
    """The files of the course's chapters, by name, in order: of part 1, the six that lead from one to the next; of part
    2, those behind them, each of which stands beside chapter 5; or, for None, of both."""
    numbers = {int(re.match(r"ch(\d+)", path.stem)[1]): path for path in CHAPTERS.glob("ch[0-9]*.py")}
    return {path.stem: path for n, path in sorted(numbers.items()) if part in (None, 1 if n in PART_ONE else 2)}


def chapter_path(name: str) -> Path:
    """The file of a chapter, by its name ("ch1_sync"), its short name ("ch1") or its path; InputError if there is none
    of that name."""
    paths = chapter_paths(None)
    short = {stem.split("_")[0]: path for stem, path in paths.items()}
    path = Path(name) if name.endswith(".py") else paths.get(name) or short.get(name)
    if path is None or not path.is_file():
        raise InputError(f"unknown chapter {name!r}: give one of {', '.join(paths)}, or the path of a .py file")
    return path


def read_source(path: Path) -> str:
    """The text of a Python file, in the encoding that it declares; InputError if it is not in that."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None


def load_chapter(name: str) -> type:
    """The `Engine` of a chapter, which is named as for `chapter_path`; InputError if there is none, it cannot be
    imported, or its Engine is no class with a method `run`."""
    path = chapter_path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = module.Engine
    except Exception as error:
        raise InputError(f"chapter {name!r} cannot be used: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and callable(getattr(found, "run", None))):
        raise InputError(f"chapter {name!r} cannot be used: its Engine has to be a class with a method `run`")
    return found


def samples(engine_class: type) -> bool:
    """Whether an engine samples by itself, as chapter 7 does: then it needs a model with masks."""
    return hasattr(engine_class, "sample")


def copies_pages(engine_class: type) -> bool:
    """Whether an engine copies pages to host memory and back, as chapter 9 does: then it needs a model that can."""
    return hasattr(engine_class, "move")


def _asks(names: Sequence[str], engine_class: type) -> bool:
    """Whether any method of an engine has an attribute of one of these names."""
    methods = [each for kind in engine_class.__mro__ for each in vars(kind).values() if hasattr(each, "__code__")]
    return any(name in method.__code__.co_names for method in methods for name in names)


# What else an engine asks of its parts.
carries_over = partial(_asks, ["carry_over"])  # tokens that stay on the device from batch to batch: from chapter 5 on
keeps_state = partial(_asks, ["new_state"])  # the state of sampling: chapter 8
verifies = partial(_asks, ["verify", "correct"])  # drafts: chapter 10
hands_out = partial(_asks, ["query"])  # whether tokens are there, to hand them out when it likes: chapter 11


def diff(old: str, new: str) -> str:
    """The unified diff from one chapter to another, named as for `chapter_path`, without docstrings; a hunk is headed
    by the lines it begins at alone."""
    paths = [chapter_path(name) for name in (old, new)]
    sides = [code_lines(read_source(path)) for path in paths]
    lines = [list(side.values()) for side in sides]
    found = difflib.unified_diff(*lines, *(path.name for path in paths), lineterm="")

    def head(match: re.Match) -> str:
        begins = (list(side)[int(place) - 1] for side, place in zip(sides, match.groups(), strict=True))
        return "@@ -{} +{} @@".format(*begins)

    return "".join(f"{re.sub(HUNK, head, line)}\n" for line in found)


def code_lines(source: str, inner: bool = True, comments: bool = True) -> dict[int, str]:
    """The lines of a source text by number, without docstrings (unless `inner`, the module's alone) and the empty lines
    behind them; and without `comments`, or lines of nothing else. Of a text that cannot be parsed nothing counts as a
    docstring."""
    lines, hidden = source.splitlines(), set()
    try:
        nodes = list(ast.walk(ast.parse(source))) if inner else [ast.parse(source)]
    except SyntaxError:
        nodes = []
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno
            while last < len(lines) and not lines[last].strip():
                last += 1
            hidden.update(range(first, last + 1))
    kept = {number: line for number, line in enumerate(lines, 1) if number not in hidden}
    if comments:
        return kept
    return {number: text for number, line in kept.items() if (text := line.split("#")[0].rstrip())}


# Variants of a chapter, which is named as for `chapter_path`. Every line keeps its number, unless a change has more
# lines than what was there. Without what is to be changed, they are an InputError.


def without(chapter: str, *statements: str) -> type:
    """A chapter's Engine without all simple statements (those without a body) that begin with one of these texts: each
    becomes `pass`."""
    source = read_source(chapter_path(chapter))
    simple = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt) and not hasattr(node, "body")]
    begins = {node: ast.get_source_segment(source, node) for node in simple}
    taken: set[ast.stmt] = set()
    for statement in statements:
        found = [node for node, text in begins.items() if text.startswith(statement)]
        if not found:
            raise InputError(f"{chapter!r} has no simple statement that begins with {statement!r}")
        taken.update(found)
    # From the end, so that what is still to come keeps its place.
    for node in sorted(taken, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        source = replaced(source, node, "pass")
    return engine(source, f"{chapter} without {' and '.join(statements)}")


def changed(chapter: str, *changes: tuple[str, str]) -> type:
    """A chapter's Engine with changes: a text that it has exactly once, and what comes in its place."""
    source = read_source(chapter_path(chapter))
    for old, new in changes:
        if source.count(old) != 1:
            raise InputError(f"{chapter!r} has {old!r} {source.count(old)} times; a change needs it once")
        start = source.index(old)
        source = _spliced(source, start, start + len(old), new)
    return engine(source, f"{chapter} changed")


TAKES = "previous, self.in_flight = self.in_flight, None"


def synchronous(chapter: str) -> type:
    """Chapter 5 or 6 with one statement moved: a batch is retired right after it is launched, not one launch later."""
    retires = "return self.retire(previous)"
    return changed(chapter, (TAKES, "pass"), (retires, f"{TAKES}; {retires}"))


def retiring_first(chapter: str) -> type:
    """Chapter 7 with one statement moved: a batch is retired before the next is scheduled, not while that computes."""
    schedules, retires = "batch = self.scheduler.schedule()", "finished = self.retire(previous)"
    return changed(chapter, (TAKES, "pass"), (retires, "pass"), (schedules, f"{TAKES}; {retires}; {schedules}"))


def engine(source: str, name: str) -> type:
    """The class `Engine` that a source text defines; tracebacks show its lines under `name`."""
    name = f"<{name}, {next(_numbers)}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    namespace = {"__name__": name}
    exec(compile(source, name, "exec"), namespace)
    return namespace["Engine"]


def replaced(source: str, node: ast.expr | ast.stmt, text: str) -> str:
    """A source text with other text in the place of a node of its tree; every other line keeps its number."""
    lines = source.encode().splitlines(keepends=True)

    def offset(line: int, column: int) -> int:
        return len(b"".join([*lines[: line - 1], lines[line - 1][:column]]).decode())  # ast counts columns in bytes

    return _spliced(source, offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset), text)


def _spliced(source: str, start: int, end: int, text: str) -> str:
    """With `text` in place of what is from `start` to `end`; if it has fewer lines than that, empty ones follow it."""
    missing = source.count("\n", start, end) - text.count("\n")
    whole_lines = source[start:end].endswith("\n")
    rest, newline, after = ("", "", source[end:]) if whole_lines else source[end:].partition("\n")
    return source[:start] + text + rest + missing * "\n" + newline + after
