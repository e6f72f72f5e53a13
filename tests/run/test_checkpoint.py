"""Models by name, folder and hub id, and what is said of those that cannot be used."""

import json
import shutil

import pytest
import torch
import transformers

from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run import model_support
from acb_minimal.run.checkpoint import SHAPES, Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

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


TINY = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 89}
SMALL = TINY | {"num_key_value_heads": 2}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0] * 8, "short_factor": [1.0] * 8}
UNSUPPORTED = [
    (transformers.BloomConfig(n_layer=2, hidden_size=32, n_head=2), "its forward pass takes no position_ids"),
    (transformers.FalconConfig(**SMALL), "its attention does not go through transformers' AttentionInterface"),
    (transformers.GPTJConfig(n_layer=2, n_embd=32, n_head=2, rotary_dim=8), "does not go through transformers' Attent"),
    (transformers.CodeGenConfig(n_layer=2, n_embd=32, n_head=4, rotary_dim=4), "0 of its 2 layers go through"),
    (transformers.StableLmConfig(**SMALL), "the model hands nothing on to its attention"),
    (transformers.NemotronConfig(**SMALL), "the model hands nothing on to its attention"),
    (transformers.Gemma2Config(num_hidden_layers=2, hidden_size=32), "dropout, softcap or sinks"),
    (transformers.GptOssConfig(num_hidden_layers=2, hidden_size=32, num_local_experts=2), "dropout, softcap or sinks"),
    (transformers.BertConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2), "its attention looks ahead"),
    (transformers.Gemma3TextConfig(**SMALL, use_bidirectional_attention=True), "its attention looks ahead"),
    (transformers.FalconH1Config(**SMALL), "it keeps a state beside attention (mamba_"),
    (transformers.JambaConfig(**SMALL), "it keeps a state beside attention (mamba_"),
    (transformers.Phi3Config(**SMALL, rope_parameters=LONGROPE), "its rotary positions are of type 'longrope'"),
    (transformers.LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "of type 'dynamic'"),
    (transformers.Llama4TextConfig(**SMALL), "it has layers of type 'chunked_attention'"),
    (transformers.PhimoeConfig(**SMALL, sliding_window=12), "its window of 12 positions (sliding_window) is in"),
    (transformers.MoshiConfig(**SMALL, sliding_window=12), "its window of 12 positions (sliding_window) is in"),
    *(
        (config(d_model=32, decoder_layers=2, decoder_attention_heads=2, encoder_layers=1), "the decoder of an encoder")
        for config in (transformers.BartConfig, transformers.MBartConfig, transformers.PegasusConfig,
                       transformers.PLBartConfig, transformers.BlenderbotConfig)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "said"), UNSUPPORTED, ids=lambda value: type(value).__name__)
def test_a_model_that_would_be_served_wrong_is_refused_by_its_config(tmp_path, config, said):
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be served here: ") as caught:
        Checkpoint(str(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [{"repetition_penalty": 1.1}, {"suppress_tokens": [3]}, {"min_new_tokens": 4}, {"no_repeat_ngram_size": 2},
     {"num_beams": 4}, {"forced_eos_token_id": 2}],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_what_generate_obeys_and_the_engine_does_not_is_refused(copy, setting):
    file = copy / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | setting))
    (name, value), = setting.items()
    with pytest.raises(InputError, match="its generation config has ") as caught:
        Checkpoint(str(copy))
    assert f"{name} = {value}, which generate obeys and this engine does not" in str(caught.value)


def test_settings_that_change_nothing_are_no_reason(copy):
    file = copy / "generation_config.json"
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "min_length": 0, "do_sample": True, "temperature": 0.6}
    file.write_text(json.dumps(json.loads(file.read_text()) | neutral))
    assert Checkpoint(str(copy)).stop_tokens == (1002,)


@pytest.fixture
def saved(tmp_path):
    """A folder with a tiny random model of a config."""

    def save(config) -> str:
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        return str(tmp_path)

    return save


SERVED = [
    transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=89, initializer_range=0.3, pad_token_id=0,
                            bos_token_id=None, eos_token_id=None),
    transformers.OPTConfig(**TINY, ffn_dim=48, word_embed_proj_dim=32, init_std=0.3),
    transformers.MixtralConfig(**SMALL, intermediate_size=48, num_local_experts=4, initializer_range=0.3),
    transformers.Qwen2MoeConfig(**SMALL, intermediate_size=48, moe_intermediate_size=24, num_experts=4,
                                shared_expert_intermediate_size=24, initializer_range=0.3),
]  # fmt: skip


@pytest.mark.parametrize("config", SERVED, ids=lambda config: type(config).__name__.removesuffix("Config"))
def test_learned_positions_dropout_and_experts_are_served_as_generate_serves_them(saved, config):
    path = saved(config)
    prompts = [[5, 17, 3], [8], list(range(20, 39))]
    job = Job(prompts, 8, max_running=2, max_batch_tokens=16, page_size=4, ignore_stop=True)
    done = Session(job, "ch1", path, "cpu").serve()
    reference = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    for prompt, completion in zip(prompts, done, strict=True):
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None}
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert completion.tokens == out[0, len(prompt) :].tolist()


WRONG = [
    transformers.FalconH1Config(**SMALL, intermediate_size=48, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8,
                                mamba_d_state=8, mamba_chunk_size=8, initializer_range=0.3),
    transformers.PhimoeConfig(**SMALL, intermediate_size=48, num_local_experts=2, sliding_window=3),
]  # fmt: skip


@pytest.mark.parametrize("config", WRONG, ids=lambda config: type(config).__name__.removesuffix("Config"))
def test_what_no_config_says_is_found_by_the_answers(saved, config, monkeypatch):
    for check in ("check_config", "_check_windows"):
        monkeypatch.setattr(model_support, check, lambda *_: None)
    checkpoint = Checkpoint(saved(config))
    with pytest.raises(InputError, match="its own attention and ours give different answers") as caught:
        checkpoint.load(CPU)
    assert "\n" not in str(caught.value)


def test_what_comes_with_the_package_is_not_examined(monkeypatch):
    for check in ("check_config", "check_generation", "check_answers"):
        monkeypatch.setattr(model_support, check, lambda *_: pytest.fail("it was"))
    assert Checkpoint("counter").load(CPU) is not None
    assert Checkpoint("llama-3.2-1b").stop_tokens == ()


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
