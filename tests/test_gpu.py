"""What only a CUDA GPU can show: `pytest -m gpu`."""

import random

import pytest
import torch

from acb_minimal.models import counter
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job, workload
from acb_minimal.sampling import Sampling

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("chapter", chapter_paths())
def test_the_counter_counts(chapter):
    """500 requests in fp32, joining and leaving, with prompts cut to fit the budget."""
    load = workload("demo").override(requests=500)
    prompts = load.prompts(0)
    job = Job(prompts, max_running=load.max_running, max_batch_tokens=18, page_size=16, pages=60)
    session = Session(job, chapter, device="cuda")
    done = {completion.id: completion.text for completion in session.run()}
    expected = [counter.answer(*(int(word) for word in prompt.split()[1::2])) for prompt in prompts]
    assert [done[str(number)] for number in range(len(prompts))] == expected
    assert session.pool.num_free == session.pool.num_pages


def test_random_weights_give_the_same_tokens_on_the_cpu():
    """Kernels, in graphs whose batches grow, and plain torch agree in fp32, prompts longer than a page included."""
    rng = random.Random(0)
    prompts = [rng.choices(range(1000), k=rng.randint(1, 150)) for _ in range(20)]
    tokens = []
    for chapter, device in (("ch1", "cpu"), ("ch6", "cuda")):
        session = Session(Job(prompts, max_new_tokens=20, ignore_stop=True, page_size=16), chapter, device=device)
        tokens.append({completion.id: completion.tokens for completion in session.run()})
    assert tokens[0] == tokens[1]


ASKED = [
    Sampling(temperature=4, seed=1), None, Sampling(temperature=6, top_k=20, top_p=0.95, seed=2, logprobs=True),
    Sampling(frequency_penalty=9, repetition_penalty=1.4, logit_bias={9: 30.0, 200: 26.0}, min_tokens=5),
]  # fmt: skip


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("chapter", ["ch1", "ch5", "ch6", "ch8"])
def test_draws_are_those_of_the_cpu(chapter, graphs):
    """In fp32, compiled and not, as graphs and not, whoever is beside whom."""
    prompts = [counter.prompt(*pair) for pair in ((3, 9), (10, 13), (40, 44), (100, 112))] * 3
    job = Job(prompts, 12, max_running=4, max_batch_tokens=7, page_size=16, sampling=ASKED * 3)
    ways = ("ch1", "counter", "cpu"), (chapter, "counter", "cuda", Options(graphs=graphs))
    found = [Session(job, *way).serve() for way in ways]
    cpu, gpu = ([(one.tokens, one.finish_reason) for one in done] for done in found)
    assert gpu == cpu


PART_TWO = {
    "masks": ("ch7", {"grammar": "twos"}),
    "swapped out": ("ch9", {"pages": 9, "preempt": "swap"}),
    "drafts": ("ch10", {"speculate": 3}),
}


@pytest.mark.parametrize(("chapter", "asked"), PART_TWO.values(), ids=PART_TWO)
def test_part_two_as_graphs_gives_the_tokens_of_the_cpu(chapter, asked):
    prompts = [counter.prompt(*pair) for pair in ((3, 9), (10, 13), (40, 44), (100, 112))] * 3
    job = Job(prompts, 12, max_running=4, max_batch_tokens=16, page_size=4, **asked)
    ways = (chapter, "counter", "cpu"), (chapter, "counter", "cuda", Options(graphs=True))
    cpu, gpu = ([one.tokens for one in Session(job, *way).serve()] for way in ways)
    assert gpu == cpu


@pytest.mark.parametrize("asked", [{}, {"sampling": ASKED[2:]}, {"speculate": 3}], ids=["greedy", "drawn", "drafts"])
def test_a_forward_pass_never_makes_the_host_wait(asked):
    """Not in transformers' code either: one look at a tensor's value, and no chapter could overlap anything."""
    session = Session(Job([[1] * 30, [2] * 5], max_running=2, **asked), device="cuda")
    model = session.load_model()
    slot = model.new_slot()
    for _ in range(3):  # a batch of prompts, then decodes
        batch = session.scheduler.schedule()
        slot.write(batch)
        slot.upload()
        model.forward(slot)  # what is compiled is so by now; counted twice, it draws other tokens
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.forward(slot)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        session.scheduler.update(batch, slot.download())
    session.scheduler.abort()
