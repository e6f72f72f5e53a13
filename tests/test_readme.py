"""The README promises commands; here they are held to it."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from acb_minimal.measure import result_table
from acb_minimal.measure.metrics import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readme_s_test_command():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert commands[1].endswith("pytest")
    assert lines.index(commands[1]) > lines.index("export PYTEST_ADDOPTS=\"-m 'not exhaustive'\"")  # the slow ones, too


def test_every_path_in_the_readme_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A folder with what an installed copy holds."""
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as file:
        file.extractall(folder / "installed")
    return folder / "installed"


def test_every_file_of_the_package_is_installed_and_nothing_but_it(wheel):
    names = subprocess.check_output(["git", "ls-files", "acb_minimal", "chapters"], cwd=ROOT, text=True).splitlines()
    expected = {name if name.startswith("acb_minimal") else f"acb_minimal/{name}" for name in names}
    installed = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    assert {name for name in installed if ".dist-info/" not in name} == expected


def test_an_installed_copy_finds_the_chapters(wheel):
    code = "from acb_minimal.run.engines import *; print(chapter_path('ch1'), load_chapter('ch6').__name__)"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=wheel, env=os.environ | {"PYTHONPATH": str(wheel)})
    assert said.decode().split() == [str(wheel / "acb_minimal" / "chapters" / "ch1_sync.py"), "Engine"]


@pytest.mark.slow
def test_the_readme_s_first_run_is_what_acb_compare_prints():
    """Line by line, in this order. Left out are answers, and the table, which has the date."""
    shown = [line for line in re.search(r"^```text\n(.*?)^```$", README, re.M | re.S)[1].splitlines() if line]
    environment = os.environ | {"COLUMNS": "80", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "acb_minimal.cli", "compare"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    rest = iter(printed)
    missing = [line for line in shown if line not in rest]
    assert not missing, f"not printed, or not in this order: {missing[0]!r}"
    bars = [line for line in printed if line.endswith("x") and "█" in line]
    assert len(bars) == 6
    assert set(bars) <= set(shown)
    assert f"a speedup of {bars[-1].split()[-1][:-1]}" in " ".join(README.split())


def test_the_readme_opens_with_the_picture_that_is_drawn_now():
    sys.path.append(str(ROOT / "docs" / "_site"))
    import opening

    assert opening.FILE.read_text() == opening.drawn()
    assert f"**{opening.Course().law('wide', host_work=8.0)['gain']:.2f} times" in README


def test_the_readme_s_figures_are_the_stored_ones():
    assert result_table.markdown(load(ROOT / "docs" / "results" / "h200.json")) in README
