"""What the judge says at once, as the tests of the labs ask it."""

from io import StringIO

import pytest
from rich.console import Console

from acb_minimal.course.labs import judging
from acb_minimal.course.labs.lab import Lab


@pytest.fixture
def ruled(tmp_path):
    """What the judge says at once of a source in a lab: the ruling, and all that is printed."""

    def ask(lab: Lab, source: str) -> tuple[judging.Ruling, str]:
        file = tmp_path / "engine.py"
        file.write_text(source)
        ruling = judging.quick(lab, file, print)
        console = Console(width=200, file=StringIO())
        console.print(ruling.said, ruling.shown)
        return ruling, " ".join(console.file.getvalue().split())

    return ask
