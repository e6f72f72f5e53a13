"""The page of the labs: its terminal sessions are what the commands print, and nothing gives a bug away by accident."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acb_minimal.cli import app, options
from acb_minimal.course.labs import judging
from acb_minimal.course.labs.catalog import LABS

PAGE = Path(__file__).parents[2] / "docs" / "labs.md"
COVERED = re.compile(r"[\d,.e+]+ schedules are covered")  # a matter of how long the judge looks


def blocks() -> list[list[str]]:
    """The lines of each terminal session on the page."""
    found = re.findall(r"^```text\n(\$ acb .*?)^```$", PAGE.read_text(), re.M | re.S)
    return [block.splitlines() for block in found]


def session(commands: list[str], solved: set[str]) -> list[str]:
    """What these commands print, in the current folder. A lab that is to be judged in a session of its own has been
    solved before.

    Args:
        solved: names of the labs that have; more are added.
    """
    lines = []
    for number, command in enumerate(commands):
        arguments = shlex.split(command.removeprefix("$ acb "))
        if number == 0 and arguments[:2] == ["lab", "check"]:
            solved.add(arguments[2])
            Path(arguments[2], "engine.py").write_text(LABS[arguments[2]].solution)
        done = CliRunner().invoke(app.app, arguments)
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        lines += [command, *(line.rstrip() for line in done.output.splitlines())]
    return lines


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """A folder to work in, and a terminal of 88 columns."""
    monkeypatch.setattr(judging, "RUNS", 2)
    monkeypatch.setattr(judging, "SCHEDULES", 12)
    monkeypatch.setattr(options.console, "_width", 88)
    monkeypatch.setattr(options.console, "_height", 50)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)


def test_the_sessions_are_what_the_commands_print(terminal):
    """Line by line. All of their times are simulated, so they are the same everywhere."""
    shown, printed, solved = [], [], set()
    for block in blocks():
        commands = [line for line in block if line.startswith("$ ")]
        shown.append([COVERED.sub("", line) for line in block])
        printed.append([COVERED.sub("", line) for line in session(commands, solved)])
    assert len(shown) == 4
    assert shown == printed
    assert solved == {"batch", "haste"}


def test_every_lab_and_every_thread_is_on_the_page(site):
    text = (site.folder / "labs" / "index.html").read_text()
    for lab in LABS.values():
        assert f"<code>{lab.name}</code>" in text
        assert all(f'href="{link}"' in text for link in lab.links)


def test_only_the_labs_that_are_shown_to_the_end_are_given_away():
    whole = PAGE.read_text()
    shown = {line.split()[-1] for block in blocks() for line in block if line.startswith("$ acb lab check ")}
    for name in set(LABS) - shown:
        assert not [hint for hint in LABS[name].hints if hint in whole]
        assert not LABS[name].found or LABS[name].found not in whole

