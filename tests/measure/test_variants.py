"""The log of what was tried: every idea reaches the network and leaves it again. That it is faster, only a GPU says."""

from types import SimpleNamespace

import pytest
import torch
from conftest import Harness
from torch.nn import functional

from acb_minimal.errors import InputError
from acb_minimal.measure import product_triton, variant_parts, variants
from acb_minimal.measure.product_triton import Blocks
from acb_minimal.measure.roofline import REPLAYS
from acb_minimal.measure.variants import AS_IT_IS, CONTEXTS, VARIANTS, Tried, tables
from acb_minimal.run import fuse
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.sim.device import CpuDevice

ENVIRONMENT = {"device": "a machine"}


@pytest.fixture
def told(monkeypatch):
    """What torch.compile is told, each time; it hands back what it was given."""
    calls = []
    monkeypatch.setattr(torch, "compile", lambda forward, **options: (calls.append(options), forward)[1])
    return calls


def measured(small: bool = False) -> Tried:
    contexts = (variants.SMALL_CONTEXT,) if small else CONTEXTS
    return Tried(
        seconds={each.name: dict.fromkeys(contexts, 0.009) for each in VARIANTS},
        kernels={each.name: (400, 0.008) for each in VARIANTS},
        tokens={
            each.name: dict.fromkeys(contexts, [1, 2, 3, 4 if each is AS_IT_IS else 5]) for each in VARIANTS
        },
        linears=[["o_proj", 4096, 4096, 2.5, 2.8, None]],
        attention={"a plan": dict.fromkeys(contexts, 0.004)},
        cost=[["joining all linears", "seconds", 0.1]],
        rate=4.3e12,
    )


def test_the_log_has_a_row_for_every_variant():
    made = tables(measured(), measured(small=True), 30.0, ENVIRONMENT)
    assert [row[0] for row in made["steps"].cells()] == [each.name for each in VARIANTS]
    assert made["steps"].cells()[0][1:] == ["9.00", "9.00", "9.00", "400", "8.00", "9.000"]
    (triton,) = [cells for cells in made["steps"].cells() if cells[0] == "Triton products"]
    assert triton[1:] == ["9.00", "9.00", "9.00", "400", "8.00", "-"]  # its kernel is for fewer rows than `small` has
    assert made["linears"].cells() == [["o_proj", "4,096", "4,096", "2.50", "2.80", "-"]]
    assert made["cost"].cells()[1] == ["tokens as not compiled, 496 positions", "share", "0.75"]
    assert made["start"].cells() == [["acb run ch6 --compile --workload long --new-tokens 1", "30.0"]]


def test_names_differ_and_those_without_joined_linears_come_first():
    assert len({each.name for each in VARIANTS}) == len(VARIANTS)
    joined = [each.joined for each in VARIANTS]
    assert joined == sorted(joined)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_reaches_the_network_and_leaves_it_again(variant, tiny_path, told, monkeypatch):
    from acb_minimal import attention_triton

    network = Harness(tiny_path("llama")).network
    programs, tuning, linear = attention_triton.PROGRAMS_PER_SM, dict(attention_triton.TUNING), functional.linear
    libraries = []
    monkeypatch.setattr(fuse, "use_blas", lambda network, library: libraries.append(library))
    with variants.applied(variant, network, {torch.Size((1, 1)): Blocks(1, 1, 1, 1)}):
        layers = [layer.forward for layer in network.model.layers]
        assert all(isinstance(forward, fuse.DecodeCompiled) for forward in layers) == variant.compiled
        assert isinstance(network.model.norm.forward, fuse.Compiled) == (variant.compiled and variant.around)
        assert all(options.items() >= variant.options.items() for options in told)
        assert (attention_triton.PROGRAMS_PER_SM == 8) == variant.split
        assert attention_triton.TUNING[True, 2] == tuning[True, 2]._replace(**variant.tuning)
        assert libraries == ["cublaslt" if variant.cublaslt else "cublas"]
        assert (functional.linear is not linear) == variant.triton
    assert not any("forward" in vars(module) for module in network.modules())
    assert (programs, tuning) == (attention_triton.PROGRAMS_PER_SM, attention_triton.TUNING)
    assert libraries[-1] == "default"
    assert functional.linear is linear


@pytest.mark.parametrize("rows", [1, 5, 32])
@pytest.mark.parametrize("blocks", [Blocks(16, 32, 2, 2), Blocks(32, 64, 4, 3)])
def test_a_product_of_few_rows_is_the_product(rows, blocks):
    x, weight = torch.randn(1, rows, 128), torch.randn(96, 128)
    torch.testing.assert_close(product_triton.product(x, weight, blocks), x @ weight.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("triton", "chosen"), [(3.1, True), (2.9, False)])
def test_only_what_reads_faster_than_cublaslt_is_computed_by_it(monkeypatch, triton, chosen):
    """cuBLAS reads 1 TB/s, cuBLASLt 3, and the Triton kernel so many, whatever its blocks."""
    rates = {"cublas": 1.0, "cublaslt": 3.0}
    library = []
    monkeypatch.setattr(fuse, "use_blas", lambda network, name: library.append(name))
    monkeypatch.setattr(
        variant_parts, "_rate",
        lambda call, x, weights: 1e12 * (rates[library[-1]] if call is functional.linear else triton),
    )  # fmt: skip
    linear = torch.nn.Linear(256, 128, bias=False)
    found, faster = variant_parts.linears(torch.nn.ModuleDict({"o_proj": linear}), 3)
    assert found == [["o_proj", 128, 256, 1.0, 3.0, triton]]
    assert list(faster) == ([linear.weight.shape] if chosen else [])


def test_linears_that_it_is_faster_for_compute_by_it_compiled_or_not(monkeypatch):
    shapes = []
    product = product_triton.product
    monkeypatch.setattr(product_triton, "product", lambda x, *rest: (shapes.append(x.shape), product(x, *rest))[1])
    linear, other, biased = (
        torch.nn.Linear(128, 96, bias=False), torch.nn.Linear(128, 64, bias=False), torch.nn.Linear(128, 96)
    )  # fmt: skip
    few, many = torch.randn(3, 128), torch.randn(product_triton.MOST_ROWS + 1, 128)
    right = [module(x) for module in (linear, other, biased) for x in (few, many)]
    with torch.inference_mode(), product_triton.in_linears({linear.weight.shape: Blocks(16, 32, 2, 2)}):
        modules = linear, linear, other, other, biased, biased
        for module, x, expected in zip(modules, (few, many) * 3, right, strict=True):
            torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-4)
        assert shapes == [(3, 128)]
        compiled = torch.compile(lambda x: linear(x) + 1, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(few), right[0] + 1, rtol=1e-4, atol=1e-4)
        assert len(shapes) == 2
    torch._dynamo.reset()


def test_all_of_it_runs_from_end_to_end(told, monkeypatch, tmp_path):
    """On a CPU, with nothing timed: every variant, the products, the plans of attention, what compiling costs."""
    config = Checkpoint("counter").config
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # it is set in there: monkeypatch takes that back
    monkeypatch.setattr(variants, "CudaDevice", CpuDevice)
    monkeypatch.setattr(variants, "reading_rate", lambda: 4e12)
    for module in (variants, variant_parts):
        monkeypatch.setattr(module, "gpu_seconds", lambda call, **_: (call(), 0.001)[1])
    kernels = [SimpleNamespace(seconds=0.0005)] * 2 * REPLAYS
    monkeypatch.setattr(variants, "kernels_of", lambda call: (call(), kernels)[1])
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 10**9)
    found = variants._measure("counter", 3, (20, 40, 60), str(tmp_path))
    assert list(found.seconds) == list(found.kernels) == [each.name for each in VARIANTS]
    assert found.seconds["--compile"] == {20: 0.001, 40: 0.001, 60: 0.001}
    assert found.kernels["--compile"] == (2, pytest.approx(0.001))
    assert found.tokens["both"] == found.tokens["as it is"]  # in fp32 no tie is near
    kinds = {row[0]: row[1:3] for row in found.linears}
    hidden, inner = config.hidden_size, config.intermediate_size
    assert kinds["gate_proj, joined"] == [2 * inner, hidden]
    assert kinds["down_proj"] == [hidden, inner]
    assert {"q_proj, joined", "o_proj", "lm_head"} < set(kinds)
    assert list(found.attention) == list(variant_parts.PLANS)
    assert [what for what, *_ in found.cost][0] == "joining all linears"
    # For each variant: the layers, and the two modules beside them.
    layers, around = config.num_hidden_layers, sum(each.compiled and each.around for each in VARIANTS)
    layers_only = sum(each.compiled for each in VARIANTS) - around
    assert len(told) == (layers + 2) * around + layers * layers_only


def test_a_command_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(variant_parts, "START", ("run", "ch7"))
    with pytest.raises(InputError, match="acb run ch7: .*ch7"):
        variant_parts.start()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_measure():
    with pytest.raises(InputError, match="on a CUDA GPU; torch finds none"):
        variants.variants()
