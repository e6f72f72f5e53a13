"""What ends an engine's run before its time. None of it is an Exception: an engine must not catch it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from . import lines

LAST_WORDS = 5  # times that an engine may catch what ends it


class Stopped(BaseException):
    """Raised by a policy that has seen enough of a schedule."""


class Refusal(BaseException):
    """The engine, or the schedule, cannot be judged; the message says why."""


class Broken(BaseException):
    """The engine has done something wrong; the message says what."""


class Hung(Broken):
    """The engine does not come to an end."""


@contextmanager
def watchdog(seconds: float, what: str, below: CodeType, file: str | None = None) -> Iterator[None]:
    """Ends what runs inside if it takes longer, wherever it is: in a loop, or waiting for a lock. It takes a signal, so
    this holds in the main thread only. Somebody who is in a debugger may take any time, and has these seconds once
    more afterwards.

    Args:
        what: to call it, in the message.
        below: the code that runs it: what has called this is not looked at.
        file: a line of this one is told without its name.

    Raises:
        Hung: it took longer; the message says in which line it was. Who catches even that, again and again, ends the
            whole process.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    times, debugged, before = 0, False, set(sys._current_frames())

    def bark(number: int, frame: FrameType) -> None:
        nonlocal times, debugged
        was_debugged, debugged = debugged, _in_debugger(frame)
        if was_debugged and not debugged:
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        if was_debugged or debugged:
            return
        times += 1
        message = f"{what} has not come to an end in {seconds:g} s; {_where(frame, below, file, before)}"
        if times > LAST_WORDS:
            print(f"error: {message}, and catches every exception", file=sys.stderr, flush=True)
            os._exit(1)
        raise Hung(message)

    old = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _where(frame: FrameType, below: CodeType, file: str | None, before: set[int]) -> str:
    """The lines that the main thread and all threads begun since are in."""
    frames = [("it is", frame)]
    others = sorted((ident, frame) for ident, frame in sys._current_frames().items() if ident not in before)
    frames += [("a thread of it is", frame) for _, frame in others]
    found = ((who, lines.of_engine(frame, below)) for who, frame in frames)
    told = [f"{who} in {line.told(file)}: {line.text}" for who, line in found if line]
    return ", and ".join(told) or "it is in none of its own lines"


def _in_debugger(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__") != "bdb":
        frame = frame.f_back
    return frame is not None
