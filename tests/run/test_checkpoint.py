"""Models by name, folder and hub id, and what is said of those that cannot be used."""

import json
import shutil

import pytest
import small_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run import generation, model_support
from acb_minimal.run.checkpoint import CONFIGS, SHAPES, Checkpoint
from acb_minimal.run.session import Session, generate
from acb_minimal.run.workload import Job
from acb_minimal.sampling import Sampling

CPU, GPU = torch.device("cpu"), torch.device("cuda")


# Published sizes: 8.03 and 1.24 billion parameters for the Llamas, 8.19 for Qwen3-8B, two bytes each.
@pytest.mark.parametrize(
    ("name", "layers", "head_dim", "billions"),
    [("llama-3.2-1b", 16, 64, 1.24),
     *(pytest.param(*shape, marks=pytest.mark.slow) for shape in
       [("llama-3.1-8b", 32, 128, 8.03), ("qwen3-8b", 36, 128, 8.19), ("qwen3-32b", 64, 128, 32.76)])],
)  # fmt: skip
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


@pytest.mark.parametrize("share", [0, 0.5])
def test_weights_that_are_missing_or_cut_off(copy, share):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: int(share * len(data))])
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
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flaw", small_models.BY_ITS_ATTENTION)
def test_a_model_whose_attention_is_not_ours_is_refused_before_it_is_loaded(tmp_path, flaw):
    path = small_models.save(tmp_path, flaw)
    with pytest.raises(InputError, match="Small cannot be served here: ") as caught:
        Checkpoint(path)
    assert small_models.BY_ITS_ATTENTION[flaw] in one_line(caught)


@pytest.mark.parametrize("flaw", small_models.BY_ITS_WEIGHTS)
def test_a_model_that_would_answer_something_else_is_refused_once_it_is_loaded(tmp_path, flaw):
    checkpoint = Checkpoint(small_models.save(tmp_path, flaw))
    with pytest.raises(InputError, match="Small cannot be served here: ") as caught:
        checkpoint.load(CPU)
    assert small_models.BY_ITS_WEIGHTS[flaw] in one_line(caught)


@pytest.mark.parametrize("flaw", ["", *small_models.BY_ITS_WEIGHTS])
def test_how_sums_of_16_bits_round_is_told_from_a_flaw(tmp_path, flaw):
    checkpoint = Checkpoint(small_models.save(tmp_path, flaw, dtype=torch.bfloat16))
    assert checkpoint.dtype == torch.bfloat16
    if not flaw:
        assert checkpoint.load(CPU) is not None
    else:
        with pytest.raises(InputError, match=small_models.BY_ITS_WEIGHTS[flaw]):
            checkpoint.load(CPU)


def test_what_no_request_can_reach_is_no_reason(tmp_path):
    """Its queries would be scaled from position 256 on: it has no more than 200."""
    assert Checkpoint(small_models.save(tmp_path, "place in cache", positions=200)).load(CPU) is not None


@pytest.mark.parametrize("settings", [{}, {"window": 5}], ids=["all positions", "a window"])
def test_a_model_without_a_flaw_is_served_as_generate_serves_it(tmp_path, settings):
    assert served_exactly(small_models.save(tmp_path, **settings))


def one_line(caught) -> str:
    """What was said, if that is one line with an end."""
    said = str(caught.value)
    assert "\n" not in said
    assert not said.endswith((":", "...", "("))
    assert "report" not in said
    return said


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
SLOW = pytest.mark.slow
REAL = [  # docs/results/model_types.py tries all there are
    transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=89, initializer_range=0.3, bos_token_id=None,
                            eos_token_id=None),
    transformers.Gemma2Config(**SMALL, head_dim=16),
    *(pytest.param(config, marks=SLOW) for config in (
        transformers.FalconH1Config(**SMALL, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
        transformers.Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=12),
        transformers.Llama4TextConfig(**SMALL, head_dim=16, num_local_experts=2, intermediate_size_mlp=48),
        transformers.LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        transformers.MixtralConfig(**SMALL, num_local_experts=4, initializer_range=0.3),
        transformers.MoshiConfig(**SMALL, ffn_dim=64, sliding_window=12),
    )),
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


def edit(file, **settings) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | settings))


@pytest.mark.parametrize(
    "setting",
    [{"suppress_tokens": [3]}, {"min_length": 4}, {"num_beams": 4}, {"no_repeat_ngram_size": 2},
     {"stop_strings": ["a. b"]}, {"max_time": 3.0}, {"token_healing": True}, {"dola_layers": "high"},
     {"force_words_ids": [[1]]}, {"use_mtp": True}, {"is_assistant": True}, {"prompt_lookup_num_tokens": 3},
     {"cache_implementation": "quantized"}, {"eos_token_id": "2"}, {"what_nobody_knows": 1}],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_what_a_generation_config_says_and_is_not_known_to_be_harmless_is_refused_by_name(copy, setting):
    edit(copy / "generation_config.json", **setting)
    (name, value), = setting.items()
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
        ({"do_sample": True}, Sampling(1.0, 50)),  # transformers' own, where nothing is said
        ({"do_sample": True, "temperature": 0.6, "top_k": 0, "top_p": 0.9}, Sampling(0.6, 0, 0.9)),
        ({"repetition_penalty": 1.2, "min_new_tokens": 3}, Sampling(repetition_penalty=1.2, min_tokens=3)),
    ],
)
def test_what_a_generation_config_asks_of_sampling_is_obeyed(copy, settings, asked):
    edit(copy / "generation_config.json", **settings)
    assert Checkpoint(str(copy)).sampling == asked


@pytest.mark.parametrize("setting", [{"min_p": 0.1}, {"typical_p": 0.5}, {"epsilon_cutoff": 1e-3}, {"top_h": 0.5}])
def test_what_changes_draws_alone_is_refused_where_tokens_are_drawn(copy, setting):
    edit(copy / "generation_config.json", **setting)
    assert Checkpoint(str(copy)).sampling == Sampling()
    edit(copy / "generation_config.json", do_sample=True)
    (name, value), = setting.items()
    with pytest.raises(InputError, match=f"its generation config has {name} = {value}"):
        Checkpoint(str(copy))


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


def test_a_generation_config_that_makes_no_sense_is_told_in_one_line(copy):
    edit(copy / "generation_config.json", repetition_penalty=500.0)
    with pytest.raises(InputError, match="cannot be obeyed: repetition_penalty is 500.0; it must be from 0.01 to 100"):
        _ = Checkpoint(str(copy)).sampling


def test_settings_that_change_nothing_are_no_reason(copy):
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "min_length": 0, "do_sample": True, "temperature": 0.6,
               "suppress_tokens": [], "cache_implementation": "static", "token_healing": False}  # fmt: skip
    edit(copy / "generation_config.json", **neutral)
    assert Checkpoint(str(copy)).stop_tokens == (1002,)


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
    ("files", "gone", "said"),
    [
        ([], ["config.json"], "the folder has no config.json"),
        (["model.gguf"], ["config.json"], "the folder has no config.json (a .gguf file is not read)"),
        (["adapter_config.json"], ["config.json"], "the folder holds an adapter (adapter_config.json): merge it"),
        (["adapter_config.json"], [], "the folder holds an adapter (adapter_config.json): merge it"),
    ],
    ids=["nothing", "gguf", "adapter", "adapter and model"],
)
def test_a_folder_of_something_else(copy, files, gone, said):
    for name in gone:
        (copy / name).unlink()
    for name in files:
        (copy / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        Checkpoint(str(copy))
    assert said in one_line(caught)


def test_a_file_in_the_place_of_its_folder(copy):
    with pytest.raises(InputError, match="it is a file; give the folder that has config.json and the weights"):
        Checkpoint(str(copy / "config.json"))


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


def test_what_comes_with_the_package_is_not_examined(monkeypatch):
    for module, check in ((model_support, "config"), (generation, "generation"), (model_support, "network")):
        monkeypatch.setattr(module, f"check_{check}", lambda *_: pytest.fail("it was"))
    assert Checkpoint("counter").load(CPU) is not None
    assert Checkpoint("llama-3.2-1b").stop_tokens == ()


def test_the_configs_are_plain():
    """Nothing in a bundled config that transformers would not keep."""
    for name in SHAPES:
        bundled = json.loads((CONFIGS / name / "config.json").read_text())
        loaded = transformers.AutoConfig.from_pretrained(CONFIGS / name).to_dict()
        assert {key: loaded.get(key) for key in bundled if key != "dtype"} == {
            key: value for key, value in bundled.items() if key != "dtype"
        }
