"""Chapters with something taken away or moved: what an experiment runs beside the real one."""

import ast
import itertools
import linecache

from .errors import InputError
from .run import chapter_path

_numbers = itertools.count()


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
