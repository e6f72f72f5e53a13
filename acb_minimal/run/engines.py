"""Engines: the chapters by name, and variants of them with something taken away or moved, to run beside them."""

import ast
import difflib
import importlib.util
import itertools
import linecache
from pathlib import Path

from ..errors import InputError

# In a checkout they lie beside the package, in an installed copy inside it.
CHAPTERS = next(
    folder for above in (2, 1) if (folder := Path(__file__).parents[above] / "chapters").is_dir() or above == 1
)
_numbers = itertools.count()


def chapter_paths() -> dict[str, Path]:
    """The course's chapters, by name, in order."""
    return {path.stem: path for path in sorted(CHAPTERS.glob("ch[0-9]*.py"))}


def chapter_path(name: str) -> Path:
    """The file of a chapter: by name ("ch1_sync"), short name ("ch1") or path. Raises InputError."""
    paths = chapter_paths()
    short = {stem.split("_")[0]: path for stem, path in paths.items()}
    path = Path(name) if name.endswith(".py") else paths.get(name) or short.get(name)
    if path is None or not path.is_file():
        raise InputError(f"unknown chapter {name!r}: give one of {', '.join(paths)}, or the path of a .py file")
    return path


def load_chapter(name: str) -> type:
    """The `Engine` of a chapter. Raises InputError if there is no such chapter or it cannot be imported."""
    path = chapter_path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.Engine
    except Exception as error:
        raise InputError(f"chapter {name!r} cannot be used: {type(error).__name__}: {error}") from error


def diff(old: str, new: str) -> str:
    """The unified diff from one chapter to another, each by name, short name or path.

    Raises:
        InputError: there is no such chapter.
    """
    paths = [chapter_path(name) for name in (old, new)]
    lines = [path.read_text().splitlines(keepends=True) for path in paths]
    return "".join(difflib.unified_diff(*lines, *(path.name for path in paths)))


def without(chapter: str, *statements: str) -> type:
    """The chapter's Engine without every statement that begins with one of `statements`.

    A simple statement becomes `pass`; of a `with` statement, given as "with ...", the body stays. Raises InputError if
    a statement does not occur.
    """
    source = chapter_path(chapter).read_text()
    tree = ast.parse(source)
    cut = _Cut(source, statements)
    tree = ast.fix_missing_locations(cut.visit(tree))
    for statement in statements:
        if statement not in cut.found:
            raise InputError(f"{chapter!r} has no statement that begins with {statement!r}")
    return engine(ast.unparse(tree), f"{chapter} without {' and '.join(statements)}")


def changed(chapter: str, *changes: tuple[str, str]) -> type:
    """The chapter's Engine with the text of each (old, new) replaced. Raises InputError unless `old` occurs once."""
    source = chapter_path(chapter).read_text()
    for old, new in changes:
        if source.count(old) != 1:
            raise InputError(f"{chapter!r} has {old!r} {source.count(old)} times; a change needs it once")
        source = source.replace(old, new)
    return engine(source, f"{chapter} changed")


def synchronous(chapter: str) -> type:
    """Chapter 5 or 6 with one line moved: a batch is retired right after it is launched, not one launch later."""
    line = "        previous, self.in_flight = self.in_flight, None\n"
    launch = "            self.launch(batch)\n"
    return changed(chapter, (line, ""), (launch, launch + line))


def engine(source: str, name: str) -> type:
    """The class `Engine` that `source` defines; tracebacks show its lines under `name`."""
    name = f"<{name}, {next(_numbers)}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    namespace = {"__name__": name}
    exec(compile(source, name, "exec"), namespace)
    return namespace["Engine"]


class _Cut(ast.NodeTransformer):
    def __init__(self, source: str, statements: tuple[str, ...]):
        self.source, self.statements, self.found = source, statements, set()

    def visit(self, node: ast.AST):
        node = self.generic_visit(node)
        if not isinstance(node, ast.stmt):
            return node
        text = ast.get_source_segment(self.source, node)
        begins = [statement for statement in self.statements if text.startswith(statement)]
        if not begins:
            return node
        self.found.update(begins)
        return node.body if isinstance(node, ast.With) else ast.copy_location(ast.Pass(), node)
