"""The counter as a user meets it: loaded from its folder by transformers, asked, and read."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from acb_minimal.models.counter import PATH, all_pairs, answer, prompt
from acb_minimal.models.counter.train import margins


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(PATH)


def test_it_counts(model, tokenizer):
    pairs = [(0, 0), (0, 1), (0, 100), (899, 999), (998, 999), (999, 999), *random.Random(1).choices(all_pairs(), k=60)]
    inputs = tokenizer([prompt(*pair) for pair in pairs], return_tensors="pt")  # four tokens each: no row is padded
    said = tokenizer.batch_decode(model.generate(**inputs)[:, 4:], skip_special_tokens=True)
    assert said == [answer(*pair) for pair in pairs]
    assert margins(model, *torch.tensor(pairs).T).min() > 1  # float32 sums in another order differ by far less


def test_generate_needs_no_arguments(model, tokenizer):
    inputs = tokenizer(prompt(3, 7), return_tensors="pt")
    said = model.generate(**inputs)[0, inputs.input_ids.shape[1] :]
    assert said[-1] == tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert tokenizer.decode(said, skip_special_tokens=True) == "3 4 5 6 7" == answer(3, 7)


def test_text_survives_the_tokenizer(tokenizer):
    for text in (prompt(3, 7), prompt(899, 999), answer(0, 100), answer(950, 999)):
        ids = tokenizer(text).input_ids
        assert len(ids) == len(text.split())  # one token a word, none added at either end
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("word", ["hello", "1000", "007", "-1", "3.5", "Count"])
def test_a_word_outside_the_vocabulary_is_unknown(tokenizer, word):
    assert tokenizer(f"count {word} to 7").input_ids[1] == tokenizer.unk_token_id
    assert tokenizer.unk_token_id not in tokenizer(prompt(0, 100)).input_ids


@pytest.mark.parametrize(("a", "b"), [(-1, 3), (7, 3), (0, 101), (990, 1000)])
def test_prompt_refuses_what_was_not_taught(a, b):
    with pytest.raises(ValueError, match=f"cannot count {a} to {b}"):
        prompt(a, b)
