"""Joined linears and compiled layers: what is joined, what is left alone, and that no token changes."""

import random

import pytest
import torch
import transformers
from tiny import TINY, VOCAB, Harness
from torch import nn
from transformers import AutoModelForCausalLM

from acb_minimal.kv_cache import KVCache
from acb_minimal.model import Model
from acb_minimal.request import Batch, Request, Row
from acb_minimal.run import compile as module
from acb_minimal.run.compile import FirstLinear, compile_decodes, join_linears, warm_up_compiled
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.device import CpuDevice
from acb_minimal.slot import SlotSize

CPU = torch.device("cpu")
COMPILED = Options(compile=True)
PROMPTS = [random.Random(seed).choices(range(VOCAB), k=5 + 3 * seed) for seed in range(5)]


@pytest.fixture
def tiny(tmp_path):
    """A Harness of a tiny model that nobody else has, of a config."""

    def get(config=None) -> Harness:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config or transformers.LlamaConfig(**TINY))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero when a model is new, and nobody would miss one
                nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(tmp_path)
        return Harness(str(tmp_path))

    return get


@pytest.fixture
def graphs(monkeypatch):
    """Compiles without a compiler: every graph that torch makes is added to this list, and run as it is."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setitem(module.COMPILE, "backend", backend)
    yield made
    torch._dynamo.reset()


def of_layers(graphs: list) -> list:
    """Those that attend: of decoder layers, not of what is beside them."""
    return [graph for graph in graphs if any("paged_attention" in str(node.target) for node in graph.graph.nodes)]


def serves_as_generate(harness: Harness, chapter="ch1", options: Options = COMPILED, prompts=PROMPTS[:3]) -> Session:
    """A session of which every token was transformers' own."""
    session = Session(Job(prompts, 6, max_running=2, max_batch_tokens=16, page_size=4), chapter, harness.checkpoint,
                      "cpu", options)  # fmt: skip
    assert [done.tokens for done in session.serve()] == [harness.oracle(prompt, 6) for prompt in prompts]
    return session


def joined(network: nn.Module) -> list[int]:
    """How many linears each FirstLinear stands for, in the order of the network's modules."""
    return [len(each.sizes) for each in network.modules() if isinstance(each, FirstLinear)]


def test_linears_that_read_the_same_input_become_views_of_one_weight_and_no_token_changes(tiny):
    harness = tiny(transformers.LlamaConfig(**TINY, attention_bias=True, mlp_bias=True))
    before = {name: tensor.clone() for name, tensor in harness.network.state_dict().items()}
    join_linears(harness.network)
    assert joined(harness.network) == [3, 2, 3, 2]  # q, k and v; gate and up
    after = harness.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    attention = harness.network.model.layers[0].self_attn
    whole = attention.q_proj.joined_weight
    for linear, start in ((attention.q_proj, 0), (attention.k_proj, 64), (attention.v_proj, 96)):
        assert linear.weight.data_ptr() == whole[start].data_ptr()
    requests = [Request(str(number), prompt, 6) for number, prompt in enumerate(PROMPTS)]
    harness.serve(requests)
    assert [r.generated for r in requests] == [harness.oracle(prompt, 6) for prompt in PROMPTS]


class Net(nn.Module):
    """As much of a transformers model as joining needs, with any forward over two linears."""

    device = CPU

    def __init__(self, run):
        super().__init__()
        self.gate_proj, self.up_proj, self.run = nn.Linear(4, 4), nn.Linear(4, 6), run

    def set_attn_implementation(self, name):
        pass

    def forward(self, input_ids, record=None, **_):
        return self.run(self, torch.ones(1, 3, 4))


def test_a_linear_of_another_class_or_with_a_forward_of_its_own_is_left_alone():
    quantised, shared = (Net(lambda net, x: (net.gate_proj(x), net.up_proj(x))) for _ in range(2))
    quantised.gate_proj.__class__ = type("Quantised", (nn.Linear,), {})
    shared.gate_proj.forward = lambda x: x  # as transformers gives to those that ranks share
    for net in (quantised, shared):
        join_linears(net)
        assert joined(net) == []


def test_a_model_that_cannot_take_a_view_is_as_it_was_and_a_line_says_so(capsys):
    net = Net(lambda net, x: (net.gate_proj(x).view(-1), net.up_proj(x)))
    gate, up = net.gate_proj, net.up_proj
    expected = net(None)
    join_linears(net)
    assert capsys.readouterr().err.startswith("note: Net: its linears cannot be joined (RuntimeError: view")
    assert (net.gate_proj, net.up_proj) == (gate, up)
    assert all(torch.equal(x, y) for x, y in zip(net(None), expected, strict=True))


def test_a_joined_linear_that_gets_another_input_after_all_computes():
    net = Net(lambda net, x: (net.gate_proj(x), net.up_proj(x)))
    up = net.up_proj
    join_linears(net)
    x, other = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    net.gate_proj(x)
    torch.testing.assert_close(net.up_proj(other), up(other))
    torch.testing.assert_close(net.up_proj(x), up(x))  # what was ready is gone by now
    assert net.up_proj.ready == (None, None)


@pytest.mark.slow
def test_three_graphs_serve_all_layers_and_all_sizes(tiny, graphs):
    harness = tiny(transformers.Qwen3Config(**TINY | {"num_hidden_layers": 3}))
    compile_decodes(harness.network)
    cache = KVCache(harness.checkpoint.layers, 64, 4, torch.float32, CPU)
    model = Model(harness.network, harness.checkpoint.layers, cache, SlotSize(40, 80, 16), CpuDevice())
    told = []
    assert warm_up_compiled(model, told.append)
    assert told[0] == "compiling, 1 of 9 kinds of batches"  # one of prompts; 40, 32, 24, 16, 8, 4, 2 and 1 decodes
    assert len(of_layers(graphs)) == 3
    assert len(graphs) == 9  # as many of the last norm, and of the rotary embedding
    slot = model.new_slot()
    for rows in range(1, 41):  # chapters 1 to 5 do not pad
        slot.pad(rows)
        model.forward(slot)
    assert len(graphs) == 9
    request = Request("0", [1, 2, 3], 1)
    request.pages = [0]
    slot.write(Batch([Row(request, 0, 3)]))
    model.forward(slot)
    assert len(of_layers(graphs)) == 3  # those of a batch with a prompt run as they are


@pytest.mark.slow
def test_inductors_code_generates_the_oracles_tokens(tiny):
    torch._dynamo.reset()
    assert serves_as_generate(tiny(transformers.Qwen3Config(**TINY)), "ch6").options.compile


@pytest.mark.slow
def test_a_run_without_compile_after_one_with_it_runs_as_it_was(tiny, graphs, monkeypatch):
    harness = tiny()
    serves_as_generate(harness)
    with monkeypatch.context() as patch:
        for layer in harness.network.model.layers:
            patch.setattr(layer.forward, "compiled", lambda *_, **__: pytest.fail("a compiled layer ran"))
        serves_as_generate(harness, options=Options())
    count = len(graphs)
    serves_as_generate(harness)
    assert len(graphs) == count > 0  # what was compiled for the first run serves the third


@pytest.mark.slow
def test_what_cannot_be_compiled_runs_as_it_is_and_a_line_says_so(tiny, graphs, capsys, monkeypatch):
    harness = tiny()
    mlp = harness.network.model.layers[1].mlp
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: (torch._dynamo.graph_break(), forward(x))[1])
    capsys.readouterr()  # a model that is made for this test shows how it is written
    assert not serves_as_generate(harness, "ch2").options.compile
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: LlamaForCausalLM: its layers cannot be compiled and run as they are (")


def test_the_simulator_compiles_nothing(monkeypatch):
    monkeypatch.setattr(module, "join_linears", lambda _: pytest.fail("the simulator compiles"))
    session = Session(Job(["count 3 to 7"]), "ch6", "counter", "sim", COMPILED)
    assert [done.text for done in session.serve()] == ["3 4 5 6 7"]
