"""What the tests share: tiny random models, the documentation site, and what is set before other modules are imported.

Transformers is imported by those who need it: not in the process that hands the tests out to others.
"""

import contextlib
import gc
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from filelock import FileLock

gc.set_threshold(100_000)  # or all that is imported would be walked again and again: a tenth of the time
os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test asks the hub
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands and notebooks too: see one_thread
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: runs its kernels on CPU tensors


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


def pytest_xdist_auto_num_workers(config):
    """One process for each core, but a single one where all would share a GPU."""
    return 0 if torch.cuda.is_available() else None


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)  # the models are so small that a second thread only gets in the way


@pytest.fixture(scope="session", autouse=True)
def no_full_garbage_collection():
    """A run on the CPU begins with one: here it would walk all that the tests have loaded, for half a second."""
    from acb_minimal.run import session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "gc", SimpleNamespace(collect=lambda: 0, freeze=gc.freeze, unfreeze=gc.unfreeze))
        yield


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A folder with a tiny random model of the family: tiny_path("llama")."""
    import tiny

    made = {}

    def path(family: str) -> str:
        if family not in made:
            made[family] = tiny.save(tiny.FAMILIES[family](), tmp_path_factory.mktemp(family))
        return made[family]

    return path


@pytest.fixture(scope="session")
def harness(tiny_path):
    """The Harness of a family, made once: harness("llama")."""
    from tiny import Harness

    made = {}

    def get(family: str) -> Harness:
        if family not in made:
            made[family] = Harness(tiny_path(family))
        return made[family]

    return get


class Site(NamedTuple):
    """The documentation site as mkdocs built it. With warnings alone the folder is complete, but `status` is not 0."""

    folder: Path
    status: int
    output: str


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """made_once(name, make) is a new folder and, by way of JSON, what `make` makes there: of the processes that test,
    the first that asks makes it for all."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def get(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
        folder, file = shared / name, shared / f"{name}.json"
        with FileLock(shared / f"{name}.lock"):
            if not file.exists():
                folder.mkdir(exist_ok=True)
                file.write_text(json.dumps(make(folder)))
        return folder, json.loads(file.read_text())

    return get


@pytest.fixture(scope="session")
def site(made_once) -> Site:
    """Built in this process, which has loaded torch already."""

    def build(folder: Path) -> tuple[int, str]:
        os.environ["NO_MKDOCS_2_WARNING"] = "1"  # advertising of the theme's
        from mkdocs.commands.build import build as make
        from mkdocs.config import load_config
        from mkdocs.exceptions import Abort

        root, said = Path(__file__).parent.parent, io.StringIO()
        handler = logging.StreamHandler(said)
        handler.setLevel(logging.WARNING)
        logging.getLogger("mkdocs").addHandler(handler)
        with contextlib.chdir(root):
            config = load_config(str(root / "mkdocs.yml"), site_dir=str(folder), strict=True)
            config.plugins.on_startup(command="build", dirty=False)
            try:
                make(config)
            except Abort as stopped:
                return stopped.code or 1, f"{said.getvalue()}{stopped}"
            finally:
                logging.getLogger("mkdocs").removeHandler(handler)
                gc.enable()  # docs/_site/garbage.py
        return 0, said.getvalue()

    folder, made = made_once("site", build)
    return Site(folder, *made)
