"""The Python entry point: what it yields, what it refuses and when, and that no run leaves a page behind."""

import gc
from types import SimpleNamespace

import pytest
import torch
from small_models import one_line

from acb_minimal import generate
from acb_minimal.errors import EngineError, InputError
from acb_minimal.models import counter
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.devices import WORKSPACE, check_gpu
from acb_minimal.run.engines import changed, load_chapter
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

GPU = SimpleNamespace(kind="cuda", torch_device=torch.device("cuda"))  # which is not asked to do anything


def test_generate_yields_text_and_tokens_as_requests_finish():
    pairs = [(3, 7), (10, 11), (998, 999), (0, 40), (5, 5)]
    done = list(generate([counter.prompt(a, b) for a, b in pairs], max_running=2, device="cpu"))
    assert {c.id: c.text for c in done} == {str(i): counter.answer(a, b) for i, (a, b) in enumerate(pairs)}
    assert [c.id for c in done].index("0") > [c.id for c in done].index("1")  # the shorter one finished first
    eos = Checkpoint("counter").config.eos_token_id
    assert all(c.finish_reason == "stop" and c.tokens[-1] == eos and c.error is None for c in done)
    (from_text,) = generate("count 3 to 7", device="cpu")
    (from_ids,) = generate([Checkpoint("counter").encode("count 3 to 7")], device="cpu")
    assert from_text == from_ids == done[[c.id for c in done].index("0")]


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("", "the prompt is empty"),
        ("count apples to 4", "prompt 'count apples to 4': model 'counter' does not know 'apples'"),
        ([5000], "token id 5000 is outside the vocabulary"),
        ([1] * 238, "238 prompt + 20 new tokens are past the model's 256 positions"),  # one more than there are
        ([1.5], "the prompt is [1.5]; it must be text or a sequence of token ids"),
        (None, "the prompt is None; it must be text or"),
        ([True], "the prompt is [True]; it must be text or"),
    ],
)
def test_a_bad_request_is_refused_by_name_and_the_good_ones_finish(prompt, why):
    prompts = ["count 3 to 4", prompt, [1] * 237]  # the last has 256 positions: its newest token needs none
    refused, *done = generate(prompts, device="cpu", max_new_tokens=20)
    assert refused.error.startswith(f"request '1': {why}")
    assert "\n" not in refused.error
    assert [(completion.id, completion.error) for completion in done] == [("0", None), ("2", None)]


def test_after_a_run_and_one_that_is_left_early_pages_are_back_and_garbage_collection_is_as_before():
    session, frozen = Session(Job([counter.prompt(0, a) for a in range(6)], max_running=3), device="cpu"), 0
    run = session.run()
    next(run)
    assert session.pool.num_free < session.pool.num_pages
    assert gc.get_freeze_count() > frozen
    run.close()
    assert session.pool.num_free == session.pool.num_pages
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chapter": "ch99"}, r"unknown chapter 'ch99': give one of ch1_sync"),
        ({"model": "no-such-model"}, r"unknown model 'no-such-model': not one of counter, llama-3.1-8b"),
        ({"device": "tpu"}, r"unknown device 'tpu': the devices are auto, cuda, sim, cpu"),
        ({"max_running": 0}, r"max_running is 0; it must be at least 1"),
        ({"max_running": 10**9}, r"max_running is 1000000000; it must be at most 2048: a batch has no more tokens"),
        ({"max_running": 10**9, "max_batch_tokens": 10**9}, r"max_batch_tokens is 1000000000; it must be at most 65"),
        ({"max_batch_tokens": 3}, r"max_running is 16; it must be at most 3: a batch"),
        ({"page_size": 0}, r"page size is 0; it must be at least 1"),
        ({"pages": 0}, r"page pool has 0 pages"),
        ({"stop": ["", "a"]}, r"the stop text is ''; it must have at least one"),
        ({"options": Options(mistake="kept-rows")}, r"the mistake 'kept-rows' is made in draws without a grammar"),
        ({"options": Options(mistake="late")}, r"unknown mistake 'late': give one of host-counts, batch-generator, k"),
    ],
)
def test_what_cannot_be_used_at_all_is_an_error_in_one_line_before_any_work(options, message, monkeypatch):
    monkeypatch.setattr(Checkpoint, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match=message) as caught:
        generate("count 3 to 4", **{"device": "cpu"} | options)
    one_line(caught)


def test_what_a_gpu_cannot_run_is_refused_before_the_model_is_loaded(monkeypatch):
    session = Session(Job(["count 3 to 4"]), device="cpu")
    checkpoint, pool, gpu = session.checkpoint, session.pool, GPU
    cache = sum(tensor.nbytes for tensor in session.load_model().cache.keys) * 2
    weights = sum(p.nbytes for p in checkpoint.load(torch.device("cpu")).parameters())
    enough = cache + weights + WORKSPACE
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (enough, enough))
    check_gpu(checkpoint, pool, gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (enough - 1, enough))
    with pytest.raises(InputError, match=rf"too little GPU memory: {pool.num_pages} KV pages take"):
        check_gpu(checkpoint, pool, gpu)
    checkpoint.layers = [layer._replace(head_dim=96) for layer in checkpoint.layers]
    with pytest.raises(InputError, match="its head size is 96; a GPU needs a power of two, 16 or more"):
        check_gpu(checkpoint, pool, gpu)


def test_a_model_without_a_tokenizer_serves_token_ids(tiny_path):
    (completion,) = generate([[1, 2, 3]], model=tiny_path("llama"), max_new_tokens=4)
    assert (len(completion.tokens), completion.text) == (4, None)
    (completion,) = generate(["text"], model=tiny_path("llama"))
    assert "has no tokenizer" in completion.error


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Engin:\n    pass\n", "has no attribute 'Engine'"),
        ("class Engine\n", "SyntaxError: expected ':'"),
        ("import no_such_module\n", "ModuleNotFoundError"),
    ],
)
def test_a_chapter_that_cannot_be_imported_is_an_error_in_one_line(tmp_path, source, message):
    mine = tmp_path / "mine.py"
    mine.write_text(source)
    with pytest.raises(InputError, match=message) as caught:
        load_chapter(str(mine))
    one_line(caught)


@pytest.mark.parametrize(
    ("yields", "message"),
    [
        ("yield from self.step()[:0]", "the engine stopped without yielding 4 requests, request '0' first"),
        ("yield from self.step()[:1]", "the engine stopped without yielding 3 requests, request '1' first"),
        ("yield from self.step() * 2", "the engine yielded request '0' twice"),
        (
            "yield from [row.request for row in self.scheduler.schedule().rows]; return",
            "the engine yielded request '0' before it was finished",
        ),
        ("yield {}", "the engine yielded {}; it has to yield each request once"),
    ],
)
def test_an_engine_that_does_not_yield_each_request_once_is_an_error(yields, message):
    engine = changed("ch1", ("yield from self.step()", yields))
    with pytest.raises(EngineError, match=message):
        Session(Job([[1]] * 4, 3, ignore_stop=True), engine, device="sim").serve()


def test_two_sessions_cannot_be_served_in_turns_by_one_network():
    """Their KV caches are attributes of its modules: in turns, one would read the other's, and nothing would crash."""
    checkpoint = Checkpoint("counter")
    jobs = [Job([counter.prompt(a, a + 9) for a in (3, 50)], max_running=2) for _ in range(2)]
    first, second = (Session(job, "ch5", checkpoint, "cpu") for job in jobs)
    running = first.run()
    next(running)
    with pytest.raises(InputError, match="serving another session"):
        second.serve()
    assert [completion.text for completion in running] == [counter.answer(50, 59)]
    with pytest.raises(InputError, match="has been served"):
        first.serve()
    assert [completion.text for completion in second.serve()] == [counter.answer(a, a + 9) for a in (3, 50)]
