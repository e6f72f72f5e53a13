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
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, BinaryIO, NoReturn, TypeVar

import torch

from ..errors import InputError
from . import lines, rules
from .lines import Line

T = TypeVar("T")
GRACE = 2.0  # seconds that an engine gets to end by an exception, before its process is ended
SILENCE = 60.0  # seconds without a word from the process after which it is ended from outside
_exit = os._exit  # an engine's process has another one
_notes: BinaryIO | None = None  # where faulthandler writes, in an engine's process


def _say(kind: str, value: Any = None) -> None:
    """Tells who has begun an engine's process; there is another one in such a process."""


class Stopped(BaseException):
    """Raised by a policy that has seen enough of a schedule. Like the others no Exception: engines may not catch it."""


class Refusal(BaseException):
    """The engine, or the schedule, cannot be judged; the message says why."""


class Broken(BaseException):
    """The engine has done something wrong; the message says what.

    Attributes:
        batch_number: of the batch that it came with; None if it came with none.
        why: what it comes from; None if that is not known.
    """

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
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    before, dead, got = set(sys._current_frames()), [], steps()

    def bark(number: int, frame: FrameType) -> None:
        nonlocal got
        if dead:
            raise dead.pop()
        was, got = got, steps()
        if got == was:
            raise Broken(_told(what, seconds, _where(frame, below, before), file))
        _bite_after(seconds + GRACE)
        _say("alive")
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


def _where(frame: FrameType, below: CodeType, before: set[int]) -> list[Line]:
    """The lines that the main thread and all threads begun since are in."""
    others = sorted((ident, frame) for ident, frame in sys._current_frames().items() if ident not in before)
    return [line for each in (frame, *(frame for _, frame in others)) if (line := lines.of_engine(each, below))]


def _told(what: str, seconds: float, found: list[Line], file: str | None) -> str:
    """That it took so long, and the lines that its threads are in, the main thread's first."""
    told = [f"{line.told(file)}: {line.text}" for line in found]
    who = "it is in ", "a thread of it is in "
    where = ", and ".join(f"{who[number > 0]}{line}" for number, line in enumerate(told))
    return f"{what} has not come to an end in {seconds:g} s; {where or 'it is in none of its own lines'}"


# --- a process of its own ---


def apart(
    work: Callable[..., T],
    *arguments: Any,
    file: str,
    shown: AbstractContextManager[Callable[[str], None]] = nullcontext(lambda text: None),  # noqa: B008
) -> T:
    """What `work` returns, from a process of its own that is ended whatever it does.

    Torch has one thread there: what is computed is so small that a second one only gets in the way.

    Args:
        work: is called with the arguments and whom to tell what goes on; what it returns goes through a pipe.
        file: the engine's; a line of it is told without its name.
        shown: gives whom to tell; entered once the process is there.

    Raises:
        InputError: as `work` has.
        Broken: as `work` has; or the engine has changed what judges it; or the process was ended, by itself, by a
            signal or by the watchdog. The message says which, and where it was.
    """
    if not hasattr(os, "fork"):
        with shown as progress:
            return _fairly(work, *arguments, progress)
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    with tempfile.TemporaryFile() as notes, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: what they hold is not needed there
        process = context.Process(target=_work, args=(work, arguments, notes, writer, file))
        process.start()
        writer.close()
        try:
            with shown as progress:
                answer, doing = _listen(process, reader, progress)
        finally:
            process.kill()
            process.join()
        notes.seek(0)
        return _result(answer, doing, process.exitcode, notes.read().decode(errors="replace"), file)


def _fairly(work: Callable[..., T], *arguments: Any) -> T:
    torch.set_num_threads(1)
    before = rules.snapshot()
    try:
        return work(*arguments)
    finally:
        if changed := rules.changed_since(before):
            raise Broken(changed)


def _work(work: Callable, arguments: tuple, notes: BinaryIO, writer: Connection, file: str) -> NoReturn:
    """The life of an engine's process."""
    global _notes, _say
    mine, newest = os.getpid(), None

    def say(kind: str, value: Any = None) -> None:
        nonlocal newest
        if os.getpid() != mine:
            _exit(1)  # the engine has forked, and that is another process
        if kind != "doing" or value != newest:
            writer.send((kind, value))
        newest = value if kind == "doing" else newest

    def exit(status: int) -> None:
        if os.getpid() != mine:
            _exit(status)
        where = lines.at(lines.of_engine(sys._getframe(1)), file)
        raise Broken(f"the engine calls os._exit, and nothing of it may{where}")

    try:
        _notes, _say, os._exit = notes, say, exit
        faulthandler.enable(notes)
        say("result", _fairly(work, *arguments, lambda text: say("progress", text)))
    except InputError as error:
        say("unusable", str(error))
    except Broken as error:
        say("broken", str(error))
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        say("error", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        _exit(0)  # whatever threads there are


def _listen(process: BaseProcess, reader: Connection, progress: Callable[[str], None]) -> tuple[tuple | None, tuple]:
    """What the process has answered, None if it has ended without; and what it was doing."""
    doing, heard = ("the engine", 0.0), time.monotonic()
    while True:
        ended = not process.is_alive()
        while reader.poll(0 if ended else 0.2):
            try:
                kind, value = reader.recv()
            except EOFError:  # it ends, or the engine has closed the pipe
                until = time.monotonic() + GRACE  # not `join`: that takes a pipe of its own that is closed for the end
                while process.is_alive() and time.monotonic() < until:
                    time.sleep(0.01)
                return None, doing
            heard = time.monotonic()
            if kind == "progress":
                progress(value)
            elif kind == "doing":
                doing = value
            elif kind != "alive":
                return (kind, value), doing
        if ended:
            return None, doing
        if time.monotonic() - heard > SILENCE:
            raise Broken(f"{doing[0]} has not come to an end, and nothing was heard of it for {SILENCE:g} s")


def _result(answer: tuple | None, doing: tuple[str, float], code: int, notes: str, file: str) -> Any:
    if answer is None:
        what, seconds = doing
        found = _lines_in(notes)
        if "Timeout (" in notes:
            text = _told(what, seconds, found, file)
        else:
            ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with status {code}"
            where = f"; it was in {found[0].told(file)}: {found[0].text}" if found else ""
            text = f"{what}: its process {ended} before there was a verdict{where}"
        answer = ("unusable" if what.startswith("importing") else "broken"), text
    kind, value = answer
    if kind == "unusable":
        raise InputError(value)
    if kind == "broken":
        raise Broken(value)
    if kind == "error":
        raise RuntimeError(value)
    return value


def _lines_in(notes: str) -> list[Line]:
    """The engine's lines in what faulthandler has written, the main thread's first."""
    found = []
    for thread in re.split(r"hread 0x", notes)[1:]:
        for path, number, name in re.findall(r'File "(.*)", line (\d+) in (.*)', thread):
            if name in ("serve", "load") and Path(path).parent == Path(__file__).parent:
                break  # what has called these is not looked at
            if lines.is_own(path):
                found.append(Line(path, int(number)))
                break
    return found[::-1]
