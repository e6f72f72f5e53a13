"""The README promises commands; here they are held to it."""

import re
import tomllib
from pathlib import Path

from acb_minimal.measure import tables
from acb_minimal.measure.figures import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readme_s_test_command():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands[1].endswith("pytest")


def test_every_path_in_the_readme_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def test_every_data_file_is_installed_with_the_package():
    package = ROOT / "acb_minimal"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    installed = {path for pattern in settings["package-data"]["acb_minimal"] for path in package.glob(pattern)}
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == installed


def test_the_readme_s_figures_are_the_stored_ones():
    assert tables.markdown(load(ROOT / "docs" / "results" / "h200.json")) in README
