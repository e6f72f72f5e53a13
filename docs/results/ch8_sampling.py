"""Chapter 8: what sampling costs, by itself and in a step.

    python docs/results/ch8_sampling.py          # on a GPU: makes ch8_sampling.json anew
    python docs/results/ch8_sampling.py --sim    # a rehearsal without one; stores nothing

First what the GPU does for a batch of decodes that are drawn, for a vocabulary of 128,256: counting its inputs, and the
draw from scores that are there. It is timed in graphs, so that launching plays no part; compiled, as engines run it,
and operation by operation. Beside it, what takes the likeliest where nobody asks for more.

Then decode steps of `small`, launched as graphs as far as the scores; chapter 6 captures all of it. And that the host
waits for nothing in it: torch is told to raise an error where it does.
"""

import sys
from contextlib import closing

import torch
from common import PAGE_SIZE, gpu_seconds, machine, need_gpu, store

from acb_minimal.check.network import NETWORK
from acb_minimal.kv_cache import KVCache
from acb_minimal.measure.metrics import Metrics
from acb_minimal.request import Batch, Row
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.options import Options
from acb_minimal.run.part_two import CompiledDraws
from acb_minimal.run.session import Session
from acb_minimal.run.timed import timed
from acb_minimal.run.workload import workload
from acb_minimal.sampler import SamplingModel, choose
from acb_minimal.sampling import Asked, Sampling, SamplingRequest
from acb_minimal.slot import SlotSize

VOCAB = 128_256
ROWS = (128, 384)
PENALTIES = {"repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1}
ASKED = {
    "temperature": Sampling(0.8, seed=7),
    "temperature, top-k and top-p": Sampling(0.8, 50, 0.95, seed=7),
    "penalties": Sampling(**PENALTIES),
    "all, and log probabilities": Sampling(0.8, 50, 0.95, 7, **PENALTIES, logit_bias={9: 1.0}, logprobs=True),
}
COSTS = {"rows": "d", "asked for": ""} | dict.fromkeys(("counting", "draw", "draw, not compiled"), ".0f")
STEPS = {"asked for": ""} | dict.fromkeys(("ch5", "ch6", "ch8"), ".2f") | {"same tokens": ".1%"}
COSTS_NOTE = "us on the GPU for a batch of decodes, medians of graph replays. The likeliest: what Model.forward does."
STEPS_NOTE = "ms per decode step, medians. Same: tokens of chapters 6 and 8 that are chapter 5's."


def model_of(rows: int, vocab_size: int, sampling: Sampling) -> tuple[SamplingModel, list[SamplingRequest]]:
    """A model with room for so many rows, and as many requests that ask for the same."""
    device = machine()
    requests = [SamplingRequest(str(n), [n % vocab_size] * 8, 9, sampling=sampling) for n in range(rows)]
    for row, request in enumerate(requests):
        request.take(row)
        request.pages = [0]
    asked = Asked.by(requests)
    size = SlotSize(rows, rows, 1, vocab_size, asked.biases)
    cache = KVCache(NETWORK.layers, 1, PAGE_SIZE, torch.bfloat16, device.torch_device)
    with closing(timed(CompiledDraws)(NETWORK, NETWORK.layers, cache, size, device, asked)) as model:
        return model, requests


def costs(rows: int, vocab_size: int, seconds) -> list[list]:
    """Rows of the first table, for that many rows of a batch."""
    found = []
    for name, sampling in ASKED.items():
        model, requests = model_of(rows, vocab_size, sampling)
        slot, state = model.new_slot(), model.new_state()
        slot.write(Batch([Row(request, 7, 1) for request in requests]))
        slot.upload()
        model.scores.normal_(std=3)
        if not found:
            scores, outputs = model.scores.bfloat16(), slot.written.outputs[0]
            greedy = seconds(lambda s=scores, o=outputs: o.copy_(s.argmax(-1)))
            found.append([rows, "the likeliest", None, greedy, None])
        counting = seconds(lambda m=model, a=slot, b=state: m.count(a, b)) if model.asked.penalties else None
        draw = seconds(lambda m=model, a=slot, b=state: m.sample(a, b))
        model.choose = lambda *given, asked=model.asked: choose(*given, asked)
        plain = seconds(lambda m=model, a=slot, b=state: m.sample(a, b))
        found.append([rows, name, counting, draw, plain])
        del model, slot, state
    return [[*row[:2], *(None if each is None else 1e6 * each for each in row[2:])] for row in found]


def steps(device: str) -> list[list]:
    """Rows of the second table."""
    load = workload("small").override(new_tokens=48)
    checkpoint, found = Checkpoint(load.model), []
    job = load.job(checkpoint.vocab_size)

    def step(chapter: str, sampling: Sampling | None) -> tuple[float, list[list[int]]]:
        session = Session(job, chapter, checkpoint, device, Options(graphs=chapter != "ch6", sampling=sampling))
        tokens = [completion.tokens for completion in session.serve()]
        return Metrics.of(session).ms_per_decode_step, tokens

    for name, sampling in {"the likeliest": None, **ASKED}.items():
        if name == "penalties":
            continue  # they are in the last one
        (five, right), (six, mine), (eight, theirs) = (step(chapter, sampling) for chapter in ("ch5", "ch6", "ch8"))
        same = torch.tensor([mine, theirs]) == torch.tensor(right)
        found.append([name, five, six, eight, same.float().mean().item()])
    return found


def check_waits(vocab_size: int) -> None:
    """Counts and draws, all that there is to ask for, where torch raises an error if the host waits."""
    model, requests = model_of(4, vocab_size, ASKED["all, and log probabilities"])
    slot, state = model.new_slot(), model.new_state()
    slot.write(Batch([Row(request, 7, 1) for request in requests]))
    slot.upload()
    model.sample(slot, state)  # compiles it
    torch.cuda.set_sync_debug_mode("error")
    model.count(slot, state)
    model.sample(slot, state)
    torch.cuda.set_sync_debug_mode("default")
    print("the host waits for nothing")


def once(call) -> float:
    """Calls it; there is nothing to time."""
    call()
    return 0.0


if __name__ == "__main__":
    rehearsed = "--sim" in sys.argv
    if rehearsed:
        table = [row for rows in (2, 3) for row in costs(rows, 100, once)]
    else:
        need_gpu()
        table = [row for rows in ROWS for row in costs(rows, VOCAB, gpu_seconds)]
    store("ch8_sampling.json", "costs", "Sampling by itself", COSTS, table, COSTS_NOTE)
    store("ch8_sampling.json", "steps", "Sampling in a step", STEPS, steps("sim" if rehearsed else "cuda"), STEPS_NOTE)
    if not rehearsed:
        check_waits(VOCAB)
