"""Grammars: masks as bits, and the parts that hold tokens to them, in every chapter."""

import json
import random
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acb_minimal.check import oracle
from acb_minimal.check.network import NETWORK
from acb_minimal.errors import EngineError, InputError
from acb_minimal.grammar import Automaton, GrammarModel, JsonSchema, Walk, bits
from acb_minimal.kv_cache import KVCache
from acb_minimal.models import counter
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import load_chapter, retiring_first
from acb_minimal.run.grammars import grammar, grammars
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session, generate
from acb_minimal.run.workload import Job, workload
from acb_minimal.sampling import Sampling
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.cuda import CUDAGraph
from acb_minimal.sim.device import CpuDevice, SimulatedDevice
from acb_minimal.sim.policies import named
from acb_minimal.slot import SlotSize

CHECKPOINT = Checkpoint("counter")
PROMPTS = [counter.prompt(*pair) for pair in ((3, 9), (10, 13), (40, 44), (100, 112), (7, 8))]
GRAMMARS = ["twos", None, "three", "twos", None]
TABLES = [each and f"table:{each}" for each in GRAMMARS]
SAID = ["3 5 7 9", "10 11 12 13", "40 41 42", "100 102 104 106 108 110 112", "7 8"]
ENDS = ["stop", "stop", "grammar", "stop", "stop"]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 70), st.integers(1, 5), st.integers(0, 10**6))
def test_the_most_likely_allowed_token_is_sampled(vocab_size, rows, seed):
    rng = np.random.default_rng(seed)
    device, size = CpuDevice(), SlotSize(rows, rows, 1, vocab_size)
    cache = KVCache(NETWORK.layers, 1, 4, torch.float32, "cpu")
    with closing(GrammarModel(NETWORK, NETWORK.layers, cache, size, device)) as model:
        slot = model.new_slot()
    slot.pad(rows)
    model.scores.copy_(torch.from_numpy(rng.normal(size=(rows, vocab_size))))
    allowed = rng.random((rows, vocab_size)) < 0.3
    allowed[:, rng.integers(vocab_size)] = True
    for mask, row in zip(slot.mask_view, allowed, strict=True):
        mask[:] = bits(np.flatnonzero(row), vocab_size)
    slot.upload_masks()
    model.sample(slot)
    rows = zip(allowed, model.scores, strict=True)
    right = [max(np.flatnonzero(row), key=scores.__getitem__) for row, scores in rows]
    assert slot.device_tokens.tolist() == right


def served(chapter, policy=None, seed=0, grammars=GRAMMARS, **options) -> list[tuple[str, str]]:
    """What became of PROMPTS, which have to share pages and rows."""
    device = SimulatedDevice(Costs.of("counter"), policy and named(policy, seed))
    job = Job(PROMPTS, 20, max_running=3, max_batch_tokens=6, page_size=4, grammar=grammars)
    done = Session(job, chapter, CHECKPOINT, device, Options(**options)).serve()
    return [(completion.text, completion.finish_reason) for completion in done]


RIGHT = list(zip(SAID, ENDS, strict=True))
OTHERS = [pytest.param(chapter, "random", marks=pytest.mark.slow) for chapter in ("ch1", "ch2", "ch3", "ch4", "ch7")]


@pytest.mark.parametrize(
    ("chapter", "policy"), [("ch1", "timed"), ("ch4", "lazy"), ("ch7", "timed"), ("ch7", "lazy"), *OTHERS]
)
def test_requests_with_and_without_a_grammar_share_batches(chapter, policy):
    for seed in range(1 if policy != "random" else 12):
        assert served(chapter, policy, seed) == RIGHT


@pytest.mark.parametrize("chapter", ["ch5", "ch6"])
def test_masks_that_are_written_too_early_end_in_an_illegal_token(chapter):
    with pytest.raises(EngineError, match="request '0' got token 4 as its number 1: its grammar forbids it"):
        served(chapter)


def test_a_grammar_that_asks_only_how_many_tokens_there_were_can_be_early():
    done = generate(PROMPTS[:2], "ch5", device="sim", grammar="three")
    assert sorted((one.text, one.finish_reason) for one in done) == [("10 11 12", "grammar"), ("3 4 5", "grammar")]


@pytest.mark.parametrize(("chapter", "policy"), [("ch5", "timed"), ("ch5", "lazy"), ("ch6", "lazy"), ("ch5", "random")])
def test_a_table_on_the_device_needs_nothing_of_the_host(chapter, policy, monkeypatch):
    """Tokens as chapter 1 has them with masks, in a loop that writes none."""
    monkeypatch.setattr(Walk, "fill", None)
    assert served(chapter, policy, grammars=TABLES) == RIGHT


def test_who_gives_way_and_comes_back_is_in_its_state():
    """Its newest token is not that of the batch before, nor is its state."""
    prompts = [counter.prompt(*pair) for pair in ((3, 21), (40, 64), (100, 123), (250, 272), (7, 26))]
    job = Job(prompts, 16, max_running=4, max_batch_tokens=8, page_size=4, pages=12, preempt="recompute")
    done = (
        Session(replace(job, grammar=grammar), chapter, CHECKPOINT, "sim").serve()
        for chapter, grammar in (("ch1", "twos"), ("ch5", "table:twos"))
    )
    assert len({tuple(one.text for one in completions) for completions in done}) == 1


@pytest.mark.parametrize("chapter", ["ch1", "ch7"])
def test_a_table_is_refused_where_no_token_is_carried_over(chapter):
    with pytest.raises(InputError, match="chapters 5 and 6"):
        Session(Job(PROMPTS[:2], grammar="table:twos"), chapter, CHECKPOINT, "sim")


def test_a_table_has_a_limit(monkeypatch):
    monkeypatch.setattr("acb_minimal.grammar_table.MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"a grammar table of 1,00\d states and .* it must be at most 1"):
        list(generate(PROMPTS[:2], "ch5", device="sim", grammar="table:twos"))


def test_retiring_first_is_right_too():
    assert served(retiring_first("ch7"), "lazy") == RIGHT


@pytest.mark.parametrize(("chapter", "grammars"), [("ch7", GRAMMARS), ("ch5", TABLES)])
def test_graphs_go_as_far_as_the_scores_and_with_a_table_to_the_end(chapter, grammars, monkeypatch):
    replays, replay = [], CUDAGraph.replay
    monkeypatch.setattr(CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    assert served(chapter, graphs=True, grammars=grammars) == RIGHT
    assert len(replays) > 8


@pytest.mark.parametrize("chapter", ["ch7", *(pytest.param(each, marks=pytest.mark.slow) for each in ("ch1", "ch4"))])
def test_draws_from_what_a_grammar_allows(chapter):
    """Each number may be two more than the one before, or an end; three may be any. Drawn one request at a time."""
    sampling = [Sampling(temperature=6, seed=3), Sampling(temperature=6, seed=4, presence_penalty=5), None,
                Sampling(temperature=3, seed=5)]  # fmt: skip
    held = ["three", "three", "twos", None]
    job = Job(PROMPTS[:4], 8, max_running=3, max_batch_tokens=6, page_size=4, sampling=sampling, grammar=held)
    done = Session(job, chapter, CHECKPOINT, "sim").serve()
    network = CHECKPOINT._empty().from_pretrained(CHECKPOINT.path).eval()
    made = grammars(held, CHECKPOINT)
    for one, prompt, asked, held_to in zip(done, PROMPTS, sampling, made, strict=False):
        tokens, walk = CHECKPOINT.encode(prompt), held_to and held_to.matcher()
        prompt_len = len(tokens)
        while len(tokens) < prompt_len + len(one.tokens):
            with torch.inference_mode():
                scores = network(torch.tensor([tokens])).logits[0, -1].double().numpy()
            if walk:
                allowed = list(walk.automaton.states[walk.state])
                scores[np.setdiff1d(np.arange(len(scores)), allowed)] = -np.inf
            tokens.append(oracle.drawn(scores, tokens, prompt_len, asked or Sampling(), CHECKPOINT.stop_tokens))
            assert walk is None or walk.accept(tokens[-1])
        assert one.tokens == tokens[prompt_len:]
    assert [one.finish_reason for one in done[:2]] == ["grammar", "grammar"]
    assert len({tuple(one.tokens) for one in done[:2]}) == 2


def test_one_that_allows_nothing_is_refused_in_one_line():
    nothing = Automaton(CHECKPOINT.vocab_size, [{}])
    session = Session(Job(PROMPTS[:2], grammar=[nothing, None]), "ch7", CHECKPOINT, "sim")
    assert session.refused == {"0": "request '0': its grammar allows no token to begin with"}
    assert [one.text for one in session.serve()] == ["10 11 12 13"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("fours", "unknown grammar 'fours': give one of any, twos, three, or the path of a file with a JSON schema"),
        (["twos"], "there are 1 grammars for 2 prompts: give one for all, or one for each"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_work(asked, said):
    with pytest.raises(InputError) as told:
        Session(Job(PROMPTS[:2], grammar=asked), "ch7", CHECKPOINT, "sim")
    assert str(told.value) == said


def test_what_a_model_or_a_run_has_no_use_for_is_refused():
    with pytest.raises(InputError, match="grammar 'twos' is for the counter, not for model 'llama-3.2-1b': give any"):
        grammar("twos", Checkpoint("llama-3.2-1b"))
    with pytest.raises(InputError, match="mask work is 2 ms, and no masks are made: give a grammar"):
        Session(Job(PROMPTS), "ch5", CHECKPOINT, "sim", Options(mask_work=2e-3))
    with pytest.raises(InputError, match="mask work is -1 ms a step; it must be from 0"):
        Options(mask_work=-1e-3)


LONG = workload("small").override(requests=4, max_running=4, prompt_tokens=300, new_tokens=10)


def step(engine, mask_work: float) -> float:
    """Seconds of a decode step, decodes launched as graphs; simulated."""
    options = Options(graphs=True, grammar="any", mask_work=mask_work)
    session = Session(LONG.job(1000), engine, Checkpoint(LONG.model), "sim", options)
    session.serve()
    done = session.done
    return (done[-2].time - done[-6].time) / 4


@pytest.mark.slow
def test_masks_are_free_while_they_fit_beside_the_forward_pass():
    """By the page's formulas, which leave out what launching takes: here some 0.1 ms."""
    late, first = load_chapter("ch7"), retiring_first("ch7")
    kernels, host = step(late, 0.0), step(first, 0.0) - step(late, 0.0)
    assert host > 0.2e-3
    assert step(late, 1e-3) == pytest.approx(kernels)
    for mask_work in (1e-3, 2e-3, 4e-3):
        assert step(late, mask_work) == pytest.approx(max(kernels, mask_work + host), rel=0.06)
        assert step(first, mask_work) == pytest.approx(max(kernels, mask_work) + host, rel=0.06)


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "yy"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


class Bytes:
    """A vocabulary of all bytes, some pairs and an end, as llguidance wants one."""

    eos_token_id, bos_token_id = 256, None
    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>", b'": ', b'", "', b'{"']
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def test_a_json_schema_by_a_library():
    llguidance = pytest.importorskip("llguidance")
    made = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    schema = JsonSchema(json.dumps(SCHEMA), made, len(Bytes.tokens), (256,))
    for seed in range(5):
        rng, matcher, said = random.Random(seed), schema.matcher(), []
        mask = np.zeros(9, dtype=np.int32)
        while not matcher.ended:
            matcher.fill(mask)
            allowed = [t for t in range(len(Bytes.tokens)) if int(mask[t // 32]) >> t % 32 & 1]
            # Not only blanks, which JSON has anywhere.
            said.append(rng.choice([t for t in allowed if Bytes.tokens[t].strip()] or allowed))
            assert matcher.accept(said[-1])
        value = json.loads(b"".join(Bytes.tokens[t] for t in said if t != 256))
        assert 0 <= value["a"] <= 99
        assert value["b"] in ("x", "yy")
    assert not schema.matcher().accept(ord("x"))
    with pytest.raises(InputError, match="the JSON schema cannot be used: "):
        JsonSchema('{"type": "nonsense"}', made, len(Bytes.tokens), (256,))


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(InputError, match=r"a JSON schema needs llguidance: pip install -e '.\[grammar\]'"):
        JsonSchema("{}", None, 1, ())
