"""Whether a transformers model would be served the tokens that its own `generate` gives, as far as can be told.

It is asked three times. Its config says whether there is more to it than attention over all positions so far, and its
generation config whether more than the likeliest token is asked for. A forward pass without data shows what reaches the
attention function. And once its weights are there, its own attention and ours answer the same few ragged rows.
"""

import inspect
from collections.abc import Iterator
from typing import NamedTuple

import torch
from transformers import AttentionInterface, GenerationConfig, PretrainedConfig, PreTrainedModel

from ..device import CudaDevice
from ..kv_cache import AttentionLayer, KVCache
from ..model import ATTENTION, Model
from ..request import Batch, Request, Row
from ..sim.device import CpuDevice
from ..slot import SlotSize

PROBE = "acb_probe"

# What `generate` does with these set to anything else, we do not.
NEUTRAL = {
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "sequence_bias": None, "min_length": 0,
    "min_new_tokens": 0, "forced_bos_token_id": None, "forced_eos_token_id": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "exponential_decay_length_penalty": None, "guidance_scale": 1.0, "num_beams": 1,
    "penalty_alpha": None, "watermarking_config": None, "prompt_lookup_num_tokens": None,
}  # fmt: skip
LAYERS = ("full_attention", "sliding_attention", "attention")
STATES = ("mamba_", "ssm_", "rwkv_")  # what the names of settings begin with
LENGTHS = (1, 6, 11)  # tokens of the rows that are compared, and then one more
DISTANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # between logits, as a share of their own spread
HALF_DISTANCE = 0.1  # the same where weights have 16 bits: every sum rounds in another order


class UnsupportedModel(Exception):
    """A network would be served wrong; the message says why."""


class AttentionCall(NamedTuple):
    """What a model asks its attention for.

    Attributes:
        module: the layer's.
        kv_heads: heads of keys and values.
        head_dim: their size.
        sliding_window: that it is told of; None if it is not.
    """

    module: torch.nn.Module
    kv_heads: int
    head_dim: int
    sliding_window: int | None


def _probe_attention(module, query, key, value, attention_mask, *, record=None, sliding_window=None, **options):
    """Stands in for attention when a model is examined: records an AttentionCall."""
    if record is None:
        raise UnsupportedModel("the model hands nothing on to its attention, which has to know of the batch")
    _check_supported(**options)
    if key.shape != value.shape or query.shape[-1] != key.shape[-1]:
        raise UnsupportedModel("queries, keys and values of different head sizes are not supported")
    if query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
        raise UnsupportedModel("attention to other positions than those of the queries is not supported")
    record.append(AttentionCall(module, key.shape[1], key.shape[3], sliding_window))
    return query.transpose(1, 2), None


def _check_supported(dropout: float = 0.0, softcap=None, s_aux=None, **_) -> None:
    """Refuses what would change the result of attention and is not built in."""
    if dropout or softcap is not None or s_aux is not None:
        raise UnsupportedModel("attention with dropout, softcap or sinks is not supported")


AttentionInterface.register(PROBE, _probe_attention)


def check_config(config: PretrainedConfig) -> None:
    """Whether its config speaks of nothing that is not built in.

    Raises:
        UnsupportedModel: it does.
    """
    for each in (config, config.get_text_config()):
        for reason in _reasons(each):
            raise UnsupportedModel(reason)


def _reasons(config: PretrainedConfig) -> Iterator[str]:
    settings = config.to_dict()
    if settings.get("is_encoder_decoder"):
        yield "it is the decoder of an encoder"
    for name in settings:
        if name.startswith(STATES):
            yield f"it keeps a state beside attention ({name})"
    for kind in settings.get("layer_types") or ():
        if kind not in LAYERS:
            yield f"it has layers of type {kind!r}; all must be of {', '.join(LAYERS)}"
    if settings.get("attention_chunk_size"):
        yield f"its attention is cut into chunks (attention_chunk_size {settings['attention_chunk_size']})"
    if settings.get("use_bidirectional_attention") or settings.get("is_causal") is False:
        yield "its attention looks ahead (it is bidirectional)"
    for kind in _rope_types(settings.get("rope_parameters") or settings.get("rope_scaling") or {}):
        if kind in ("dynamic", "longrope"):
            yield f"its rotary positions are of type {kind!r}: they depend on how long a request is, a batch has many"


def _rope_types(parameters: dict) -> Iterator[str]:
    """Of a config's rotary positions, which can be given for each type of layer."""
    for value in (parameters, *parameters.values()):
        if isinstance(value, dict) and (kind := value.get("rope_type", value.get("type"))):
            yield kind


def check_generation(config: GenerationConfig) -> None:
    """Whether `generate` picks the likeliest token, whatever came before it.

    Raises:
        UnsupportedModel: it does more.
    """
    for name, neutral in NEUTRAL.items():
        value = getattr(config, name, None)
        if value not in (None, neutral, [], {}):
            raise UnsupportedModel(
                f"its generation config has {name} = {value}, which generate obeys and this engine does not (take it "
                "out of generation_config.json to be served without)"
            )


def attention_layers(model: PreTrainedModel) -> list[AttentionLayer]:
    """The attention layers of a model on the meta device, by a forward pass without data, in the order they run.

    Raises:
        UnsupportedModel: what is not in a layer's attention would be lost.
    """
    takes = inspect.signature(type(model).forward).parameters
    for name in ("position_ids", "logits_to_keep"):
        if name not in takes:
            raise UnsupportedModel(f"its forward pass takes no {name}")
    calls: list[AttentionCall] = []
    names = {module: name for name, module in model.named_modules()}
    ids = torch.zeros(1, 1, dtype=torch.int32, device="meta")
    model.eval()
    no_padding(model)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")  # without data, the usual kernels take bfloat16 alone
    model.set_attn_implementation(PROBE)
    try:
        with torch.inference_mode():
            model(input_ids=ids, position_ids=ids, use_cache=False, record=calls)
    except UnsupportedModel:
        raise
    except Exception as error:  # its own code's
        raise UnsupportedModel(f"a forward pass without data ends in {first_line(error)}") from error
    text_config = model.config.get_text_config()
    if len(calls) != text_config.num_hidden_layers:
        raise UnsupportedModel(
            f"{len(calls)} of its {text_config.num_hidden_layers} layers go through transformers' AttentionInterface; "
            "all must"
        )
    if len({call.module for call in calls}) < len(calls):
        raise UnsupportedModel("some of its layers share one attention")
    if any(getattr(call.module, "is_causal", True) is False for call in calls):
        raise UnsupportedModel("its attention looks ahead (it is bidirectional)")
    _check_windows(text_config, calls)
    return [AttentionLayer(names[call.module], call.kv_heads, call.head_dim) for call in calls]


def no_padding(model: PreTrainedModel) -> None:
    """Tells a model that there is no padding: some look for it in every forward pass, and the host waits for that."""
    vars(model.config)["pad_token_id"] = None  # some configs would not take it


def _check_windows(config: PretrainedConfig, calls: list[AttentionCall]) -> None:
    """Whether attention is told of each window: many models put it into a mask, and that is not ours."""
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", None) is False:
        return
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * len(calls)
    for kind, call in zip(kinds, calls, strict=True):
        if kind == "sliding_attention" and call.sliding_window is None:
            raise UnsupportedModel(
                f"its window of {window} positions (sliding_window) is in its mask, and attention is not told"
            )


@torch.inference_mode()
def check_answers(network: PreTrainedModel, layers: list[AttentionLayer], config: PretrainedConfig) -> None:
    """Whether its own attention, row by row, and ours, on a ragged batch and one that goes on from it, give the same.

    Args:
        network: with its weights, its attention replaced by ours.

    Raises:
        UnsupportedModel: they do not.
    """
    where, dtype = network.device, network.dtype
    random = torch.Generator().manual_seed(0)
    vocab = config.get_text_config().vocab_size
    rows = [torch.randint(vocab, (length + 1,), generator=random).tolist() for length in LENGTHS]
    network.set_attn_implementation("eager")
    theirs = []
    for tokens in rows:
        logits = network(input_ids=torch.tensor([tokens], device=where), use_cache=False).logits[0]
        theirs += [logits[-2], logits[-1]]
    network.set_attn_implementation(ATTENTION)
    ours = _ragged(network, layers, rows, where)
    distance = sum((mine - right).float().norm() for mine, right in zip(ours, theirs, strict=True))
    distance /= sum((right - right.mean()).float().norm() for right in theirs)
    if not distance <= DISTANCE.get(dtype, HALF_DISTANCE):
        raise UnsupportedModel(
            f"its own attention and ours give different answers (their logits differ by {distance:.1%}): there is more "
            "to it than attention over all positions so far"
        )


def _ragged(network: PreTrainedModel, layers: list[AttentionLayer], rows: list[list[int]], where) -> list[torch.Tensor]:
    """The logits of the last two tokens of each row: from one batch with all of it but the last token, and one with
    that. The longest row is cut in two on the way."""
    device = CudaDevice() if where.type == "cuda" else CpuDevice()
    page_size, longest = 4, max(map(len, rows))
    pages = -(-longest // page_size)
    cache = KVCache(layers, pages * len(rows), page_size, network.dtype, where)
    model = Model(network, layers, cache, SlotSize(len(rows), sum(map(len, rows)), pages), device)
    requests = []
    for number, tokens in enumerate(rows):
        requests.append(Request(str(number), tokens, 1))
        requests[-1].pages = list(range(number * pages, (number + 1) * pages))[::-1]
    cut = longest // 2
    batches = [
        [(request, 0, cut if len(request.tokens) == longest else len(request.tokens) - 1) for request in requests],
        [(requests[-1], cut, longest - 1 - cut), *((request, len(request.tokens) - 1, 1) for request in requests[:-1])],
        [(requests[-1], longest - 1, 1)],
    ]
    found: dict[tuple[str, int], torch.Tensor] = {}
    slot = model.new_slot()
    for batch in batches:
        for request, start, length in batch:
            request.prompt_len = start + length  # of each row, a token is sampled
        slot.write(Batch([Row(*row) for row in batch]))
        slot.upload()
        longest = slot.written.batch.max_query_len
        for (request, start, length), logits in zip(batch, model.logits(slot.written.inputs, longest), strict=True):
            found[request.id, start + length] = logits
    model.close()
    return [found[request.id, len(request.tokens) - less] for request in requests for less in (1, 0)]


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for a one-line message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def reason(error: Exception) -> str:
    """Why a model is not served, in a few words."""
    if isinstance(error, UnsupportedModel):
        return str(error)
    if isinstance(error, KeyError) and error.args[:1] in ((ATTENTION,), (PROBE,)):
        return "its attention does not go through transformers' AttentionInterface"
    return first_line(error)
