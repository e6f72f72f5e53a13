"""Which lines are the engine's: those that are not of Python, of an installed library, or of this package."""

import inspect
import linecache
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import torch

from ..run.engines import CHAPTERS
from ..sim.operations import Limit

_PACKAGE = Path(__file__).parents[1]
LIBRARIES = {_PACKAGE, Path(torch.__file__).parent, *map(Path, sysconfig.get_paths().values())} - {
    Path(sysconfig.get_path(name)) for name in ("data", "scripts")
}  # those two are where everything is installed: an engine may lie there


class Told(Exception):
    """An error whose message says all, the engine's line included."""


class Line(NamedTuple):
    """A line of a source file, by its path, or what stands for one, and its number, from 1."""

    file: str
    number: int

    @property
    def text(self) -> str:
        """The line itself; empty if it cannot be found."""
        return linecache.getline(self.file, self.number).strip()

    @property
    def code(self) -> str:
        """The line without a comment."""
        return self.text.split("#")[0].strip()

    def told(self, file: str | None) -> str:
        """ "line 7"; with the name of its file, unless that is `file`."""
        return f"line {self.number}" if self.file == file else f"{Path(self.file).name}, line {self.number}"


def of_engine(frame: FrameType | None, below: CodeType | None = None) -> Line | None:
    """The innermost line of an engine that is being run, from the innermost frame of all on; what has called `below`,
    the code that runs the engine, is no engine's."""
    while frame is not None and frame.f_code is not below:
        if is_own(frame.f_code.co_filename):
            return Line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def where(error: BaseException, file: str | None) -> str:
    """The error in one line of text, with the engine's innermost line that it came through; that is told without the
    name of its file if it is in `file`."""
    if isinstance(error, Told):
        return str(error)
    ours = isinstance(error, Limit) or type(error).__module__.startswith(f"{__package__}.")
    text = " ".join((str(error) if ours else f"{type(error).__name__}: {error}").split())
    frames = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    own = [Line(*each) for each in frames if is_own(each[0])]
    return f"{text}{at(own[-1] if own else None, file)}"


def at(line: Line | None, file: str | None) -> str:
    """The line in brackets, behind what is said of it; empty if there is none."""
    return f" ({line.told(file)}: {line.text})" if line else ""


def file_of(engine_class: type) -> str | None:
    """The file that a class is written in, by its methods, whatever they are decorated with; None if it has none."""
    for member in vars(engine_class).values():
        code = getattr(inspect.unwrap(member), "__code__", None) if callable(member) else None
        if code is not None and is_own(code.co_filename):
            return code.co_filename
    return None


@cache
def is_own(file: str) -> bool:
    """Whether a file can be an engine's."""
    if file.startswith("<"):  # no file; a source that was given as text can be looked up all the same
        return file in linecache.cache
    path = Path(file)
    return path.is_relative_to(CHAPTERS) or not any(path.is_relative_to(library) for library in LIBRARIES)
