"""The page of the labs: its terminal sessions are what the commands print, and no other lab is given away."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acb_minimal.cli import app, console
from acb_minimal.course.labs import judging
from acb_minimal.course.labs.lab import LABS
from acb_minimal.course.labs.started import start
from acb_minimal.run.engines import code_lines

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "labs.md").read_text()
SESSIONS = {name: DOCS / "results" / "sessions" / f"{name}.txt" for name in re.findall(r'session\("([\w-]+)"\)', PAGE)}
SHOWN = {"batch", "haste"}
MOVING = re.compile(r"[\d,.e+]+ schedules are covered| of \d+ ")


def printed(commands: list[str]) -> list[str]:
    """These commands and what they print, in the current folder, with an empty line between them."""
    lines = []
    for command in commands:
        done = CliRunner().invoke(app.app, shlex.split(command.removeprefix("$ acb ")))
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        lines += ["", command, *(line.rstrip() for line in done.output.splitlines())]
    return lines[1:]


def learners() -> None:
    """Makes the class whose report is shown, in the current folder."""
    race = "nothing makes compute wait for h2d"
    waits = "the host waits 3 times in a step, and once is enough"
    done = {
        "ada": {"batch": ["solved"], "streams": [race, "solved"], "events": [waits]},
        "eva": {"batch": ["solved"], "streams": [race] * 4},
        "max": {"batch": ["solved"], "streams": [race] * 3},
        "tom": {"batch": []},
    }
    for who, labs in done.items():
        for name, said in labs.items():
            each = start(LABS[name], Path("class", who, name))
            for words in said:
                each.checked(words, words == "solved")
            if len(said) > 2:
                each.hint()


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """A folder to work in, and a terminal of 88 columns, with a last word that is short."""
    monkeypatch.setattr(judging, "SECONDS", 0.1)
    monkeypatch.setattr(console.console, "_width", 88)
    monkeypatch.setattr(console.console, "_height", 50)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)


def solve(lab: str) -> None:
    """Puts the solution as a learner writes it into the lab's folder: with none of our comments."""
    text = "\n".join(code_lines(LABS[lab].solution, comments=False).values())
    Path(lab, "engine.py").write_text(f"{text}\n")


def steady(lines: list[str]) -> list[str]:
    """Without how much the judge has got through, which is another each time, and how many labs there are."""
    return [MOVING.sub("", line) for line in lines]


@pytest.mark.slow
def test_the_sessions_are_what_the_commands_print(terminal):
    """Line by line. All of their times are simulated, so they are the same everywhere."""
    learners()
    for name in ("haste", "haste-solved", "report"):
        if name == "haste-solved":
            solve("haste")
        shown = SESSIONS[name].read_text().splitlines()
        assert steady(printed([line for line in shown if line.startswith("$ ")])) == steady(shown), name


def test_every_lab_and_every_thread_is_on_the_page(site):
    text = (site.folder / "labs" / "index.html").read_text()
    for lab in LABS.values():
        assert f"<code>{lab.name}</code>" in text
        assert all(f'href="{link}"' in text for link in lab.links)


def test_only_the_labs_that_are_shown_to_the_end_are_given_away():
    whole = PAGE + "".join(file.read_text() for file in SESSIONS.values())
    for name in set(LABS) - SHOWN:
        assert not [hint for hint in LABS[name].hints if hint in whole]
        assert not LABS[name].found or LABS[name].found not in whole
