"""Two ranks that share a model: their tokens, and how a run ends that one of them does not come through.

On a machine with two GPUs the slow ones of these tests run there, through NCCL; on one without a GPU, through Gloo.
"""

import json
import os
import random
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny import FAMILIES, VOCAB
from transformers import AutoModelForCausalLM

from acb_minimal import generate
from acb_minimal.cli import app
from acb_minimal.cli.options import start_ranks
from acb_minimal.errors import InputError, RankError
from acb_minimal.request import Batch, Request, Row
from acb_minimal.run import ranks
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.ranks import Ranks, WatchedScheduler
from acb_minimal.run.timed import composed
from acb_minimal.run.workload import workload

KIND = "cuda" if torch.cuda.device_count() > 1 else "cpu"
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


two_ranks = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="needs two GPUs, or a machine that has none")


def on_two_ranks(test):
    """A slow test, left out on a machine with a single GPU."""
    return pytest.mark.slow(two_ranks(test))


@pytest.fixture(scope="module")
def run(made_once):
    """What two ranks were asked, what each got before they diverged, and how they ended. Started once for all tests."""

    def start(folder: Path) -> dict:
        models = {"counter": ("counter", workload("demo").override(requests=8).prompts(0))}
        rng = random.Random(0)
        for family, config in FAMILIES.items():
            torch.manual_seed(0)
            even = config()
            even.vocab_size = VOCAB + 1  # transformers 5.17 shares no other out over two
            AutoModelForCausalLM.from_config(even).save_pretrained(folder / family)
            models[family] = (str(folder / family), [rng.choices(range(VOCAB), k=rng.randint(1, 25)) for _ in range(8)])
        cases = {
            name: {
                "model": model,
                "prompts": prompts,
                "chapters": ["ch1_sync", "ch5_carry_over", "ch6_cuda_graphs"][0 if name == "counter" else -1 :],
                "expected": [done.tokens for done in sorted(generate(prompts, "ch1", model, "cpu", 12), key=by_id)],
            }
            for name, (model, prompts) in models.items()
        }
        (folder / "cases.json").write_text(json.dumps(cases))
        script = str(Path(__file__).with_name("served_by_ranks.py"))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run([*command, script, folder, KIND], env=ENVIRONMENT, capture_output=True, text=True)
        files = [folder / f"rank{rank}.json" for rank in range(2)]
        assert all(file.exists() for file in files), done.stderr
        served = [json.loads(file.read_text()) for file in files]
        return {"cases": cases, "served": served, "status": done.returncode, "stderr": done.stderr}

    return made_once("ranks", start)[1]


def by_id(completion):
    return int(completion.id)


@on_two_ranks
def test_ranks_generate_what_one_process_does_alone(run):
    """The counter in three chapters, and every family in the last of them."""
    for name, case in run["cases"].items():
        for chapter in case["chapters"]:
            assert [rank[f"{name} {chapter}"] for rank in run["served"]] == [case["expected"]] * 2, (name, chapter)


@on_two_ranks
@pytest.mark.parametrize("how", ["graphs", "compiled"])
def test_they_do_so_with_decodes_launched_as_graphs_and_with_layers_compiled(run, how):
    assert [rank[how] for rank in run["served"]] == [run["cases"]["counter"]["expected"]] * 2
    assert all(rank["compiled collectives"] for rank in run["served"])


@on_two_ranks
def test_ranks_hear_each_other_reduce_in_another_process_too_and_draw_the_same_weights(run):
    for rank in run["served"]:
        assert rank["words"] == ["of rank 0", "of rank 1"]
        assert rank["in another process"] == 2.0
        assert rank["random"] == run["served"][0]["random"] != 0


@on_two_ranks
def test_a_rank_that_serves_in_another_order_ends_all_with_a_line_that_names_it_and_the_batch(run):
    assert run["status"] == 1
    assert "rank 1 has not scheduled batch 0 as rank 0 has" in run["stderr"]


ENGINE = """
import os, signal
from acb_minimal.run.engines import load_chapter

class Engine(load_chapter("ch6")):
    def run(self):
        for number, request in enumerate(super().run()):
            if os.environ["RANK"] == "1" and number == 2:
                {what}
            yield request
"""


@two_ranks
@pytest.mark.parametrize(
    ("what", "status", "line"),
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", 1, "error: rank 1 was ended by SIGKILL",
                     id="is killed", marks=pytest.mark.exhaustive),
        pytest.param("raise ValueError('no good')", app.INTERNAL, "error: rank 1: ValueError: no good (PLACE:9)",
                     id="fails", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_rank_that_is_lost_ends_the_run_with_one_line_that_names_it(tmp_path, what, status, line):
    engine = tmp_path / "engine.py"
    engine.write_text(ENGINE.format(what=what))
    options = ["--gpus", "2", "--device", KIND, "--requests", "8"]
    command = [sys.executable, "-m", "acb_minimal.cli", "run", engine, *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1:] == [line.replace("PLACE", str(engine))]


ROWS = [[(0, 0, 5), (1, 0, 5)], [(2, 0, 5)], [(0, 5, 1), (1, 5, 1)]]
TOKENS = [[7, 8], [9], [10, 11]]


def watch_of(rows, tokens, rank: int = 0, others: list[str | None] = ()) -> WatchedScheduler:
    """What a rank has seen that has scheduled batches of these rows (request, start, length), and got these tokens."""

    class Scheduler:
        def schedule(self):
            batch = next(batches, None)
            return batch and Batch([Row(Request(str(id), [1], 4), *rest) for id, *rest in batch])

        def update(self, batch, tokens):
            return []

    batches = iter(rows)
    ranks = SimpleNamespace(rank=rank, timeout=5.0, exchange=lambda own: [*others, own])
    scheduler = composed(WatchedScheduler, Scheduler, ranks=ranks)()
    while batch := scheduler.schedule():
        scheduler.update(batch, np.array(tokens[len(scheduler.digests["scheduled"]) - 1], dtype=np.int32))
    return scheduler


@pytest.mark.parametrize(
    ("rows", "tokens", "message"),
    [
        ([ROWS[0], [(0, 5, 1), (2, 0, 5)], ROWS[2]], TOKENS, "rank 1 has not scheduled batch 1 as rank 0 has"),
        ([ROWS[0][::-1], *ROWS[1:]], TOKENS, "rank 1 has not scheduled batch 0 as rank 0 has"),
        (ROWS, [*TOKENS[:2], [10, 12]], "rank 1 has not got the tokens of batch 2 as rank 0 has"),
        (ROWS[:2], TOKENS, "rank 1 has not scheduled batch 2 as rank 0 has"),
        (ROWS, TOKENS, "no batch was scheduled for 0.01 s"),
    ],
    ids=["another batch", "another order", "other tokens", "fewer batches", "the same"],
)
def test_where_two_ranks_diverge_is_named_at_the_end_and_at_a_standstill(rows, tokens, message, monkeypatch):
    def leave(message: str, status: int):
        raise SystemExit(message)

    second = watch_of(rows, tokens, 1, [json.dumps(watch_of(ROWS, TOKENS).digests)])
    with nullcontext() if rows == ROWS and tokens == TOKENS else pytest.raises(RankError, match=f"^{message}$"):
        second.compare()
    monkeypatch.setattr(ranks, "leave", leave)
    second.ranks.timeout = 0.01
    with pytest.raises(SystemExit, match=f"^{message}$"):
        second._keep_watching(threading.Event())


def test_a_rank_that_says_nothing_is_named():
    alone = Ranks(0, 2, 0, timeout=0.2)
    alone._store = dist.HashStore()
    with pytest.raises(RankError, match="rank 1 has said nothing for 0.2 s"):
        alone.exchange("a word")


def test_a_model_whose_heads_the_gpus_do_not_divide_is_refused():
    with pytest.raises(InputError, match="3 GPUs cannot share its 2 KV heads evenly; give .* that divides 2"):
        Checkpoint("counter", Ranks(0, 3, 0, 1.0))


def test_each_rank_is_said_to_hold_its_part():
    whole, half = Checkpoint("llama-3.1-8b"), Checkpoint("llama-3.1-8b", Ranks(0, 2, 0, 1.0))
    assert [layer.kv_heads for layer in half.layers] == [4] * 32
    assert 0.5 <= half.weight_bytes / whole.weight_bytes < 0.54  # transformers 5.17 leaves the embedding whole


def test_a_launcher_that_started_fewer_ranks_is_not_overruled(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--gpus is 4, but 2 ranks were started"):
        start_ranks(4, "cpu", 1.0)
