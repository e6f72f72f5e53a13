"""What a generation config asks for: obeyed, or refused by name."""

import pytest
import torch
from small_models import edit, one_line
from transformers import AutoModelForCausalLM

from acb_minimal.errors import InputError
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session, generate
from acb_minimal.run.workload import Job
from acb_minimal.sampling import Sampling


def test_stop_tokens_are_those_that_generate_stops_at(copy):
    assert Checkpoint("counter").stop_tokens == (1002,)
    edit(copy / "generation_config.json", eos_token_id=[7, 1002])
    assert Checkpoint(str(copy)).stop_tokens == (7, 1002)
    (copy / "generation_config.json").unlink()
    assert Checkpoint(str(copy)).stop_tokens == (1002,)


@pytest.mark.parametrize(
    "setting",
    [{"suppress_tokens": [3]}, {"num_beams": 4}, {"cache_implementation": "quantized"}, {"eos_token_id": "2"},
     {"token_healing": True}, {"what_nobody_knows": 1}, {"min_p": 0.1, "do_sample": True}],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_what_a_generation_config_says_and_is_not_known_to_be_harmless_is_refused_by_name(copy, setting):
    edit(copy / "generation_config.json", **setting)
    name, value = next(iter(setting.items()))
    with pytest.raises(InputError, match="its generation config has ") as caught:
        Checkpoint(str(copy))
    assert f"{name} = {value!r}, which this engine does not obey" in one_line(caught)


def test_what_config_json_says_counts_where_there_is_no_generation_config(copy):
    """As it does to `generate`; and as to that, not where there is one."""
    edit(copy / "config.json", repetition_penalty=1.7, num_beams=3)
    assert Checkpoint(str(copy)).sampling == Sampling()
    (copy / "generation_config.json").unlink()
    with pytest.raises(InputError, match="its generation config has num_beams = 3"):
        Checkpoint(str(copy))
    edit(copy / "config.json", num_beams=1)
    assert Checkpoint(str(copy)).sampling == Sampling(repetition_penalty=1.7)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"temperature": 0.6, "top_k": 20, "do_sample": False}, Sampling()),
        ({"num_beams": 1, "min_length": 0, "suppress_tokens": [], "cache_implementation": "static", "min_p": 0.1,
          "token_healing": False, "repetition_penalty": 1.0}, Sampling()),
        ({"do_sample": True}, Sampling(1.0, 50)),  # transformers' own, where nothing is said
        ({"do_sample": True, "temperature": 0.6, "top_k": 0, "top_p": 0.9}, Sampling(0.6, 0, 0.9)),
        ({"repetition_penalty": 1.2, "min_new_tokens": 3}, Sampling(repetition_penalty=1.2, min_tokens=3)),
    ],
)
def test_what_a_generation_config_asks_of_sampling_is_obeyed(copy, settings, asked):
    edit(copy / "generation_config.json", **settings)
    assert Checkpoint(str(copy)).sampling == asked


def test_penalties_of_a_generation_config_give_the_tokens_of_generate(copy):
    edit(copy / "generation_config.json", repetition_penalty=3.0, min_new_tokens=9)
    checkpoint = Checkpoint(str(copy))
    network, ids = AutoModelForCausalLM.from_pretrained(copy), torch.tensor([checkpoint.encode("count 3 to 7")])
    right = network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=14)[0, ids.shape[1] :].tolist()
    (done,) = generate("count 3 to 7", "ch5", checkpoint, "cpu", 14)
    assert done.tokens == right
    assert len(right) >= 9
    told = Session(Job(["count 3 to 7"]), "ch5", checkpoint, "cpu").options
    assert str(told) == "sampled with repetition penalty 3, min tokens 9"  # a figure names it
