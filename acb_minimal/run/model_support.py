"""Whether a transformers model would be served the tokens that its own `generate` gives, or such as it draws.

What is not known to be served right is refused, by name. A network's config and generation config say much. A forward
pass without data shows what its attention is asked for. Once its weights are there, what it makes of a token must come
of that token and its position alone, attention left out; and its own attention and ours must give the same.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PretrainedConfig, PreTrainedModel

from ..device import CudaDevice
from ..kv_cache import AttentionLayer, KVCache
from ..model import ATTENTION, Model
from ..request import Batch, Request, Row
from ..sim.device import CpuDevice
from ..slot import SlotSize
from .generation import UnsupportedModel

PROBE = "acb_probe"

LAYERS = ("full_attention", "sliding_attention", "attention")
STATES = ("mamba_", "ssm_", "rwkv_")  # what the names of settings begin with
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
OPTIONS = ("scaling", "position_ids", "use_cache", "logits_to_keep")  # what attention may be told of
TOKENS = 12  # of a row that is compared
FAR = 1 << 20  # a position, or fewer: what depends on how far along a token is shows by then
DISTANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # between logits, as a share of their own spread
HALF_DISTANCE = 0.1  # the same where weights have 16 bits: every sum rounds in another order


class AttentionCall(NamedTuple):
    """What a model asks its attention for: heads of keys and values, of a size, with the window that it is told of, and
    its mask as transformers' rule of (batch, head, query position, key position), if it is one."""

    module: torch.nn.Module
    kv_heads: int
    head_dim: int
    sliding_window: int | None
    sees: Callable[..., Tensor] | None


def _probe_attention(module, query, key, value, attention_mask, *, record=None, sliding_window=None, **options):
    """Stands in for attention when a model is examined: records an AttentionCall, and answers with the query."""
    if record is None:
        raise UnsupportedModel("the model hands nothing on to its attention, which has to know of the batch")
    for name, told in options.items():
        harmless = name in OPTIONS or name.startswith("output_") or (name == "dropout" and not told)
        if told is not None and not harmless:
            raise UnsupportedModel(f"its attention is told of {name}, which is not built in")
    if key.shape != value.shape or query.shape[-1] != key.shape[-1]:
        raise UnsupportedModel("queries, keys and values of different head sizes are not supported")
    if query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
        raise UnsupportedModel("attention to other positions than those of the queries is not supported")
    sees = getattr(attention_mask, "sees", None)
    record.append(AttentionCall(module, key.shape[1], key.shape[3], sliding_window, sees))
    return query.transpose(1, 2), None


def _probe_mask(*_, mask_function: Callable[..., Tensor], **__) -> Tensor:
    """Stands in for a mask, and has the rule by which it would be made."""
    mask = torch.empty(1, 1, 1, 1, device="meta")
    mask.sees = mask_function
    return mask


def _full_cache(network: PreTrainedModel, tokens: int) -> dict[str, DynamicCache]:
    """The argument by which a network is handed a cache that says it holds so many tokens; none if it takes none."""
    full = DynamicCache()
    full.get_seq_length = lambda *_, **__: tokens
    full.get_mask_sizes = lambda *_, **__: (tokens + 1, 0)
    full.update = lambda keys, values, *_, **__: (keys, values)
    takes = inspect.signature(type(network).forward).parameters
    names = [name for name in ("cache", "past_key_values") if name in takes]  # from transformers 5.24 on, and before
    return dict.fromkeys(names[:1], full)


AttentionInterface.register(PROBE, _probe_attention)
AttentionMaskInterface.register(PROBE, _probe_mask)


def flaws(config: PretrainedConfig) -> Iterator[str]:
    """What a config speaks of that is not built in, as far as a forward pass without data would not show that."""
    for settings in (config.to_dict(), config.get_text_config().to_dict()):
        if quantization := settings.get("quantization_config"):
            yield f"its weights are quantized ({quantization.get('quant_method', 'in a way of its own')})"
        yield from (f"it keeps a state beside attention ({name})" for name in settings if name.startswith(STATES))
        rope = settings.get("rope_parameters") or {}
        for value in (rope, *rope.values()):  # they can be given for each type of layer
            if isinstance(value, dict) and (kind := value.get("rope_type")) in ("dynamic", "longrope"):
                yield f"its rotary positions ({kind}) depend on how long a request is"
        other = (kind for kind in settings.get("layer_types") or () if kind not in LAYERS)
        yield from (f"it has layers of type {kind!r}; all must be of {', '.join(LAYERS)}" for kind in other)
    if config.dtype not in (None, *DTYPES):
        yield f"its weights are {config.dtype}; they must be one of {', '.join(map(str, DTYPES))}"


def attention_layers(model: PreTrainedModel) -> list[AttentionLayer]:
    """The attention layers of a model on the meta device, by a forward pass without data, in the order they run;
    UnsupportedModel if what is not in a layer's attention would be lost."""
    takes = inspect.signature(type(model).forward).parameters
    if missing := [name for name in ("position_ids", "logits_to_keep") if name not in takes]:
        raise UnsupportedModel(f"its forward pass takes no {missing[0]}")
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
            model(input_ids=ids, position_ids=ids, use_cache=False, record=calls, **_full_cache(model, FAR))
    except UnsupportedModel:
        raise
    except Exception as error:  # its own code's
        if "meta tensor" in str(error):
            raise UnsupportedModel("in its forward pass the host reads what is on the GPU, and waits for it") from error
        raise UnsupportedModel(f"a forward pass without data ends in {in_one_line(error)}") from error
    config = model.config.get_text_config(decoder=True)
    if len(calls) != (count := config.num_hidden_layers):
        what = f"it asks for attention {len(calls)} times through transformers' AttentionInterface"
        raise UnsupportedModel(f"{what}; each of its {count} layers must, once")
    if len({call.module for call in calls}) < len(calls):
        raise UnsupportedModel("some of its layers share one attention")
    for call, kept in zip(calls, DynamicCache(config=config).layers, strict=False):
        _check_mask(call, getattr(kept, "sliding_window", None))
    return [AttentionLayer(names[call.module], call.kv_heads, call.head_dim) for call in calls]


def no_padding(model: PreTrainedModel) -> None:
    """Tells a model that there is no padding: some look for it in every forward pass, and the host waits for that."""
    vars(model.config)["pad_token_id"] = None  # some configs would not take it


def _check_mask(call: AttentionCall, kept: int | None) -> None:
    """Whether attention is to all positions so far, or to the window that it is told of: so says the mask, and so many
    are `kept` in the cache that `generate` makes."""
    if call.sees is None:
        raise UnsupportedModel("its mask is not made by transformers' own functions")
    window = call.sliding_window or FAR + 1
    for key in (0, FAR - window, FAR - window + 1, FAR, FAR + 1):
        seen = key >= 0 and bool(call.sees(*map(torch.tensor, (0, 0, FAR, key))))
        if seen and key > FAR:
            raise UnsupportedModel("its attention looks ahead (it is bidirectional)")
        if seen != (FAR - window < key <= FAR) or kept != call.sliding_window:
            raise UnsupportedModel("it has a window, or chunks, that its attention is not told of")


@torch.inference_mode()
def check_network(network: PreTrainedModel, layers: list[AttentionLayer], vocab: int, max_positions: int) -> None:
    """UnsupportedModel if a network with its weights does not give with our attention what it gives with its own."""
    for name, weight in network.named_parameters():
        part = weight.to_local() if isinstance(weight, DTensor) else weight  # of several ranks each looks at its own
        if not part.isfinite().all():
            raise UnsupportedModel(f"its weights have NaN or infinity in them ({name})")
    limit = DISTANCE.get(network.dtype, HALF_DISTANCE)
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab, (2, min(TOKENS, max_positions)), generator=random).to(network.device)
    for distance, most in _by_place(network, ids, max_positions):
        if distance > min(limit, most):
            what = "what it makes of a token depends on where in a batch that stands, or on what else is there"
            raise UnsupportedModel(f"{what} (its logits differ by {distance:.1%})")
    network.set_attn_implementation("eager")
    theirs = network(input_ids=ids[:1], use_cache=False).logits[0]
    network.set_attn_implementation(ATTENTION)
    ours = _last_logits(network, layers, ids[0].tolist())
    # Of most tokens: where weights have 16 bits, one may be sent to another expert by no more than how sums round.
    if (distance := _distances(ours, theirs[-len(ours) :]).median()) > limit:
        what = f"its own attention and ours give different answers (its logits differ by {distance:.1%})"
        raise UnsupportedModel(f"{what}: there is more to it than attention over all positions so far")


def _by_place(network: PreTrainedModel, ids: Tensor, max_positions: int) -> Iterator[tuple[Tensor, Tensor | float]]:
    """How far the logits of a few tokens, attention left out, are from those at a batch's start; how far they may be.

    A network knows how far along a token is from its position, from a cache, and from where it stands in the batch; a
    row of a batch has no cache, and stands anywhere. So the tokens are asked for behind others that are as far along
    as can be, and beside a cache that says it is full.
    """
    count = ids.shape[1]
    near = torch.arange(count, device=ids.device)
    far = near + min(max_positions, FAR) - count

    def logits(rows: Tensor, first: Tensor, **cache: DynamicCache) -> Tensor:
        inputs = {"input_ids": rows.reshape(1, -1), "position_ids": torch.cat([first, near])[None]}
        return network(**inputs, use_cache=False, record=[], **cache).logits[0]

    network.set_attn_implementation(PROBE)
    right, again = logits(ids, near)[:count], logits(ids, near)[:count]
    yield _distances(logits(ids.flip(0), far)[count:], right).max(), HALF_DISTANCE / 5
    told = logits(ids, near, **_full_cache(network, far[0].item()))[:count]
    yield _distances(told, right).max(), 1e-4 + 4 * _distances(again, right).max()  # it is the same batch


def _last_logits(network: PreTrainedModel, layers: list[AttentionLayer], tokens: list[int]) -> Tensor:
    """Of the second half of the tokens, with our attention: from a batch with the first half, and then a batch each."""
    device = CudaDevice() if network.device.type == "cuda" else CpuDevice()
    cache = KVCache(layers, len(tokens), 1, network.dtype, network.device)
    model = Model(network, layers, cache, SlotSize(1, len(tokens), len(tokens)), device)
    slot, found, start = model.new_slot(), [], 0
    for end in range((len(tokens) + 1) // 2, len(tokens) + 1):
        request = Request("", tokens[:end], 1)
        request.pages = list(range(len(tokens)))[::-1]
        slot.write(Batch([Row(request, start, end - start)]))
        slot.upload()
        found.append(model.compute_logits(slot.written.inputs, end - start))
        start = end
    model.close()
    return torch.cat(found)


def _distances(found: Tensor, right: Tensor) -> Tensor:
    """Between logits, [tokens, vocabulary], as a share of the spread of those that are right, token by token."""
    found, right = found.double(), right.double()
    distances = (found - right).norm(dim=-1) / (right - right.mean(-1, keepdim=True)).norm(dim=-1)
    if not distances.isfinite().all():
        raise UnsupportedModel("its logits are NaN, infinite or all the same")
    return distances.cpu()


def in_one_line(error: BaseException) -> str:
    """What went wrong, by the first sentence of its message, whatever lines that has been cut into."""
    said = " ".join(str(error).split())
    if isinstance(error, KeyError) and error.args[:1] in ((ATTENTION,), (PROBE,)):
        said = "its attention does not go through transformers' AttentionInterface"
    elif isinstance(error, KeyError):
        said = f"transformers does not know {said}, which its config names"
    elif "trust_remote_code" in said:
        said = "it needs code that it brings along, and such code is never run here"
    elif not isinstance(error, UnsupportedModel):
        said = ": ".join(filter(None, (type(error).__name__, re.split(r"(?<=[.!?])\s", said)[0].rstrip("."))))
    return textwrap.shorten(said, 300, placeholder=" ...")
