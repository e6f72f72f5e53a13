"""What each rank of tests/run/test_ranks.py runs. Rank N writes what it got to rankN.json.
At last rank 1 serves in another order, which ends all of them.

    torchrun --standalone --nproc-per-node 2 served_by_ranks.py FOLDER cpu
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM

from acb_minimal.errors import RankError
from acb_minimal.run import shards
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.compile import COMPILE
from acb_minimal.run.options import Options
from acb_minimal.run.ranks import Ranks, leave
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

GRAPHS: list[torch.fx.Graph] = []  # that torch.compile has made


def main(folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    ranks = Ranks.here(60).join(kind)
    cases, got = json.loads((folder / "cases.json").read_text()), {}
    for name, case in cases.items():
        checkpoint = Checkpoint(case["model"], ranks)
        for chapter in case["chapters"]:
            got[f"{name} {chapter}"] = serve(case["prompts"], chapter, checkpoint, kind, Options(gpus=2))
        if name == "counter":
            got["graphs"] = serve(case["prompts"], "ch1", checkpoint, kind, Options(graphs=True, gpus=2))
            COMPILE["backend"] = aot_eager  # all of torch.compile but the compiler
            got["compiled"] = serve(case["prompts"], "ch6", checkpoint, kind, Options(compile=True, gpus=2))
            targets = [str(node.target) for graph in GRAPHS for node in graph.nodes]
            got["compiled collectives"] = sum("all_reduce" in target for target in targets)
    got["random"] = random_logits(cases["llama"]["model"], kind)
    got["words"] = ranks.exchange(f"of rank {ranks.rank}")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        got["in another process"] = process.submit(total, ranks.again(), kind).result()
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(got))
    alike = [[number] * 5 for number in range(8)]  # or Gloo would abort: other sizes
    try:
        serve(alike, "ch6", Checkpoint("counter", ranks), kind, Options(gpus=2), reverse=ranks.rank == 1)
    except RankError as error:
        leave(str(error), error.status)


def aot_eager(module: torch.fx.GraphModule, inputs: list):
    compiled = torch._dynamo.lookup_backend("aot_eager")(module, inputs)
    GRAPHS.append(module.graph)
    return compiled


def serve(prompts, chapter, checkpoint: Checkpoint, kind: str, options: Options, reverse=False) -> list[list[int]]:
    """Tokens of each prompt. Requests join, are cut to the budget, stop when the model does, and are padded."""
    job = Job(prompts, 12, max_running=5, max_batch_tokens=18, page_size=16, pages=12)
    session = Session(job, chapter, checkpoint, kind, options)
    if reverse:
        session.scheduler.waiting.reverse()
    tokens = [completion.tokens for completion in session.serve()]
    assert session.options.compile == options.compile  # and not given up
    return tokens


@torch.inference_mode()
def random_logits(path: str, kind: str) -> float:
    """One of those that random weights give which the ranks have drawn, tied ones among them."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path, tie_word_embeddings=True))
    network = shards.share(network, torch.device(kind), 2)
    return network(input_ids=torch.arange(9, device=kind)[None], use_cache=False).logits[0, -1, 0].item()


def total(ranks: Ranks, kind: str) -> float:
    """The sum over all ranks of what is 1 on each, reduced by a process group of its own."""
    ranks.join(kind)
    one = torch.ones(1, device=kind)
    dist.all_reduce(one)
    dist.destroy_process_group()
    return one.item()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
