"""Networks that are served exactly, and those that are refused because they would not be."""

import pytest
import small_models
import torch
import transformers
from small_models import one_line

from acb_minimal.errors import InputError
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

CPU = torch.device("cpu")


@pytest.mark.parametrize("flaw", small_models.BY_ITS_ATTENTION)
def test_a_model_whose_attention_is_not_ours_is_refused_before_it_is_loaded(tmp_path, flaw):
    path = small_models.save(tmp_path, flaw)
    with pytest.raises(InputError, match="Small cannot be served here: ") as caught:
        Checkpoint(path)
    assert small_models.BY_ITS_ATTENTION[flaw] in one_line(caught)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flaw", small_models.BY_ITS_WEIGHTS)
def test_a_model_that_would_answer_something_else_is_refused_once_it_is_loaded(tmp_path, flaw, dtype):
    checkpoint = Checkpoint(small_models.save(tmp_path, flaw, dtype=dtype))
    with pytest.raises(InputError, match="Small cannot be served here: ") as caught:
        checkpoint.load(CPU)
    assert small_models.BY_ITS_WEIGHTS[flaw] in one_line(caught)


def test_how_sums_of_16_bits_round_is_no_flaw(tmp_path):
    assert Checkpoint(small_models.save(tmp_path, dtype=torch.bfloat16)).load(CPU) is not None


def test_what_no_request_can_reach_is_no_reason(tmp_path):
    """Its queries would be scaled from position 256 on: it has no more than 200."""
    assert Checkpoint(small_models.save(tmp_path, "place in cache", positions=200)).load(CPU) is not None


@pytest.mark.parametrize("settings", [{}, {"window": 5}], ids=["all positions", "a window"])
def test_a_model_without_a_flaw_is_served_as_generate_serves_it(tmp_path, settings):
    assert served_exactly(small_models.save(tmp_path, **settings))


def served_exactly(path: str) -> bool:
    """Whether a model's tokens are those of its own `generate`."""
    prompts = [[5, 17, 3], [8], list(range(20, 39))]
    job = Job(prompts, 8, max_running=2, max_batch_tokens=16, page_size=4, ignore_stop=True)
    done = Session(job, "ch1", path, "cpu").serve()
    reference = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    for prompt, completion in zip(prompts, done, strict=True):
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None}
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), **options)
        if completion.tokens != out[0, len(prompt) :].tolist():
            return False
    return True


TINY = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 89}
SMALL = TINY | {"num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0}
REAL = [  # docs/results/model_types.py tries all there are
    transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=89, initializer_range=0.3, bos_token_id=None,
                            eos_token_id=None),
    transformers.Gemma2Config(**SMALL, head_dim=16),
    pytest.param(transformers.MixtralConfig(**SMALL, num_local_experts=4, initializer_range=0.3),
                 marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_a_model_of_transformers_is_refused_in_one_line_or_served_as_generate_serves_it(tmp_path, config):
    """Which of the two, and why, is up to the version of transformers."""
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    try:
        assert served_exactly(str(tmp_path))
    except InputError:
        with pytest.raises(InputError) as caught:
            Checkpoint(str(tmp_path)).load(CPU)
        one_line(caught)
