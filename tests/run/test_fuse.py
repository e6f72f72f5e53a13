"""Joined linears and compiled layers: what is joined, what is left alone, and that no token changes."""

import json
import random

import pytest
import torch
import transformers
from conftest import FAMILIES, TINY, VOCAB, Harness
from torch import nn
from transformers import AutoModelForCausalLM

from acb_minimal import generate
from acb_minimal.errors import InputError
from acb_minimal.kv_cache import KVCache
from acb_minimal.model import Model
from acb_minimal.request import Batch, Request, Row
from acb_minimal.run import fuse
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim import costs
from acb_minimal.sim.device import CpuDevice
from acb_minimal.slot import SlotSize

CPU = torch.device("cpu")
COMPILED = Options(compile=True)
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
PROMPTS = [random.Random(seed).choices(range(VOCAB), k=5 + 3 * seed) for seed in range(5)]


@pytest.fixture
def tiny(tiny_path):
    """A Harness of a tiny model that nobody else has: by family, or of a config that is given."""

    def get(family: str | None = None, folder=None, config=None) -> Harness:
        if config is not None:
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            # Biases are zero when a model is new, and nobody would miss one.
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    nn.init.normal_(parameter, std=0.3)
            model.save_pretrained(folder)
        return Harness(tiny_path(family) if family else str(folder))

    return get


@pytest.fixture
def graphs(monkeypatch):
    """Compiles without a compiler: every graph that torch makes is added to this list, and run as it is."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setitem(fuse.COMPILE, "backend", backend)
    yield made
    torch._dynamo.reset()


def of_layers(graphs: list) -> list:
    """Those that attend: of decoder layers, not of what is beside them."""
    return [graph for graph in graphs if any("paged_attention" in str(node.target) for node in graph.graph.nodes)]


def tokens_are_the_oracles(model: Harness, chapter: str = "ch1") -> bool:
    requests = [Request(str(number), prompt, 4 + 2 * number) for number, prompt in enumerate(PROMPTS)]
    model.serve(requests, chapter)
    return all(r.generated == model.oracle(p, r.max_new_tokens) for r, p in zip(requests, PROMPTS, strict=True))


def names_of(layer: int) -> list[tuple[str, ...]]:
    attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
    return [
        tuple(f"{attention}.{name}_proj" for name in "qkv"),
        (f"{mlp}.gate_proj", f"{mlp}.up_proj"),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_linears_that_read_the_same_input_are_joined_and_no_token_changes(tiny, family):
    model = tiny(family)
    assert fuse.join_linears(model.network) == names_of(0) + names_of(1)
    assert tokens_are_the_oracles(model)
    assert fuse.join_linears(model.network) == []


def test_biases_are_joined_too(tiny, tmp_path):
    model = tiny(folder=tmp_path, config=transformers.LlamaConfig(**TINY, attention_bias=True, mlp_bias=True))
    assert fuse.join_linears(model.network) == names_of(0) + names_of(1)
    assert model.network.model.layers[0].mlp.up_proj.bias.abs().min() > 0
    assert tokens_are_the_oracles(model)


def test_a_linear_without_a_bias_is_not_joined_with_one_that_has_one(tiny, tmp_path):
    model = tiny(folder=tmp_path, config=transformers.LlamaConfig(**TINY))
    attention = model.network.model.layers[0].self_attn
    attention.k_proj.bias = nn.Parameter(torch.zeros(attention.k_proj.out_features))
    groups = fuse.join_linears(model.network)
    assert groups[0] == ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")
    assert tokens_are_the_oracles(model)


def test_a_tied_weight_stays_tied(tiny, tmp_path):
    model = tiny(folder=tmp_path, config=transformers.LlamaConfig(**TINY, tie_word_embeddings=True))
    fuse.join_linears(model.network)
    assert model.network.lm_head.weight is model.network.model.embed_tokens.weight
    assert tokens_are_the_oracles(model)


def test_a_model_whose_linears_are_one_already_has_nothing_to_join(tiny, tmp_path):
    model = tiny(folder=tmp_path, config=transformers.Phi3Config(**TINY))
    assert fuse.join_linears(model.network) == []


def test_a_linear_of_another_class_or_with_a_hook_is_left_alone(tiny):
    class Quantised(nn.Linear):
        pass

    model = tiny("llama")
    first, second = (layer.self_attn for layer in model.network.model.layers)
    odd = Quantised(first.k_proj.in_features, first.k_proj.out_features, bias=False)
    odd.load_state_dict(first.k_proj.state_dict())
    first.k_proj = odd
    second.v_proj.register_forward_hook(lambda *_: None)
    groups = fuse.join_linears(model.network)
    assert groups[0] == ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")
    assert groups[2] == ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj")
    assert first.k_proj is odd
    assert tokens_are_the_oracles(model)


def test_parameters_keep_names_and_values_and_become_views_of_one_weight(tiny):
    network = tiny("llama").network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    named = [name for name, _ in network.named_parameters()]
    fuse.join_linears(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [name for name, _ in network.named_parameters()] == named
    attention = network.model.layers[0].self_attn
    whole = attention.q_proj.joined_weight
    assert whole.shape == (4 * 16 + 2 * 16 + 2 * 16, 32)
    for linear, start in ((attention.q_proj, 0), (attention.k_proj, 64), (attention.v_proj, 96)):
        assert linear.weight.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
        assert linear.weight.data_ptr() == whole[start].data_ptr()


class Net(nn.Module):
    """As much of a transformers model as fuse needs, with any forward over two linears."""

    device = CPU

    def __init__(self, run):
        super().__init__()
        self.a, self.b, self.run = nn.Linear(4, 4), nn.Linear(4, 6), run

    def set_attn_implementation(self, name):
        pass

    def forward(self, input_ids, record=None, **_):
        return self.run(self, torch.ones(1, 3, 4))


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: (net.a(x), net.b(x + 0)),
        lambda net, x: (net.a(x), net.b(x.add_(1))),
        lambda net, x: (net.a(x), net.b(x), net.b(x + 1)),
    ],
    ids=["a copy", "changed in place", "called twice"],
)
def test_inputs_that_only_look_the_same_join_nothing(run):
    assert fuse.join_linears(Net(run)) == []


def test_a_model_that_cannot_take_a_view_is_as_it_was():
    net = Net(lambda net, x: (net.a(x).view(-1), net.b(x)))
    a, b = net.a, net.b
    expected = net(None)
    with pytest.raises(RuntimeError, match="its linears cannot be joined"):
        fuse.join_linears(net)
    assert (net.a, net.b) == (a, b)
    assert all(torch.equal(x, y) for x, y in zip(net(None), expected, strict=True))


def test_a_joined_linear_that_gets_another_input_after_all_computes():
    net = Net(lambda net, x: (net.a(x), net.b(x)))
    b = net.b
    fuse.join_linears(net)
    x, other = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    net.a(x)
    torch.testing.assert_close(net.b(other), b(other))
    torch.testing.assert_close(net.b(x), b(x))  # what was ready is gone by now
    assert net.b.ready == (None, None)


def three_layers(tmp_path, config=transformers.LlamaConfig) -> Harness:
    AutoModelForCausalLM.from_config(config(**TINY | {"num_hidden_layers": 3})).save_pretrained(tmp_path)
    return Harness(str(tmp_path))


@pytest.mark.parametrize("config", [transformers.LlamaConfig, transformers.Qwen3Config])
def test_three_graphs_serve_all_layers_and_all_sizes(tmp_path, graphs, config):
    model = three_layers(tmp_path, config)
    fuse.fuse(model.network)
    cache = KVCache(model.checkpoint.layers, 64, 4, torch.float32, CPU)
    ready = Model(model.network, model.checkpoint.layers, cache, SlotSize(40, 80, 16), CpuDevice())
    found = []
    assert fuse.warm_up(ready, found.append)
    assert found[0] == "compiling, 1 of 9 kinds of batches"  # one of prompts; 40, 32, 24, 16, 8, 4, 2 and 1 decodes
    assert len(of_layers(graphs)) == 3
    assert len(graphs) == 9  # as many of the last norm, and of the rotary embedding
    slot = ready.new_slot()
    for rows in range(1, 41):  # chapters 1 to 5 do not pad
        slot.pad(rows)
        ready.forward(slot)
    assert len(graphs) == 9
    ready.close()


def test_the_layers_of_a_batch_with_prompts_are_not_compiled(tiny, graphs):
    model = tiny("llama")
    fuse.fuse(model.network)
    cache = KVCache(model.checkpoint.layers, 16, 4, torch.float32, CPU)
    ready = Model(model.network, model.checkpoint.layers, cache, SlotSize(4, 16, 4), CpuDevice())
    slot, request = ready.new_slot(), Request("0", [1, 2, 3], 1)
    request.pages = [0]
    slot.write(Batch([Row(request, 0, 3)]))
    ready.forward(slot)
    assert of_layers(graphs) == []
    slot.pad(2)
    ready.forward(slot)
    assert len(of_layers(graphs)) == 1
    ready.close()


@pytest.mark.parametrize("chapter", chapter_paths())
def test_every_chapter_generates_the_oracles_tokens_compiled(tiny, graphs, chapter):
    model = tiny("llama")
    job = Job(PROMPTS, 8, max_running=3, max_batch_tokens=16, page_size=4)
    session = Session(job, chapter, model.checkpoint, "cpu", COMPILED)
    assert [done.tokens for done in session.serve()] == [model.oracle(prompt, 8) for prompt in PROMPTS]
    assert session.options == COMPILED
    assert graphs


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (transformers.Gemma3TextConfig(**TINY), ["ScaledWordEmbedding", "RMSNorm", "RotaryEmbedding"]),
        (transformers.GPT2Config(**GPT2), []),  # it has torch's own alone
    ],
    ids=["gemma3", "gpt2"],
)
def test_what_is_beside_the_layers_is_compiled_unless_it_is_torchs_own(tiny, tmp_path, graphs, config, names):
    model = tiny(folder=tmp_path, config=config)
    found = fuse.beside(fuse.decoder_layers(model.network), model.network)
    assert [type(module).__name__.removeprefix("Gemma3Text").removeprefix("Gemma3") for module in found] == names
    session = Session(Job(PROMPTS[:2], 4, page_size=4), "ch1", model.checkpoint, "cpu", COMPILED)
    assert [done.tokens for done in session.serve()] == [model.oracle(prompt, 4) for prompt in PROMPTS[:2]]
    assert session.options.compile
    assert bool(names) == (len(of_layers(graphs)) < len(graphs))


def test_what_was_compiled_can_be_forgotten(tiny, graphs):
    network = tiny("llama").network
    fuse.compile_decode(network, around=False)
    assert isinstance(network.model.layers[0].forward, fuse.DecodeCompiled)
    assert not isinstance(network.model.norm.forward, fuse.Compiled)
    fuse.forget(network)
    assert "forward" not in vars(network.model.layers[0])
    own = network.model.norm.forward = lambda x: x  # what is hung on a module is put back, as it was there before
    fuse.compile_decode(network)
    fuse.forget(network)
    assert network.model.norm.forward is own
    fuse.compile_decode(network)
    assert isinstance(network.model.norm.forward, fuse.Compiled)


def test_inductors_code_generates_the_oracles_tokens(tiny):
    torch._dynamo.reset()
    model = tiny("qwen3")
    job = Job(PROMPTS[:3], 6, max_running=2, page_size=4)
    session = Session(job, "ch6", model.checkpoint, "cpu", COMPILED)
    assert [done.tokens for done in session.serve()] == [model.oracle(prompt, 6) for prompt in PROMPTS[:3]]
    assert session.options.compile


def test_compile_is_an_argument_in_python(tiny_path, graphs):
    prompts = [PROMPTS[0]]
    plain, compiled = (
        list(generate(prompts, model=tiny_path("llama"), device="cpu", max_new_tokens=4, options=options))
        for options in (None, COMPILED)
    )
    assert compiled == plain
    assert graphs


def test_a_run_without_compile_after_one_with_it_runs_as_it_was(tiny, graphs, monkeypatch):
    checkpoint = tiny("llama").checkpoint
    job = Job([PROMPTS[0]], 4)
    compiled = Session(job, "ch1", checkpoint, "cpu", COMPILED).serve()
    with monkeypatch.context() as patch:
        for layer in checkpoint.load(CPU).model.layers:
            patch.setattr(layer.forward, "compiled", lambda *_, **__: pytest.fail("a compiled layer ran"))
        assert Session(job, "ch1", checkpoint, "cpu").serve() == compiled
    count = len(graphs)
    assert Session(job, "ch1", checkpoint, "cpu", COMPILED).serve() == compiled
    assert len(graphs) == count > 0  # what was compiled for the first run serves the third


def test_layers_that_cannot_be_compiled_run_as_they_are_and_one_line_says_so(tiny, graphs, capsys):
    model = tiny("llama")
    network = model.checkpoint.load(CPU)
    mlp = network.model.layers[1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: (torch._dynamo.graph_break(), forward(x))[1]
    capsys.readouterr()  # a model that is made for this test shows how it is written
    session = Session(Job([PROMPTS[0]], 6), "ch2", model.checkpoint, "cpu", COMPILED)
    assert [done.tokens for done in session.serve()] == [model.oracle(PROMPTS[0], 6)]
    assert not session.options.compile
    lines = capsys.readouterr().err.splitlines()
    notes = [line for line in lines if line.startswith("note: LlamaForCausalLM: its layers cannot be compiled")]
    assert lines == notes
    assert len(notes) == 1


def test_linears_that_cannot_be_joined_are_left_and_one_line_says_so(tiny, graphs, capsys, monkeypatch):
    def refuse(network):
        raise RuntimeError("its linears cannot be joined (a reason)")

    monkeypatch.setattr(fuse, "join_linears", refuse)
    model = tiny("llama")
    capsys.readouterr()
    session = Session(Job([PROMPTS[0]], 6), "ch2", model.checkpoint, "cpu", COMPILED)
    assert [done.tokens for done in session.serve()] == [model.oracle(PROMPTS[0], 6)]
    assert capsys.readouterr().err == "note: LlamaForCausalLM: its linears cannot be joined (a reason)\n"
    assert session.options.compile


def test_what_goes_on_before_serving_is_told(tiny, graphs):
    told = []
    session = Session(Job([PROMPTS[0]], 4, max_running=2), "ch1", tiny("llama").checkpoint, "cpu", COMPILED)
    session.progress = told.append
    session.serve()
    assert told == [*(f"compiling, {number} of 3 kinds of batches" for number in (1, 2, 3)), ""]


def test_the_simulator_takes_compiled_costs_and_compiles_nothing(monkeypatch, tmp_path):
    record = json.loads(costs.FILE.read_text())
    for entry in record["models"].values():
        entry.pop(costs.COMPILED, None)
    counter = record["models"]["counter"]
    counter[costs.COMPILED] = counter | {"replay_launch": 1.0}
    (tmp_path / "costs.json").write_text(json.dumps(record))
    monkeypatch.setattr(costs, "FILE", tmp_path / "costs.json")
    monkeypatch.setattr(fuse, "fuse", lambda _: pytest.fail("the simulator compiles"))
    session = Session(Job(["count 3 to 7"]), "ch6", "counter", "sim", COMPILED)
    assert session.device.costs.replay_launch == 1e-6
    assert [done.text for done in session.serve()] == ["3 4 5 6 7"]
    with pytest.raises(InputError, match="costs of compiled models are not calibrated for 'llama-3.1-8b'"):
        Session(Job([[1]]), "ch1", "llama-3.1-8b", "sim", COMPILED)
