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

# What takes long is run smaller, by the same command with the same options.
SHORTER = {
    "acb check my_engine.py": "acb check my_engine.py --seconds 1",
}
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
IN_SHELL = [fence for fence in FENCES if fence.language == "sh"]
IN_PYTHON = [fence for fence in FENCES if fence.language == "python"]
COMMANDS = [command for fence in IN_SHELL for command in commands(fence)]


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
    """What is run in place of a command."""
    if text.startswith(("acb compare", "acb profile")) and "|" not in text and text not in SHORTER:
        return f"{text} --requests 6 --new-tokens 8"
    return SHORTER.get(text, text)


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


def parse_acb(text: str) -> None:
    """As `acb` itself parses it; nothing is done then. Raises for an unknown command, option or kind of value."""
    groups = [command := typer.main.get_command(app.app)]
    for group in groups:
        group.callback = lambda **_: None
        groups += getattr(group, "commands", {}).values()
    command.main(shlex.split(text)[1:], standalone_mode=False)


@pytest.mark.parametrize("fence", IN_SHELL, ids=[fence.place for fence in IN_SHELL])
def test_every_command_does_what_it_should(fence, folder):
    for command in commands(fence):
        if command.needs_gpu:
            if command.text.startswith("acb "):
                parse_acb(command.text)
        elif command.is_run:
            text = smaller(command.text)
            run = run_acb if re.fullmatch(r"acb [^|<>;&$]*", text) else run_in_shell
            if re.match(r"acb (compare|bench|run|results|check) [^.]*$", text):
                run = run_once
            run(text, command.status)


@pytest.mark.parametrize("fence", IN_PYTHON, ids=[fence.place for fence in IN_PYTHON])
def test_every_program_runs(fence, folder):
    """A program begins with an import; what does not is a piece of one, and is only parsed."""
    ast.parse(fence.text)
    if fence.text.startswith(("import ", "from ")) and "needs a GPU" not in fence.text:
        program = folder / "program.py"
        program.write_text(fence.text)
        runpy.run_path(str(program), run_name="__main__")


def test_all_code_is_in_a_language_that_is_tested():
    known = ("sh", "python", "text", "bash", "py")  # the last two: of other engines, which cannot be run here
    others = [f"{place}: {language!r}" for place, language, _ in FENCES if language not in known]
    assert not others


def test_what_is_run_smaller_is_the_same_command():
    assert set(SHORTER) <= {command.text for command in COMMANDS}
    for text, shorter in SHORTER.items():
        assert shorter.split()[:2] == text.split()[:2]
        assert set(re.findall(r"--\S+", text)) <= set(re.findall(r"--\S+", shorter))


def test_what_is_not_run_names_what_exists():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for file in DOCS:
        for extras in re.findall(r"-e '?\.\[([\w,-]+)\]", file.read_text()):
            assert set(extras.split(",")) <= set(settings["project"]["optional-dependencies"]), file
    for command in COMMANDS:
        if not command.is_run:
            for path in re.findall(r"(?<=\s)(?!-|\.venv)[\w./-]+/[\w./-]+|\S+\.py\b", command.text):
                assert (ROOT / path).exists(), command.text


@pytest.mark.parametrize(
    "text", ["acb rum ch1", "acb run ch1 --wokload demo", "acb lab hots", "acb run", "acb check ch1 --seconds many"]
)
def test_a_wrong_command_does_not_pass_for_one_that_needs_a_gpu(text):
    with pytest.raises(Exception, match="No such|Missing|valid number"):
        parse_acb(text)
