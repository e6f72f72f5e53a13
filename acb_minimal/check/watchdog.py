"""What ends an engine's run before its time, and the process of its own that it has: whatever it does, there is a word.

A watchdog ends what takes too long with an exception in the main thread. Code that is written in C holds that off, and
an engine can catch it or ignore signals. So where an engine has a process of its own, a thread that needs no Python
(faulthandler's) ends that a little later, and writes down in which line it was.
"""

import faulthandler
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, BinaryIO, NoReturn, TypeVar

import torch

from ..errors import InputError
from . import lines
from .lines import Line

T = TypeVar("T")
GRACE = 2.0  # seconds that an engine gets to end by an exception, before its process is ended
_notes: BinaryIO | None = None  # where faulthandler writes, in an engine's process


def _say(kind: str, value: Any) -> None:
    """Tells who has begun an engine's process; there is another one in such a process."""


class Stopped(BaseException):
    """Raised by a policy that has seen enough of a schedule. Like the others no Exception: engines may not catch it."""


class Refusal(BaseException):
    """The engine, or the schedule, cannot be judged; the message says why."""


class Broken(BaseException):
    """The engine has done something wrong, maybe in a batch, and maybe it is known `why`; the message says what."""

    def __init__(self, what: str, batch_number: int | None = None, why: str | None = None):
        super().__init__(what)
        self.batch_number, self.why = batch_number, why


@contextmanager
def watchdog(
    seconds: float, what: str, below: CodeType, file: str | None = None, steps: Callable[[], int] = lambda: 0
) -> Iterator[None]:
    """Ends what runs inside if it gets nowhere for so long, wherever it is: in a loop, or waiting for a lock; and if a
    thread of it ends in an error, for which it might wait in vain. It takes signals, so this holds in the main thread
    only.

    Args:
        what: to call it, in the message.
        below: the code that runs it: what has called this is not looked at.
        file: a line of this one is told without its name.
        steps: how far it has got; who gets further may take more time, for the machine may be a busy one.

    Raises:
        Broken: it took longer; the message says in which line it was.
        BaseException: a thread's error.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    dead, got = [], steps()

    def bark(number: int, frame: FrameType) -> None:
        nonlocal got
        if dead:
            raise dead.pop()
        was, got = got, steps()
        if got == was:
            raise Broken(_told(what, seconds, lines.of_engine(frame, below), file))
        _bite_after(seconds + GRACE)
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)

    def died(found: threading.ExceptHookArgs) -> None:
        dead.append(found.exc_value)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    old, threading.excepthook, hook = signal.signal(signal.SIGALRM, bark), died, threading.excepthook
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    _bite_after(seconds + GRACE)
    _say("doing", (what, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        threading.excepthook = hook
        _bite_after(seconds + GRACE)  # what comes next takes less, or has a watchdog of its own


def _bite_after(seconds: float) -> None:
    """Has this process ended after so long, if it is an engine's."""
    if _notes is not None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_notes)


def _told(what: str, seconds: float, line: Line | None, file: str | None) -> str:
    where = f"{line.told(file)}: {line.text}" if line else "none of its own lines"
    return f"{what} has not come to an end in {seconds:g} s; it is in {where}"


# --- a process of its own ---


def apart(
    work: Callable[..., T],
    *arguments: Any,
    file: str,
    shown: AbstractContextManager[Callable[[str], None]] = nullcontext(lambda text: None),  # noqa: B008
) -> T:
    """What `work` returns, from a process of its own that is ended whatever it does.

    Args:
        work: is called with the arguments and whom to tell what goes on; what it returns goes through a pipe.
        file: the engine's; a line of it is told without its name.
        shown: gives whom to tell; entered once the process is there.

    Raises:
        InputError: as `work` has.
        Broken: as `work` has; or the process was ended, by itself, by a signal or by the watchdog. The
            message says which, and where.
    """
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    with tempfile.TemporaryFile() as notes, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: what they hold is not needed there
        process = context.Process(target=_work, args=(work, arguments, notes, writer))
        process.start()
        writer.close()
        doing = "the engine", 0.0
        try:
            with shown as progress, suppress(EOFError):  # it has ended, or the engine has closed the pipe
                while True:
                    kind, value = reader.recv()
                    if kind == "result":
                        return value
                    if kind == "error":
                        raise value
                    if kind == "doing":
                        doing = value
                    else:
                        progress(value)
            until = time.monotonic() + GRACE  # not `join`: that takes a pipe of its own that is closed for the end
            while process.is_alive() and time.monotonic() < until:
                time.sleep(0.01)
        finally:
            process.kill()
            process.join()
        notes.seek(0)
        raise _ended(*doing, process.exitcode, notes.read().decode(errors="replace"), file)


def _work(work: Callable, arguments: tuple, notes: BinaryIO, writer: Connection) -> NoReturn:
    """The life of an engine's process."""
    global _notes, _say
    torch.set_num_threads(1)  # what is computed is so small that a second one only gets in the way
    faulthandler.enable(notes)

    def say(kind: str, value: Any) -> None:
        writer.send((kind, value))

    _notes, _say = notes, say
    try:
        say("result", work(*arguments, lambda text: say("progress", text)))
    except (InputError, Broken) as error:
        say("error", error)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        say("error", RuntimeError(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"))
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(0)  # whatever threads there are


def _ended(what: str, seconds: float, code: int, notes: str, file: str) -> BaseException:
    """What there is to say of a process that has ended without an answer, by what faulthandler has written."""
    line = _line_in(notes)
    if "Timeout (" in notes:
        text = _told(what, seconds, line, file)
    else:
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with status {code}"
        where = f"; it was in {line.told(file)}: {line.text}" if line else ""
        text = f"{what}: its process {ended} before there was a verdict{where}"
    return (InputError if what.startswith("importing") else Broken)(text)


def _line_in(notes: str) -> Line | None:
    """The engine's innermost line in the main thread, which faulthandler writes last."""
    for path, number, name in re.findall(r'File "(.*)", line (\d+) in (.*)', notes.rpartition("hread 0x")[2]):
        if name in ("serve", "load") and Path(path).parent == Path(__file__).parent:
            break  # what has called these is not looked at
        if lines.is_own(path):
            return Line(path, int(number))
    return None
