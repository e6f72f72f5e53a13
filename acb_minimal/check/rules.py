"""What an engine may not reach for: this package, which judges it, and torch.cuda, as it is handed one of its own.

This does not stop who is determined. It says so where somebody is mistaken, or tempted.
"""

import ast
import sys
from contextlib import AbstractContextManager
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

    Raises:
        InputError: it does; the message says in which line.
    """
    source = read_source(chapter_path(chapter))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # whoever imports it says so
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                reached = [alias.name for alias in names]
            case ast.ImportFrom(module=module, level=level):
                reached = [PACKAGE if level else module]
            case ast.Constant(value=str(text)) if id(node) not in prose:
                reached = [text]
            case _:
                continue
        if any(name.split(".")[0] == PACKAGE for name in reached):
            line = source.splitlines()[node.lineno - 1].strip()
            raise InputError(
                f"chapter {chapter!r} cannot be judged: it reaches for {PACKAGE}, which judges it, and an engine needs "
                f"nothing but the model, the scheduler and the cuda that it is handed (line {node.lineno}: {line})"
            )


def handed_only() -> AbstractContextManager:
    """Around an engine's code: it uses no torch.cuda but its own."""
    return patch.multiple(torch.cuda, **_REFUSING)


def _not_handed(name: str, real):
    """What stands in torch.cuda meanwhile: it refuses engines alone."""

    class Refusing:
        def __new__(cls, *arguments, **named):
            if lines.is_own(sys._getframe(1).f_code.co_filename):
                raise Forbidden(f"torch.cuda.{name}: use the `cuda` that the engine is handed")
            return real(*arguments, **named)

    return Refusing


_REFUSING = {name: _not_handed(name, getattr(torch.cuda, name)) for name in USED_DIRECTLY}
