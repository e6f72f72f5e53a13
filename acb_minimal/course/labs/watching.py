"""`acb lab watch`: one process that judges an engine on every save, goes on to the next lab, and listens to keys.

The judge is forked from a process that has torch loaded, so that an answer takes no imports; below that the engine has
one of its own. This one needs no torch: its first screen is there at once.
"""

import datetime
import multiprocessing
import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ...errors import InputError
from . import telling
from .answering import Answer, send
from .lab import LABS, Lab
from .started import Started, furthest, next_after, solved, start

EVERY = 0.1  # seconds between two looks at the file
# What a judge imports, the model that engines are timed with included.
PRELOAD = ["__main__", "acb_minimal.course.labs.judging", "transformers.models.llama.modeling_llama"]
KEYS = {"h": "hint", "l": "list", "r": "reset", "d": "diff", "n": "next", "q": "quit"}


class Judge:
    """Judges a version at a time, in a process of its own."""

    def __init__(self):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._process = self.pipe = None

    def begin(self, each: Started, console: Console) -> None:
        """Begins to judge, and forgets the version before."""
        self.end()
        self.pipe, theirs = self._context.Pipe(duplex=False)
        arguments = theirs, each.lab.name, each.engine, each.progress.bubbles, console.width, console.color_system
        self._process = self._context.Process(target=send, args=arguments)
        self._process.start()
        theirs.close()

    def read(self) -> Answer | None:
        """What has been answered since, if anything has."""
        try:
            found = self.pipe.recv() if self.pipe and self.pipe.poll() else None
        except EOFError:
            found = Answer("The judge has ended before its time. Save once more.", "no answer", last=True)
        if found and found.last:
            self.end()
        return found

    def end(self) -> None:
        """Ends what is being judged."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with all that the engine has started
            self._process.kill()
            self._process.join()
            self.pipe.close()
            self._process = self.pipe = None


class LabWatch:
    """A learner at work.

    Attributes:
        home: the folder with the folders of the labs.
        keys: the file descriptor from which keys are read.
        each: the lab that is being worked at; None if all are solved.
        solved: the one that was solved last.
    """

    def __init__(self, home: Path, console: Console, keys: int):
        self.home, self.console, self.keys = home, console, keys
        self.judge, self.each, self.solved = Judge(), None, None
        self._seen = self._before = None

    def run(self, lab: Lab | None) -> None:
        """Works through labs until all are solved or somebody quits.

        Args:
            lab: the one to begin with; None if all are solved.
        """
        with Live(console=self.console, auto_refresh=False, transient=True) as self.live:
            try:
                self.go_to(lab)
                while self.each and self.look():
                    pass
            except KeyboardInterrupt:
                pass
            finally:
                self.judge.end()

    def go_to(self, lab: Lab | None) -> None:
        """Goes on with a lab: starts it, if it is not started here."""
        self._seen = None
        if lab is None:
            self.each = None
            self.print(Text("All labs are solved.", "bold green"))
            return
        self.each = furthest(self.home).get(lab.name) or start(lab, self.home / lab.name)
        self.console.rule(style="dim")
        self.print(telling.beginning(self.each))

    def look(self) -> bool:
        """Looks at the file, the judge and the keys once; whether to go on."""
        now = None
        with suppress(OSError):
            status = self.each.engine.stat()
            now = status.st_mtime_ns, status.st_size
        if now is not None and now != self._seen and now == self._before:  # it does not change any more
            self._seen = now
            self.judge.begin(self.each, self.console)
            self.console.rule(f"{self.each.engine}, {datetime.datetime.now():%H:%M:%S}", style="dim")
            self.show("judging")
        self._before = now
        if found := self.judge.read():
            self.take(found)
        waited = [self.keys, *([self.judge.pipe] if self.judge.pipe else [])]
        if self.keys not in select.select(waited, [], [], EVERY)[0]:
            return True
        key = os.read(self.keys, 1).decode(errors="replace").lower()
        return key not in ("", "q") and self.press(key)  # nobody is there to press any, or somebody has

    def take(self, found: Answer) -> None:
        """Prints and keeps an answer; goes on if the lab is solved."""
        self.print(Text.from_ansi(found.shown))
        self.show("" if found.last else found.said)
        if not found.last:
            return
        self.each = Started(self.each.folder)  # hints may have been asked for elsewhere
        self.each.checked(found.said, found.passed, found.copied, found.bubble)
        if found.passed:
            self.print(telling.ending(self.each))
            self.solved = self.each
            self.go_to(next_after(self.each))
        elif advice := telling.stuck(self.each):
            self.print(Text(f"{advice} h"))

    def press(self, key: str) -> bool:
        """Does what a key is for; whether to go on."""
        what = KEYS.get(key)
        if what == "hint":
            self.print(telling.hints(self.each))
        elif what == "list":
            self.print(telling.listing(furthest(self.home)))
        elif what == "reset":
            self.print(telling.was_reset(self.each, self.each.reset()))
        elif what == "diff":
            self.print(telling.diff(self.solved or self.each))
        elif what == "next":
            self.go_to(next_after(self.each))
        return True

    def print(self, what) -> None:
        """Prints above the last line."""
        self.console.print(what, highlight=False)
        self.show()

    def show(self, doing: str = "") -> None:
        """The last line: how far somebody is, what is being done, and the keys."""
        count = len(solved(furthest(self.home)))
        done = round(10 * count / len(LABS))
        line = Text.assemble(("█" * done, "green"), ("░" * (10 - done), "dim"), f" {count} of {len(LABS)} ")
        for key, what in KEYS.items():
            line.append(" ").append(key, "bold").append(f" {what}")
        self.live.update(line.append(f"  {doing}", "dim"), refresh=True)


def watch(home: Path, lab: Lab | None, console: Console) -> None:
    """Works through the labs in a folder, with the keys of this terminal.

    Args:
        lab: the one to begin with; None if all are solved.

    Raises:
        InputError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise InputError("acb lab watch needs a terminal; without one, acb lab check judges an engine once")
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)  # keys are read one by one, as they are pressed
    try:
        LabWatch(home, console, keys).run(lab)
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
