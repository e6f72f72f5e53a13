"""The first command that the README shows, `acb compare`, and what it prints. tests/test_readme.py runs it."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
BAR = re.compile(r"^(ch\d\w+) .* ([\d.]+) ms  [\d.]+x$", re.MULTILINE)


def block() -> str:
    """What it prints, as the README has it."""
    return re.search(r"^```text\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)[1].rstrip()


def steps() -> dict[str, float]:
    """The length of a decode step by chapter, in seconds, from that."""
    return {chapter: float(ms) / 1e3 for chapter, ms in BAR.findall(block())}
