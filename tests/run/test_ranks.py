"""Two ranks that share a model: their tokens, and how a run ends that one of them does not come through.

On a machine with two GPUs these tests run there, through NCCL; on one without a GPU, through Gloo.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import FAMILIES, TINY, VOCAB, Harness
from transformers import AutoModelForCausalLM, LlamaConfig

from acb_minimal.errors import InputError, RankError
from acb_minimal.models import counter
from acb_minimal.run import launch
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.ranks import Ranks
from acb_minimal.run.workload import workload

KIND = "cuda" if torch.cuda.device_count() > 1 else "cpu"
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def cases_of(models: dict[str, tuple[Harness, str]]) -> dict[str, dict]:
    """By family: more prompts than run at a time, some of which stop early, and what `generate` makes of each."""
    rng, made = random.Random(0), {}
    for family, (model, path) in models.items():
        prompts = [rng.choices(range(VOCAB), k=rng.randint(1, 25)) for _ in range(8)]
        stops = [[model.oracle(prompt, 12)[rng.randint(1, 11)]] if number % 2 else []
                 for number, prompt in enumerate(prompts)]  # fmt: skip
        expected = [model.oracle(prompt, 12, stop) for prompt, stop in zip(prompts, stops, strict=True)]
        chapters = list(chapter_paths()) if family == "llama" else ["ch6_cuda_graphs"]
        made[family] = {"model": path, "prompts": prompts, "stops": stops, "expected": expected,
                        "chapters": chapters}  # fmt: skip
    return made


@pytest.fixture(scope="module")
def run(made_once, harness, tiny_path):
    """What two ranks were asked, what each got before they diverged, and how they ended; started once, for all tests.

    The ranks do not divide the families' vocabulary, and keep embedding and output whole; that of one more model,
    `even`, they do.
    """
    skip_one_gpu()

    def start(folder: Path) -> dict:
        torch.manual_seed(0)
        even = str(folder / "even")
        AutoModelForCausalLM.from_config(LlamaConfig(**TINY | {"vocab_size": VOCAB + 1})).save_pretrained(even)
        families = {family: (harness(family), tiny_path(family)) for family in FAMILIES}
        cases = cases_of(families | {"even": (Harness(even), even)})
        (folder / "cases.json").write_text(json.dumps(cases))
        script = str(Path(__file__).with_name("served_by_ranks.py"))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run([*command, script, folder, KIND], env=ENVIRONMENT, capture_output=True, text=True)
        files = [folder / f"rank{rank}.json" for rank in range(2)]
        assert all(file.exists() for file in files), done.stderr
        served = [json.loads(file.read_text()) for file in files]
        return {"cases": cases, "served": served, "status": done.returncode, "stderr": done.stderr}

    return made_once("ranks", start)[1]


def skip_one_gpu() -> None:
    if torch.cuda.device_count() == 1:
        pytest.skip("needs two GPUs, or a machine that has none")


@pytest.fixture
def served(run):
    return run["served"]


@pytest.fixture
def cases(run):
    return run["cases"]


@pytest.mark.parametrize("chapter", chapter_paths())
def test_ranks_generate_what_transformers_does_alone(cases, served, chapter):
    """Requests join, stop early, have their prompts cut and are padded."""
    assert [rank[f"llama {chapter}"] for rank in served] == [cases["llama"]["expected"]] * 2


@pytest.mark.parametrize("family", [*FAMILIES, "even"])
def test_the_last_chapter_does_so_with_every_family(cases, served, family):
    assert [rank[f"{family} ch6_cuda_graphs"] for rank in served] == [cases[family]["expected"]] * 2


def test_chapter_1_does_so_with_its_decodes_launched_as_graphs(cases, served):
    assert [rank["graphs"] for rank in served] == [cases["llama"]["expected"]] * 2


def test_layers_are_compiled_with_their_collectives_in_them(cases, served):
    assert [rank["compiled"] for rank in served] == [cases["llama"]["expected"]] * 2
    assert all(rank["compiled collectives"] for rank in served)


def test_ranks_take_the_word_of_the_first(served):
    assert [rank["words"] for rank in served] == [["one of rank 0", "two of rank 0"]] * 2


def test_ranks_count(served):
    prompts = workload("demo").override(requests=6).prompts(0)
    expected = [counter.answer(*(int(word) for word in prompt.split()[1::2])) for prompt in prompts]
    assert [rank["counter"] for rank in served] == [expected] * 2


def test_random_weights_are_those_that_one_gpu_would_have_tied_ones_too(served):
    assert [rank["random"] for rank in served] == [[True, True]] * 2


def test_what_one_rank_cannot_do_none_does(served):
    assert [rank["a rank cannot"] for rank in served] == ["rank 1: too little of everything"] * 2


def test_ranks_that_were_started_with_different_jobs_do_not_begin(served):
    assert [rank["another job"] for rank in served] == ["rank 1 was started with another job than rank 0"] * 2


def test_ranks_meet_again_in_other_processes(served):
    assert [rank["in another process"] for rank in served] == [2.0, 2.0]


def test_a_rank_that_serves_in_another_order_ends_all_with_a_line_that_names_it_and_the_batch(run):
    assert run["status"] == 1
    assert "error: rank 1 has scheduled another batch 0 than rank 0" in run["stderr"].splitlines()


KILLED = """
import os, signal
from acb_minimal.run.engines import load_chapter

class Engine(load_chapter("ch6")):
    def run(self):
        for number, request in enumerate(super().run()):
            if os.environ["RANK"] == "1" and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield request
"""


def test_a_rank_that_is_killed_ends_the_run_with_one_line_that_names_it(tmp_path):
    skip_one_gpu()
    engine = tmp_path / "engine.py"
    engine.write_text(KILLED)
    options = ["--gpus", "2", "--device", KIND, "--requests", "8"]
    command = [sys.executable, "-m", "acb_minimal.cli", "run", engine, *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1:] == ["error: rank 1 was ended by SIGKILL"]


def test_a_model_whose_heads_the_gpus_do_not_divide_is_refused():
    with pytest.raises(InputError, match="3 GPUs cannot share its 2 KV heads evenly; give .* that divides 2"):
        Checkpoint("counter", Ranks(0, 3, 0, 1.0))


def test_each_rank_is_said_to_hold_its_part():
    whole, half = Checkpoint("qwen3-32b"), Checkpoint("qwen3-32b", Ranks(0, 2, 0, 1.0))
    assert [layer.kv_heads for layer in half.layers] == [4] * 64
    assert half.weight_bytes == pytest.approx(whole.weight_bytes / 2, rel=0.03)  # some plans leave the embedding whole


def test_a_rank_that_does_not_say_whether_it_can_serve_is_named():
    ranks = Ranks(0, 2, 0, timeout=0.2)
    ranks._store = dist.HashStore()
    with pytest.raises(RankError, match="rank 1 has not said in 0.2 s whether it can serve this"):
        ranks.agree(lambda: None, "a job")


def test_a_launcher_that_started_fewer_ranks_is_not_overruled(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--gpus is 4, but 2 ranks were started"):
        launch.check_count(4)
