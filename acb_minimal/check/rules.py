"""What an engine may not reach for: this package, which judges it, and torch.cuda, as it is handed one of its own.

None of this stops somebody who is determined. It says so where somebody is mistaken, or tempted.
"""

import ast
import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch

import torch

from ..errors import InputError
from ..run.engines import chapter_path, read_source
from . import lines

PACKAGE = __name__.split(".")[0]
USED_DIRECTLY = (
    "CUDAGraph", "Event", "Stream", "current_stream", "default_stream", "graph", "graph_pool_handle",
    "is_current_stream_capturing", "set_stream", "stream", "synchronize",
)  # fmt: skip


class Forbidden(Exception):
    """The engine has reached for what it was not handed."""


def check_source(chapter: str) -> None:
    """Whether an engine's source reaches for this package, by an import or by its name.

    Args:
        chapter: as for `engines.chapter_path`.

    Raises:
        InputError: it does; the message says in which line.
    """
    path = chapter_path(chapter)
    source = read_source(path)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # whoever imports it says so
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                reached = any(_ours(alias.name) for alias in names)
            case ast.ImportFrom(module=module):
                reached = bool(node.level or _ours(module or ""))
            case ast.Constant(value=str(text)):
                reached = _ours(text) and id(node) not in prose
            case _:
                continue
        if reached:
            line = source.splitlines()[node.lineno - 1].strip()
            raise InputError(
                f"chapter {chapter!r} cannot be judged: it reaches for {PACKAGE}, which judges it, and an engine needs "
                f"nothing but the model, the scheduler and the cuda that it is handed (line {node.lineno}: {line})"
            )


@contextmanager
def handed_only() -> Iterator[None]:
    """Around an engine's code: it imports nothing of this package, and uses no torch.cuda but its own."""
    importing = builtins.__import__

    def guarded(name, globals=None, locals=None, fromlist=(), level=0):
        if _ours(name) and lines.is_own(sys._getframe(1).f_code.co_filename):
            raise Forbidden(f"an engine imports nothing of {PACKAGE}, which judges it")
        return importing(name, globals, locals, fromlist, level)

    with patch.object(builtins, "__import__", guarded), patch.multiple(torch.cuda, **_REFUSING):
        yield


def _not_handed(name: str, real):
    """What stands in torch.cuda meanwhile: it refuses engines alone."""

    class Refusing:
        def __new__(cls, *arguments, **named):
            if lines.is_own(sys._getframe(1).f_code.co_filename):
                raise Forbidden(f"torch.cuda.{name}: use the `cuda` that the engine is handed")
            return real(*arguments, **named)

    return Refusing


_REFUSING = {name: _not_handed(name, getattr(torch.cuda, name)) for name in USED_DIRECTLY}


def snapshot() -> dict[tuple[str, str], object]:
    """What every name in this package stands for, by module or class and name."""
    found = {}
    for module in [module for name, module in sys.modules.items() if _ours(name)]:
        for name, value in vars(module).items():
            if not isinstance(value, ModuleType) and not name.startswith("__"):
                found[module.__name__, name] = value
                if isinstance(value, type) and value.__module__ == module.__name__:
                    where = f"{value.__module__}.{value.__qualname__}"
                    found |= {(where, each): own for each, own in vars(value).items() if not each.startswith("__")}
    return found


def changed_since(before: dict[tuple[str, str], object]) -> str | None:
    """The first name of this package that stands for something else by now; None if none does."""
    after = snapshot()
    for (where, name), value in before.items():
        if after.get((where, name)) is not value:
            return f"the engine has changed `{name}` of {where}, which is none of its business"
    return None


def _ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE
