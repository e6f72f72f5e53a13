"""The roofline's arithmetic, on kernels written down by hand: which group, how many bytes, how far from the floor."""

import pytest
import torch
import transformers
from conftest import TINY
from transformers import AutoModelForCausalLM

from acb_minimal.errors import InputError
from acb_minimal.kv_cache import AttentionLayer
from acb_minimal.measure import roofline
from acb_minimal.measure.roofline import ATTENTION, GEMMS, REST, Case, Kernel, Step, bytes_to_read, group_of, table
from acb_minimal.run import fuse
from acb_minimal.run.checkpoint import Checkpoint


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("attend_kernel", ATTENTION),
        ("write_kernel", ATTENTION),
        ("merge_kernel", ATTENTION),
        ("nvjet_tst_64x8_64x16_4x1_v_bz_TNT", GEMMS),
        ("nvjet_tst_128x32_64x9_2x1_v_bz_splitK_TNT", GEMMS),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(...)", GEMMS),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16, float, 128, 16, 4, 4, false>(...)", GEMMS),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64_cublas", GEMMS),
        ("triton_tem_fused_mm_1", GEMMS),
        ("triton_red_fused_add_mean_mul_pow_rsqrt_2", REST),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::silu_kernel(...)>", REST),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<ArgMaxOps>>(...)", REST),
        ("Memcpy DtoD (Device -> Device)", REST),
    ],
)
def test_a_kernel_belongs_to_a_group_by_its_name(name, group):
    assert group_of(name) == group


def made(**changes):
    config = transformers.LlamaConfig(**TINY | changes)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


LAYERS = [AttentionLayer("0", 2, 16), AttentionLayer("1", 2, 16)]
# q and o 64 x 32, k and v 32 x 32 each; gate, up, down 48 x 32 each; two layers; the last linear 89 x 32
WEIGHTS = 2 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 48 * 32) + 89 * 32


def test_keys_and_values_of_every_row_are_read():
    # rows * positions * (keys and values) * heads * head_dim * bytes * layers
    assert bytes_to_read(made(), LAYERS, rows=3, context=10)[ATTENTION] == 3 * 10 * 2 * 2 * 16 * 2 * 2


@pytest.mark.parametrize("tied", [False, True])
def test_weights_of_linears_are_read_and_an_embedding_is_not(tied):
    assert bytes_to_read(made(tie_word_embeddings=tied), LAYERS, 1, 1)[GEMMS] == 2 * WEIGHTS


def test_biases_of_linears_are_read():
    biases = 2 * (64 + 32 + 32 + 32 + 48 + 48 + 32)
    assert bytes_to_read(made(attention_bias=True, mlp_bias=True), LAYERS, 1, 1)[GEMMS] == 2 * (WEIGHTS + biases)


def test_joining_linears_changes_nothing_of_what_must_be_read(tiny_path):
    checkpoint = Checkpoint(tiny_path("llama"))
    network = checkpoint.load(torch.device("cpu"))
    before = bytes_to_read(network, checkpoint.layers, 2, 5)
    assert before[GEMMS] == 4 * WEIGHTS
    assert fuse.join_linears(network)
    assert bytes_to_read(network, checkpoint.layers, 2, 5) == before


def test_the_floor_of_the_published_shape_is_its_weights_and_cache():
    """Llama-3.1-8B: 8.03 billion parameters less 0.525 of the embedding; 131,072 bytes for each position."""
    checkpoint = Checkpoint("llama-3.1-8b")
    with torch.device("meta"):
        network = checkpoint._empty()
    found = bytes_to_read(network, checkpoint.layers, 32, 4096)
    assert found[GEMMS] == pytest.approx(2 * (8.030e9 - 0.5253e9), rel=1e-3)
    assert found[ATTENTION] == 32 * 4096 * 131072


CASE = Case("long", "llama-3.1-8b", 32, (512,))
KERNELS = [Kernel("attend_kernel", 0.001), Kernel("merge_kernel", 0.0005), Kernel("nvjet_a", 0.002),
           Kernel("nvjet_splitk_b", 0.001), Kernel("triton_poi_fused_add_0", 0.0005)]  # fmt: skip


def step(compiled=False) -> Step:
    # 5 replays of the same kernels; 3 and 6 GB at 4 TB/s: a floor of 2.25 ms in a step of 6
    return Step(CASE, 512, compiled, {ATTENTION: 3 * 10**9, GEMMS: 6 * 10**9}, KERNELS * roofline.REPLAYS, 0.006, 4e12)


def test_a_step_is_broken_down_and_held_to_the_floor():
    assert step().floor == pytest.approx(0.00225)
    rows = {row[4]: row[5:] for row in step().rows()}
    assert list(rows) == [ATTENTION, GEMMS, REST, "between kernels", "the step"]
    assert rows[ATTENTION] == [2, 3, pytest.approx(1.5), pytest.approx(0.75), pytest.approx(2), pytest.approx(0.5)]
    assert rows[GEMMS] == [2, 6, pytest.approx(3), pytest.approx(1.5), pytest.approx(2), pytest.approx(0.5)]
    assert rows[REST] == [1, None, pytest.approx(0.5), None, None, None]
    assert rows["between kernels"] == [None, None, pytest.approx(1), None, None, None]
    assert rows["the step"] == [5, 9, pytest.approx(6), pytest.approx(2.25), pytest.approx(1.5), pytest.approx(0.375)]


def test_the_table_names_case_rate_and_machine():
    found = table([step(), step(compiled=True)], {"device": "a GPU"})
    cells = found.cells()
    assert cells[0][:5] == ["long, llama-3.1-8b", "32", "512", "no", "attention"]
    assert cells[0][5:] == ["2", "3.00", "1.500", "0.750", "2.00", "50%"]
    assert [row[3] for row in cells] == ["no"] * 5 + ["yes"] * 5
    assert "A plain sum reads 4.00 TB/s" in found.note
    assert found.environment == {"device": "a GPU"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_needs_a_gpu():
    with pytest.raises(InputError, match="the roofline needs a CUDA GPU"):
        roofline.roofline()
