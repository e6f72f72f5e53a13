"""How the tests of the commands call `acb`: as its entry point does."""

import sys
from typing import NamedTuple

import pytest
import torch

from acb_minimal.cli import app, console


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def acb(monkeypatch, capsys):
    """Runs the command on a machine without CUDA: acb("run", "ch1") -> Done."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(console.console, "_width", 120)
    monkeypatch.setattr(console.console, "_height", 50)

    def run(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["acb", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            app.main()
        return Done(exit.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def refused(acb):
    """What is said of a command that cannot be done: one line on stderr, with status 2 and nothing on stdout."""

    def run(*arguments) -> str:
        done = acb(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        return done.stderr

    return run
