"""The commands and programs that README.md and the pages of the site show are run; those that need a GPU, parsed."""

import ast
import gzip
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import typer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from acb_minimal.cli import app
from acb_minimal.models import counter

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

# What a test cannot do: install, test, serve. That the files and extras that these name exist is tested.
NOT_RUN = ("python3 -m venv", ". .venv/bin/activate", "pip install", "pytest", "jupyter lab", "mkdocs serve",
           "acb lab watch")  # fmt: skip


class Fence(NamedTuple):
    """A block of code of a page, and where it is."""

    place: str
    language: str
    text: str


class Command(NamedTuple):
    """A command, without what stands before `&&` and after `#`."""

    text: str
    comment: str

    @property
    def needs_gpu(self) -> bool:
        return self.comment.rstrip().endswith(("needs a GPU", "on a GPU"))

    @property
    def status(self) -> int:
        return 1 if "ends with status 1" in self.comment else 0

    @property
    def is_run(self) -> bool:
        return not self.text.startswith(NOT_RUN)


def fences(file: Path) -> list[Fence]:
    text = file.read_text()
    return [
        Fence(f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", language, textwrap.dedent(code))
        for found in FENCE.finditer(text)
        for _, language, code in [found.groups()]
    ]


def commands(fence: Fence) -> list[Command]:
    found = []
    for line in fence.text.replace("\\\n", " ").splitlines():
        text, _, comment = re.sub(r"(^|\s)#\s", "\0", line, count=1).partition("\0")
        found += [Command(part.strip().removeprefix(".venv/bin/"), comment) for part in text.split("&&")]
    return [command for command in found if command.text]


FENCES = [fence for file in DOCS for fence in fences(file)]
COMMANDS = [command for fence in FENCES if fence.language == "sh" for command in commands(fence)]


IN_SHELL = [
    # Those of README.md are run after every change.
    pytest.param(fence, id=fence.place, marks=() if fence.place.startswith("README") else pytest.mark.slow)
    for fence in FENCES
    if fence.language == "sh"
]
IN_PYTHON = [pytest.param(fence, id=fence.place) for fence in FENCES if fence.language == "python"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with what commands are given: files of this repository, and those that the pages presume."""
    folder = tmp_path / "folder"
    for name in ("chapters", "docs/results"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "chapters" / "ch2_streams.py", folder / "my_engine.py")
    data = ROOT / "tests" / "data"
    for name in ("trace.json.gz", "trace.json", "after.json"):  # what is zipped is seen to be, whatever its name
        shutil.copy(data / "ch6_demo_h200.json.gz", folder / name)
    shutil.copy(data / "ch1_demo_h200.json.gz", folder / "before.json")
    trace = json.loads(gzip.decompress((data / "ch6_demo_h200.json.gz").read_bytes()))
    for rank in range(3):
        ranked = trace | {"distributedInfo": {"rank": rank}}
        (folder / f"rank{rank}.json").write_text(json.dumps(ranked))
    model = folder / "path" / "to" / "a" / "model"
    shutil.copytree(counter.PATH, model, ignore=shutil.ignore_patterns("*.py", "tokenizer*"))
    words = {word: number for number, word in enumerate(["?", "Once", "upon", "a", "time"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(model)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return folder


def smaller(text: str) -> str:
    """What is run in place of a command that takes long: the same with fewer requests, or less time."""
    if text.startswith(("acb compare", "acb profile")) and "|" not in text:
        return f"{text} --requests 6 --new-tokens 8"
    return f"{text} --seconds 1" if re.fullmatch(r"acb check [\w.]+", text) else text


@cache
def run_once(text: str, status: int) -> None:
    """Several pages have it, and it reads and writes no file."""
    run_acb(text, status)


def run_acb(text: str, status: int) -> None:
    done = CliRunner().invoke(app.app, shlex.split(text)[1:])
    told = f"{text}: status {done.exit_code}\n{done.output}"
    assert isinstance(done.exception, SystemExit | None), f"{told}{done.exception!r}"
    assert done.exit_code == status, told
    assert "error:" not in done.output, told


def run_in_shell(text: str, status: int) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(text, shell=True, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == status, f"{text}: status {done.returncode}\n{done.stdout}{done.stderr}"


def test_every_acb_command_is_one_that_there_is():
    """Those that need a GPU are only parsed: an unknown command or option, or a wrong kind of value, raises."""
    groups = [acb := typer.main.get_command(app.app)]
    for group in groups:
        group.callback = lambda **_: None
        groups += getattr(group, "commands", {}).values()
    for command in COMMANDS:
        if command.text.startswith("acb ") and command.is_run:
            acb.main(shlex.split(command.text.partition("|")[0])[1:], standalone_mode=False)


@pytest.mark.parametrize("fence", IN_SHELL)
def test_every_command_does_what_it_should(fence, folder):
    for command in commands(fence):
        if command.is_run and not command.needs_gpu:
            text = smaller(command.text)
            run = run_acb if re.fullmatch(r"acb [^|<>;&$]*", text) else run_in_shell
            if re.match(r"acb (compare|run|results|check) [^.]*$", text):
                run = run_once
            run(text, command.status)


@pytest.mark.parametrize("fence", IN_PYTHON)
def test_every_program_runs(fence, folder):
    """A program begins with an import; what does not is a piece of one, and is only parsed."""
    ast.parse(fence.text)
    if fence.text.startswith(("import ", "from ")) and "needs a GPU" not in fence.text:
        program = folder / "program.py"
        program.write_text(fence.text)
        runpy.run_path(str(program), run_name="__main__")


def test_what_is_not_run_names_what_exists():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for file in DOCS:
        for extras in re.findall(r"-e '?\.\[([\w,-]+)\]", file.read_text()):
            assert set(extras.split(",")) <= set(settings["project"]["optional-dependencies"]), file
    for command in COMMANDS:
        if not command.is_run:
            for path in re.findall(r"(?<=\s)(?!-|\.venv)[\w./-]+/[\w./-]+|\S+\.py\b", command.text):
                assert (ROOT / path).exists(), command.text


SHOWN = [
    pytest.param(*shown, id=f"{fence.place}: {shown[0]}")
    for fence in FENCES
    if fence.place.startswith("docs/chapters") and fence.language == "text"
    for shown in re.findall(r"^\$ (acb run .*)\n((?:(?!\$ ).*\n)+)", fence.text, re.MULTILINE)
]


@pytest.mark.slow
@pytest.mark.parametrize(("text", "output"), SHOWN)
def test_what_a_page_shows_of_a_run_is_what_it_prints(text, output, folder):
    done = CliRunner().invoke(app.app, shlex.split(text)[1:])
    lines = [*done.output.splitlines(), f"error: {done.exception}"]
    assert [line for line in output.splitlines() if line not in lines] == []
