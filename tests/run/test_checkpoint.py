"""Models by name, folder and hub id, and what is said of those that cannot be used."""

import json
import shutil

import pytest
import torch
import transformers

from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run.checkpoint import SHAPES, Checkpoint

CPU = torch.device("cpu")


# Published sizes: 8.03 and 1.24 billion parameters for the Llamas, 8.19 for Qwen3-8B, two bytes each.
@pytest.mark.parametrize(
    ("name", "layers", "head_dim", "billions"),
    [("llama-3.1-8b", 32, 128, 8.03), ("llama-3.2-1b", 16, 64, 1.24), ("qwen3-8b", 36, 128, 8.19),
     ("qwen3-32b", 64, 128, 32.76)],
)
def test_the_bundled_shapes_have_the_published_sizes(name, layers, head_dim, billions):
    checkpoint = Checkpoint(name)
    assert len(checkpoint.layers) == layers
    assert all((layer.kv_heads, layer.head_dim) == (8, head_dim) for layer in checkpoint.layers)
    assert checkpoint.dtype == torch.bfloat16
    assert checkpoint.weight_bytes == pytest.approx(2e9 * billions, rel=0.005)
    assert checkpoint.stop_tokens == ()
    assert set(SHAPES) == {"llama-3.1-8b", "llama-3.2-1b", "qwen3-8b", "qwen3-32b"}


def test_random_weights_have_no_tokenizer():
    with pytest.raises(InputError, match="'llama-3.2-1b' has random weights and no tokenizer"):
        Checkpoint("llama-3.2-1b").encode("Once upon a time")


def test_a_folder_is_loaded_with_its_weights(tiny_path):
    path = tiny_path("qwen3")
    ours = Checkpoint(path).load(CPU).state_dict()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stop_tokens_are_those_that_generate_stops_at(copy):
    assert Checkpoint("counter").stop_tokens == (1002,)
    config = json.loads((copy / "generation_config.json").read_text()) | {"eos_token_id": [7, 1002]}
    (copy / "generation_config.json").write_text(json.dumps(config))
    assert Checkpoint(str(copy)).stop_tokens == (7, 1002)
    (copy / "generation_config.json").unlink()
    assert Checkpoint(str(copy)).stop_tokens == (1002,)


def test_layers_are_listed_in_the_order_they_run(tiny_path):
    checkpoint = Checkpoint(tiny_path("llama"))
    assert [layer.name for layer in checkpoint.layers] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]


@pytest.fixture
def copy(tmp_path):
    """A copy of the counter's folder, to break."""
    return shutil.copytree(counter.PATH, tmp_path / "model", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def test_a_copy_of_the_counter_is_as_good_as_the_counter(copy):
    assert Checkpoint(str(copy)).load(CPU) is not None


def test_missing_weights(copy):
    (copy / "model.safetensors").unlink()
    refused(copy, "its weights are missing or broken")


def test_cut_off_weights(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(copy, "its weights are missing or broken")


def test_weights_that_lack_a_tensor(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    refused(copy, "its weights lack 1 tensors, model.layers.1.mlp.up_proj.weight first")


def refused(folder, message):
    checkpoint = Checkpoint(str(folder))
    with pytest.raises(InputError, match=message) as caught:
        checkpoint.load(torch.device("cuda"))  # there may be no GPU: the weights are read on the CPU first
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_a_broken_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="unknown model") as caught:
        Checkpoint(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.BloomConfig(n_layer=2, hidden_size=32, n_head=2), "0 of its 2 layers"),  # its own attention
        (transformers.FalconConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2), "KeyError"),
        (transformers.Gemma2Config(num_hidden_layers=2, hidden_size=32), "softcap"),
        (transformers.GptOssConfig(num_hidden_layers=2, hidden_size=32, num_local_experts=2), "sinks"),
        (transformers.BertConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2), "cannot be replaced"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_model_whose_attention_cannot_be_replaced(tmp_path, config, reason):
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be replaced") as caught:
        Checkpoint(str(tmp_path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_configs_are_plain():
    """Nothing in a bundled config that transformers would not keep."""
    for name in SHAPES:
        checkpoint = Checkpoint(name)
        with open(f"{checkpoint.path}/config.json") as file:
            bundled = json.load(file)
        loaded = checkpoint.config.to_dict()
        assert {key: loaded.get(key) for key in bundled if key != "dtype"} == {
            key: value for key, value in bundled.items() if key != "dtype"
        }
