"""What the tests of models share."""

import shutil

import pytest

from acb_minimal.models import counter


@pytest.fixture
def copy(tmp_path):
    """A copy of the counter's folder, to break."""
    return shutil.copytree(counter.PATH, tmp_path / "model", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
