"""Models by name and folder, and what is said of those that cannot be read."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import edit, one_line

from acb_minimal.errors import InputError
from acb_minimal.run.checkpoint import Checkpoint

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers", "head_dim", "billions"),
    [("llama-3.2-1b", 16, 64, 1.24), ("llama-3.1-8b", 32, 128, 8.03), ("qwen3-8b", 36, 128, 8.19),
     ("qwen3-32b", 64, 128, 32.76)],
)  # fmt: skip
def test_the_bundled_shapes_have_the_published_sizes(name, layers, head_dim, billions):
    checkpoint = Checkpoint(name)
    assert [(layer.kv_heads, layer.head_dim) for layer in checkpoint.layers] == [(8, head_dim)] * layers
    assert checkpoint.dtype == torch.bfloat16
    assert checkpoint.weight_bytes == pytest.approx(2e9 * billions, rel=0.005)
    assert checkpoint.stop_tokens == ()


def nothing_but(name: str, value):
    """A change of tensors by their names: of those of that name alone."""
    return lambda key, weight: value(weight) if name in key else weight


@pytest.mark.parametrize(
    ("change", "config", "said", "device"),
    [
        (nothing_but("layers.1.mlp.up_proj", lambda _: None), {}, "its weights lack 1 tensors, model.layers.1", GPU),
        (None, {"intermediate_size": 100}, r"down_proj.weight of its weights is \[128, 344\], and \[128,", GPU),
        (lambda _, weight: weight.half(), {"dtype": None}, "its weights are torch.float16, and its config", GPU),
        (nothing_but("embed", lambda weight: weight.index_fill(0, torch.tensor(7), float("nan"))), {},
         r"its weights have NaN or infinity in them \(model.embed_tokens.weight\)", CPU),
        (lambda _, weight: weight * 1e30, {}, "its logits are NaN, infinite or all the same", CPU),
    ],
    ids=["a tensor is missing", "another shape", "another type", "NaN", "logits are no numbers"],
)  # fmt: skip
def test_weights_that_cannot_be_right(copy, change, config, said, device):
    """There may be no GPU: what can be seen of weights on the CPU is said before."""
    edit(copy / "config.json", **config)
    if change:
        save_weights(copy, change)
    refused(copy, said, device)


def test_weights_that_are_cut_off(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(copy, "its weights are missing or broken")


def save_weights(folder, change) -> None:
    tensors = {name: change(name, weight) for name, weight in load_file(folder / "model.safetensors").items()}
    tensors = {name: weight for name, weight in tensors.items() if weight is not None}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refused(folder, message, device=GPU):
    checkpoint = Checkpoint(str(folder))
    with pytest.raises(InputError, match=message) as caught:
        checkpoint.load(device)  # there may be no GPU: the weights are read on the CPU first
    one_line(caught)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_a_broken_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="unknown model") as caught:
        Checkpoint(str(tmp_path))
    one_line(caught)


CODE = """
open({marker!r}, "w")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = "own"
class Model(LlamaForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.mark.parametrize(
    ("file", "settings", "refused"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, True),
        ("config.json", {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}, False),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}},
         True),
    ],
    ids=["config", "what transformers has as well", "tokenizer"],
)  # fmt: skip
def test_code_in_a_folder_is_not_run_and_nobody_is_asked(copy, monkeypatch, file, settings, refused):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    (copy / "own.py").write_text(CODE.format(marker=str(copy / "ran")))
    edit(copy / file, **settings)
    if refused:
        with pytest.raises(InputError, match="code that it brings along, and such code is never run here") as caught:
            Checkpoint(str(copy)).encode("count 3 to 7")
        one_line(caught)
    else:
        assert Checkpoint(str(copy)).load(CPU) is not None
    assert not (copy / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its weights are quantized (gptq)"),
        ({"quantization_config": {"quant_method": "no-such"}}, "its weights are quantized (no-such)"),
        ({"dtype": "float8_e4m3fn"}, "its weights are torch.float8_e4m3fn; they must be one of torch.float64"),
        ({"rope_parameters": {"rope_type": "no-such", "rope_theta": 1e4}}, "transformers does not know 'no-such', w"),
        ({"max_position_embeddings": 0}, "its config has max_position_embeddings = 0; it must be at least 2"),
        ({"layer_types": ["chunked_attention"] * 4}, "it has layers of type 'chunked_attention'; all must be of full_"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_with_something_that_is_not_built_in(copy, settings, said):
    edit(copy / "config.json", **settings)
    with pytest.raises(InputError, match="cannot be served here") as caught:
        Checkpoint(str(copy))
    assert said in one_line(caught)


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/flash-attn3", "no-such"])
def test_the_attention_that_a_config_names_is_neither_used_nor_fetched(copy, name):
    edit(copy / "config.json", _attn_implementation=name)
    assert Checkpoint(str(copy)).load(CPU) is not None


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("", None, "the folder has no config.json"),
        ("", "model.gguf", "the folder has no config.json (a .gguf file is not read)"),
        ("", "adapter_config.json", "the folder holds an adapter (adapter_config.json): merge it"),
        ("weights.pt", "weights.pt", "it is a file; give the folder that has config.json and the weights"),
    ],
)
def test_a_path_of_something_else(tmp_path, name, file, said):
    if file:
        (tmp_path / file).write_text("{}")
    with pytest.raises(InputError) as caught:
        Checkpoint(str(tmp_path / name))
    assert said in one_line(caught)


def test_an_empty_text_is_no_prompt_even_where_each_begins_with_a_token(copy):
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    begin = {"SpecialToken": {"id": "count", "type_id": 0}}
    tokenizer["post_processor"]["single"].insert(0, begin)
    tokenizer["post_processor"]["special_tokens"] = {"count": {"id": "count", "ids": [1000], "tokens": ["count"]}}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    checkpoint = Checkpoint(str(copy))
    assert checkpoint.encode("3 to 7")[0] == 1000
    for text in ("", " "):
        assert checkpoint.encode(text) == []
