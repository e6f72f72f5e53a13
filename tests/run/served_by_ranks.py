"""What each rank of tests/run/test_ranks.py runs: all chapters on tiny models. Rank N writes what it got to rankN.json.
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

from acb_minimal.errors import InputError, RankError
from acb_minimal.run import fuse, launch, shards
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.options import Options
from acb_minimal.run.ranks import Ranks
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job, workload

GRAPHS: list[torch.fx.Graph] = []  # that torch.compile has made


def main(folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    ranks = Ranks.here(60).join(kind)
    cases, got = json.loads((folder / "cases.json").read_text()), {}
    for name, case in cases.items():
        checkpoint = Checkpoint(case["model"], ranks)
        for chapter in case["chapters"]:
            got[f"{name} {chapter}"] = serve(case, chapter, checkpoint, kind, Options(gpus=ranks.count))
        if name == "llama":
            got["graphs"] = serve(case, "ch1", checkpoint, kind, Options(graphs=True, gpus=ranks.count))
            fuse.COMPILE["backend"] = aot_eager  # all of torch.compile but the compiler
            got["compiled"] = serve(case, "ch6", checkpoint, kind, Options(compile=True, gpus=ranks.count))
            targets = [str(node.target) for graph in GRAPHS for node in graph.nodes]
            got["compiled collectives"] = sum("all_reduce" in target for target in targets)
    load = workload("demo").override(requests=6)
    counter = Session(load.job(0), "ch6", Checkpoint("counter", ranks), kind)
    got["counter"] = [completion.text for completion in counter.serve()]
    got["random"] = [as_one(cases["llama"]["model"], tied, kind) for tied in (False, True)]
    got["a rank cannot"] = message(InputError, lambda: ranks.agree(lambda: refuse(ranks), "job"))
    got["another job"] = message(RankError, lambda: ranks.agree(lambda: None, f"job {ranks.rank}"))
    got["words"] = [ranks.word_of_the_first(f"{word} of rank {ranks.rank}") for word in ("one", "two")]
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        got["in another process"] = process.submit(total, ranks.again(), kind).result()
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(got))
    alike = {"prompts": [[number] * 5 for number in range(8)], "stops": [[]] * 8}  # or Gloo would abort: other sizes
    try:
        serve(alike, "ch6", Checkpoint("counter", ranks), kind, Options(gpus=2), reverse=ranks.rank == 1)
    except RankError as error:
        launch.leave(str(error), error.status)


def aot_eager(module: torch.fx.GraphModule, inputs: list):
    compiled = torch._dynamo.lookup_backend("aot_eager")(module, inputs)
    GRAPHS.append(module.graph)
    return compiled


def serve(
    case: dict, chapter: str, checkpoint: Checkpoint, kind: str, options: Options, reverse=False
) -> list[list[int]]:
    """Tokens of each prompt. Every request ends where the case says: by a stop token, or for length."""
    job = Job(case["prompts"], 12, max_running=5, max_batch_tokens=18, page_size=16, pages=12)
    session = Session(job, chapter, checkpoint, kind, options)
    for request, stop in zip(session.requests, case["stops"], strict=True):
        request.stop_tokens = frozenset(stop)
    if reverse:
        session.scheduler.waiting.reverse()
    tokens = [completion.tokens for completion in session.serve()]
    assert session.options.compile == options.compile  # and not given up
    return tokens


@torch.inference_mode()
def as_one(path: str, tied: bool, kind: str) -> bool:
    """Whether random weights that two ranks share do what they do undivided."""
    logits = []
    for count in (1, 2):
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(path, tie_word_embeddings=tied, vocab_size=90)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config)
        network = shards.put_in(network, torch.device(kind), count)
        logits.append(network(input_ids=torch.arange(9, device=kind)[None], use_cache=False).logits)
    return torch.allclose(*logits, atol=1e-4)


def refuse(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise InputError("too little of everything")


def message(kind: type[Exception], call) -> str | None:
    try:
        call()
    except kind as error:
        return str(error)


def total(ranks: Ranks, kind: str) -> float:
    """The sum over all ranks of what is 1 on each, reduced by a process group of its own."""
    ranks.join(kind)
    one = torch.ones(1, device=kind)
    dist.all_reduce(one)
    ranks.part()
    return one.item()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
