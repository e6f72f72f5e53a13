"""What the tests share: tiny random models, transformers' greedy generation as the oracle, a way to serve, the site."""

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from filelock import FileLock

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test asks the hub
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands and notebooks too: see one_thread
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: runs its kernels on CPU tensors

import transformers
from transformers import AutoModelForCausalLM

from acb_minimal.kv_cache import KVCache, PagePool
from acb_minimal.model import Model
from acb_minimal.preemption import SwappingModel
from acb_minimal.request import Request
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import load_chapter
from acb_minimal.run.preempting import MODES, moves
from acb_minimal.run.timed import Machine
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.device import CpuDevice
from acb_minimal.slot import SlotSize

VOCAB = 89
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # large, so that the next token depends on all before it and ties do not occur
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**TINY),
    "qwen3": lambda: transformers.Qwen3Config(**TINY),
    "mistral": lambda: transformers.MistralConfig(**TINY, sliding_window=12),
}


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


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A folder with a tiny random model of the family, as save_pretrained writes it: tiny_path("llama")."""
    made = {}

    def path(family: str) -> str:
        if family not in made:
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(family)
            AutoModelForCausalLM.from_config(FAMILIES[family]()).save_pretrained(folder)
            made[family] = str(folder)
        return made[family]

    return path


class Harness:
    """One tiny model: `serve` runs a chapter over it, `oracle` is what transformers generates."""

    def __init__(self, path: str):
        self.checkpoint = Checkpoint(path)
        self.network = self.checkpoint.load(torch.device("cpu"))
        self.reference = AutoModelForCausalLM.from_pretrained(path).eval()
        self.known: dict[tuple[int, ...], list[int]] = {}

    def oracle(self, prompt: list[int], max_new_tokens: int, stop_tokens=(), longest: int = 16) -> list[int]:
        """Greedy tokens of `generate`, cut where a stop token ends them; `longest` are made once per prompt."""
        assert max_new_tokens <= longest
        if tuple(prompt) not in self.known:
            ids = torch.tensor([prompt])
            mask = torch.ones_like(ids)  # left out, `generate` masks every token that happens to be pad_token_id
            out = self.reference.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=longest)
            self.known[tuple(prompt)] = out[0, len(prompt) :].tolist()
        tokens = self.known[tuple(prompt)][:max_new_tokens]
        ends = [index for index, token in enumerate(tokens) if token in stop_tokens]
        return tokens[: ends[0] + 1] if ends else tokens

    def serve(
        self,
        requests: list[Request],
        chapter: str = "ch1",
        arrivals=None,
        device: Machine | None = None,
        page_size=4,
        pages=64,
        max_running=4,
        max_batch_tokens=32,
        preempt=None,
    ) -> Scheduler:
        """Serves all requests; request i is added once `arrivals[i]` others have finished (default: 0)."""
        device = device or CpuDevice()
        pool = PagePool(pages, page_size)
        kind = MODES[preempt] if preempt else Scheduler
        scheduler = kind(pool, max_running, max_batch_tokens, VOCAB, self.checkpoint.max_positions)
        cache = KVCache(self.checkpoint.layers, pages, page_size, self.checkpoint.dtype, device.torch_device)
        size = SlotSize(max_running, max_batch_tokens, pages)
        engine_class = load_chapter(chapter)
        parts = self.network, self.checkpoint.layers, cache, size, device
        model = (SwappingModel if moves(engine_class) else Model)(*parts)
        if preempt == "swap":
            model.make_berths(scheduler.berths.num_pages)
        engine = engine_class(model, scheduler, device.cuda)
        queue = sorted(zip(arrivals or [0] * len(requests), range(len(requests)), strict=True))
        finished = 0
        while queue or scheduler.has_work():
            while queue and (queue[0][0] <= finished or not scheduler.has_work()):
                scheduler.add(requests[queue.pop(0)[1]])
            for _ in engine.run():
                finished += 1
                while queue and queue[0][0] <= finished:
                    scheduler.add(requests[queue.pop(0)[1]])
        model.close()
        assert finished == len(requests)
        assert scheduler.pool.num_free == scheduler.pool.num_pages
        return scheduler


@pytest.fixture(scope="session")
def harness(tiny_path):
    """The Harness of a family, made once: harness("llama")."""
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
        return 0, said.getvalue()

    folder, made = made_once("site", build)
    return Site(folder, *made)
