"""What only a CUDA GPU can show: `pytest -m gpu`."""

import random

import pytest
import torch

from acb_minimal.models import counter
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job, workload

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
    """Kernels and plain torch agree token for token in fp32, prompts longer than a page included."""
    rng = random.Random(0)
    prompts = [rng.choices(range(1000), k=rng.randint(1, 150)) for _ in range(20)]
    tokens = []
    for device in ("cpu", "cuda"):
        session = Session(Job(prompts, max_new_tokens=20, ignore_stop=True, page_size=16), device=device)
        tokens.append({completion.id: completion.tokens for completion in session.run()})
    assert tokens[0] == tokens[1]


def test_a_forward_pass_never_makes_the_host_wait():
    """Not in transformers' code either: one look at a tensor's value, and no chapter could overlap anything."""
    session = Session(Job([[1] * 30, [2] * 5], max_running=2), device="cuda")
    model = session.load_model()
    slot = model.new_slot()
    for _ in range(2):  # a batch of prompts, then one of decodes
        batch = session.scheduler.schedule()
        slot.write(batch)
        slot.upload()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.forward(slot)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        session.scheduler.update(batch, slot.download())
    session.scheduler.abort()
