"""Sampling: what is drawn, against a draw one request at a time; and in every chapter the same."""

import itertools
import math
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from acb_minimal import draw
from acb_minimal.check import oracle
from acb_minimal.check.network import NETWORK
from acb_minimal.errors import InputError
from acb_minimal.kv_cache import KVCache
from acb_minimal.models import counter
from acb_minimal.request import Batch, Row
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sampler import SamplingModel
from acb_minimal.sampling import Asked, Sampling, SamplingRequest
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import CpuDevice, SimulatedDevice
from acb_minimal.sim.policies import named
from acb_minimal.slot import SlotSize

CHECKPOINT = Checkpoint("counter")
VOCAB = 40


def numbers(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0, 0.5, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 7, VOCAB, 10**6]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
    seed=st.integers(0, 2**32 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    presence_penalty=st.sampled_from([0, 1.5, -1.0]),
    frequency_penalty=st.sampled_from([0, 0.7, -0.5]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.sampled_from([-100.0, -1.0, 2.5]), max_size=3),
    min_tokens=st.integers(0, 6),
    logprobs=st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(samplings, min_size=1, max_size=5), st.integers(0, 10**6))
def test_a_batch_draws_what_each_of_its_requests_draws_alone(each, seed):
    """Scores come from nowhere; counts come from the tokens of the batch."""
    rng, rows = numbers(seed), len(each)
    requests = []
    for number, sampling in enumerate(each):
        length, prompt_len = rng.integers(2, 9), rng.integers(1, 3)
        tokens = rng.integers(0, VOCAB, length).tolist()
        requests.append(SamplingRequest(str(number), tokens, 8, (1, 5), sampling=sampling))
        requests[-1].prompt_len = prompt_len  # the rest of it was generated
        requests[-1].take(rows - 1 - number)
    asked = Asked.by(requests)
    device, size = CpuDevice(), SlotSize(rows, 40, 1, VOCAB, asked.biases)
    cache = KVCache(NETWORK.layers, 1, 40, torch.float64, "cpu")
    with closing(SamplingModel(NETWORK, NETWORK.layers, cache, size, device, asked)) as model:
        slot = model.new_slot()
    for request in requests:
        request.pages = [0]
    slot.write(Batch([Row(request, 0, len(request.tokens)) for request in requests]))
    slot.upload()
    scores = rng.normal(scale=3, size=(rows, VOCAB))
    model.scores.copy_(torch.from_numpy(scores))
    state = model.new_state()
    state.fill_(7)  # of whoever had the rows before
    model.count(slot, state)
    model.sample(slot, state)
    tokens, bits = slot.download()
    right = [oracle.drawn(row, one.tokens, one.prompt_len, one.sampling, (1, 5))
             for row, one in zip(scores, requests, strict=True)]  # fmt: skip
    assert tokens.tolist() == right
    for token, logprob, row, request in zip(right, bits.view(np.float32), scores, requests, strict=True):
        if request.sampling.logprobs:
            assert logprob == pytest.approx(row[token] - np.log(np.exp(row).sum()), abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**20), st.integers(1, 200))
def test_the_hash_is_that_of_integers_without_an_end(seed, position, vocab_size):
    seeds = torch.tensor([seed], dtype=torch.int64).to(torch.int32)
    bits = draw.hashed(seeds, torch.tensor([position], dtype=torch.int32), vocab_size)
    right = [oracle.noise(seed, position, token) for token in range(vocab_size)]
    assert draw.gumbel(bits, torch.float64)[0].tolist() == pytest.approx(right, rel=1e-12)
    assert draw.gumbel(bits, torch.float32)[0].tolist() == pytest.approx(right, rel=1e-4, abs=1e-4)


def test_noise_is_a_number_whatever_the_bits():
    bits = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31)], dtype=torch.int32)
    for dtype in (torch.float32, torch.float64):
        noise = draw.gumbel(bits, dtype)
        assert noise.isfinite().all()
        assert noise.max() == pytest.approx(33 * math.log(2), rel=1e-5)  # the rarest has a probability of 2^-33


def chi_squared(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """How far counts are from what is expected, in standard deviations of a chi-squared distribution."""
    kept = expected >= 5
    freedom = int(kept.sum()) - 1
    return float((((counts - expected) ** 2 / expected)[kept].sum() - freedom) / math.sqrt(2 * freedom))


LOOKED = 5  # standard deviations: of 10 looks at a fair draw, one in 100,000 is farther off


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by", ["seed", "position"])
def test_tokens_are_drawn_as_often_as_their_probabilities_say(by, dtype):
    """20,000 draws over seeds, and over positions."""
    draws, scores = 20_000, torch.from_numpy(numbers(1).normal(scale=2, size=60)).to(dtype)
    each, none = torch.arange(draws, dtype=torch.int32), torch.zeros(draws, dtype=torch.int32)
    seeds, positions = (each, none) if by == "seed" else (none, each)
    given = draw.Settings(seeds, torch.ones(draws), *[none] * 5)
    found = draw.drawn(scores.expand(draws, -1), given, positions).bincount(minlength=60)
    expected = draws * scores.double().softmax(-1)
    assert chi_squared(found, expected) < LOOKED


def test_neighbours_are_independent():
    """Of two positions, and of two seeds, in a row: pairs come as often as they do by chance."""
    draws, vocab_size = 40_000, 8
    each, none = torch.arange(draws, dtype=torch.int32), torch.zeros(draws, dtype=torch.int32)
    scores = torch.zeros(draws, vocab_size)
    for seeds, positions in ((each, none), (none, each)):
        found = draw.drawn(scores, draw.Settings(seeds, torch.ones(draws), *[none] * 5), positions)
        pairs = (vocab_size * found[::2] + found[1::2]).bincount(minlength=vocab_size**2)
        assert chi_squared(pairs, torch.full((vocab_size**2,), draws / 2 / vocab_size**2)) < LOOKED


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 2.0]), st.integers(1, 30), st.floats(0.05, 1.0))
def test_penalties_and_cuts_are_those_of_transformers(seed, temperature, top_k, top_p):
    rng = numbers(seed)
    scores, ids = torch.from_numpy(rng.normal(scale=3, size=(1, 30))), torch.from_numpy(rng.integers(0, 30, (1, 9)))
    theirs = LogitsProcessorList([
        RepetitionPenaltyLogitsProcessor(1.25), TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k),
        TopPLogitsWarper(top_p),
    ])  # fmt: skip
    right = theirs(ids, scores.clone()).isfinite()
    one = torch.ones(1, dtype=torch.float64)
    asked = draw.Settings(0, temperature * one, top_k * one.int(), top_p * one, 1.25 * one, 0 * one, 0 * one)
    counts = ids[0].bincount(minlength=30)[None].int()
    found = draw.cut(draw.warmed(draw.penalised(scores, counts, 0 * counts, asked), asked), asked).isfinite()
    assert found.tolist() == right.tolist()


# ---------------------------------------------------------------------------------------------- in every chapter

PROMPTS = [counter.prompt(*pair) for pair in ((3, 9), (10, 13), (40, 44), (100, 112), (7, 8))]
EACH = [
    Sampling(temperature=4, seed=1),
    None,
    Sampling(temperature=6, top_k=20, top_p=0.95, seed=2, logprobs=True),
    Sampling(frequency_penalty=9, repetition_penalty=1.4, logit_bias={9: 30.0, 200: 26.0}, min_tokens=5),
    Sampling(temperature=5, presence_penalty=3, frequency_penalty=-2, seed=2**32 - 1),
]


def served(chapter, policy=None, seed=0, numbers=range(5), graphs=False, **limits) -> dict[int, tuple]:
    """What became of some of PROMPTS, by number; by default they have to share pages and rows."""
    device = SimulatedDevice(Costs.of("counter"), policy and named(policy, seed))
    limits = {"max_running": 3, "max_batch_tokens": 6, "page_size": 4} | limits
    job = Job([PROMPTS[n] for n in numbers], 12, sampling=[EACH[n] for n in numbers], **limits)
    done = Session(job, chapter, CHECKPOINT, device, Options(graphs=graphs)).serve()
    return {n: (one.tokens, one.finish_reason) for n, one in zip(numbers, done, strict=True)}


@pytest.fixture(scope="module")
def right() -> dict[int, tuple]:
    """The same, a request at a time: scores by transformers, tokens by the oracle."""
    network = CHECKPOINT._empty().from_pretrained(CHECKPOINT.path).eval()
    (end,) = CHECKPOINT.stop_tokens
    answers = {}
    for number, (prompt, sampling) in enumerate(zip(PROMPTS, EACH, strict=True)):
        tokens = CHECKPOINT.encode(prompt)
        prompt_len, reason = len(tokens), "length"
        for _ in range(12):
            with torch.inference_mode():
                scores = network(torch.tensor([tokens])).logits[0, -1].double().numpy()
            tokens.append(oracle.drawn(scores, tokens, prompt_len, sampling or Sampling(), (end,)))
            if tokens[-1] == end:
                reason = "stop"
                break
        answers[number] = tokens[prompt_len:], reason
    return answers


LATER = itertools.product(("ch1", "ch2", "ch3", "ch4", "ch5", "ch6", "ch8"), ("lazy", "random"))
OTHERS = [pytest.param(*each, marks=pytest.mark.slow) for each in LATER]


@pytest.mark.parametrize(("chapter", "policy"), [("ch1", None), ("ch6", None), ("ch8", None), *OTHERS])
def test_a_request_draws_the_same_in_every_chapter_as_alone(chapter, policy, right):
    for seed in range(1 if policy != "random" else 6):
        assert served(chapter, policy, seed) == right


def test_who_gives_way_and_comes_back_draws_the_same(right):
    """All its tokens are inputs once more, and counted once more, in whatever row it gets."""
    assert served("ch5", max_running=5, max_batch_tokens=6, preempt="recompute", pages=8) == right


def test_graphs_change_nothing(right):
    assert served("ch5", graphs=True) == right
    assert served("ch8", graphs=True) == right


@pytest.mark.parametrize("chapter", ["ch5", "ch8"])
def test_the_host_waits_once_in_a_step(chapter):
    session = Session(Job(PROMPTS, 12, sampling=EACH), chapter, CHECKPOINT, "sim", trace=True)
    session.serve()
    waits = [span for span in session.trace.lane("CPU") if span.name == "wait"]
    assert len(waits) == len(session.done)


def test_seeds_differ_and_logprobs_are_of_the_tokens():
    asked = [Sampling(temperature=5, seed=seed, logprobs=True) for seed in (1, 2, 1)]
    done = Session(Job(PROMPTS[:1] * 3, 6, sampling=asked), "ch5", CHECKPOINT, "sim").serve()
    assert done[0].tokens == done[2].tokens != done[1].tokens
    for one in done:
        assert len(one.logprobs) == len(one.tokens)
        assert all(logprob <= 0 for logprob in one.logprobs)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -1}, "temperature is -1; it must be 0, for the likeliest token, or from 0.01 to 100"),
        ({"top_p": 1.5}, "top_p is 1.5; it must be above 0 and at most 1"),
        ({"top_k": -1}, "top_k is -1; it must be from 0 to 2,147,483,647"),
        ({"top_k": 1.5}, "top_k is 1.5; it must be a whole number"),
        ({"presence_penalty": math.inf}, "presence_penalty is inf; it must be from -100 to 100"),
        ({"logit_bias": {3: 1000}}, "the logit bias of token 3 is 1000; it must be from -100 to 100"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(wrong, said):
    with pytest.raises(InputError) as told:
        Sampling(**wrong)
    assert str(told.value) == said


def test_what_a_model_cannot_is_told_of_the_request():
    asked = [Sampling(logit_bias={5000: 1.0}), Sampling(min_tokens=30), None]
    session = Session(Job(PROMPTS[:3], 20, sampling=asked), "ch5", CHECKPOINT, "sim")
    assert session.refused == {
        "0": "request '0': the logit bias is for token id 5000, outside the vocabulary (0 to 1004)",
        "1": "request '1': min_tokens is 30; it must be at most max_new_tokens, 20",
    }
    for job, chapter, said in (
        (Job(PROMPTS, sampling=asked), "ch5", "there are 3 samplings for 5 prompts: give one for all, or one for each"),
        (Job(PROMPTS, sampling=EACH[0], grammar="table:twos"), "ch5", "a table of a grammar is for the likeliest"),
    ):
        with pytest.raises(InputError, match=said):
            Session(job, chapter, CHECKPOINT, "sim")


def test_greedy_requests_cost_nothing():
    session = Session(Job(PROMPTS, sampling=[None, Sampling(top_k=3), Sampling(seed=4), None, None]), "ch5", CHECKPOINT)
    assert type(session.requests[0]).__name__ == "Request"
    with closing(session.load_model()) as model:
        assert not isinstance(model, SamplingModel)
