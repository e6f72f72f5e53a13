"""A small causal LM of transformers' kind, served exactly as it is; and with one flaw each, for which it is refused."""

import json

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Each flaw, and what is said of it.
BY_ITS_ATTENTION = {
    "bypass": "asks for attention 0 times through transformers' AttentionInterface; each of its 2 layers must",
    "twice": "asks for attention 4 times through",
    "shared": "some of its layers share one attention",
    "mute": "the model hands nothing on to its attention",
    "window in mask": "it has a window, or chunks, that its attention is not told of",
    "window in cache": "it has a window, or chunks, that its attention is not told of",
    "own mask": "its mask is not made by transformers' own functions",
    "softcap": "its attention is told of softcap",
    "looks ahead": "its attention looks ahead",
    "wide values": "queries, keys and values of different head sizes",
    "reads": "in its forward pass the host reads what is on the GPU",
}
BY_ITS_WEIGHTS = {
    "place in cache": "depends on where in a batch that stands",
    "place in batch": "depends on where in a batch that stands",
    "neighbour": "depends on where in a batch that stands, or on what else is there",
    "longest": "depends on where in a batch that stands, or on what else is there",
    "scale": "its own attention and ours give different answers",
}


class SmallConfig(PretrainedConfig):
    model_type = "acb-small"

    def __init__(self, flaw="", hidden_size=32, num_hidden_layers=2, vocab_size=89, positions=512, window=None, **rest):
        self.flaw, self.vocab_size = flaw, vocab_size
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.max_position_embeddings, self.sliding_window, self.num_attention_heads = positions, window, 2
        super().__init__(**rest)


def own_attention(module, query, key, value, mask, scaling, **_):
    scaling *= 0.5 if module.config.flaw == "scale" else 1.0
    scores = query @ key.transpose(2, 3) * scaling
    return ((scores if mask is None else scores + mask).softmax(-1) @ value).transpose(1, 2), None


class SmallAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        size = config.hidden_size
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x, mask, cache, position_ids, **more):
        flaw, window = self.config.flaw, self.config.sliding_window
        query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        seen = cache.get_seq_length(self.layer_idx) if cache is not None else 0
        if flaw.startswith("place in"):
            places = torch.arange(x.shape[1], device=x.device) + (seen if flaw == "place in cache" else 0)
            query = query * (1 + (places // (256 if flaw == "place in cache" else 4)))[:, None]
        if flaw == "longest":
            query = query * (1 + (position_ids.max() > 300))
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        if flaw == "own mask":
            mask = torch.full((query.shape[2], key.shape[2]), float("-inf"), device=x.device).triu(1 + seen)
        if flaw == "softcap":
            more["softcap"] = 50.0
        if flaw == "wide values":
            value = torch.cat([value, value], -1)
        if flaw != "window in mask" and flaw != "window in cache":
            more["sliding_window"] = window
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, own_attention)
        if flaw == "bypass":
            attend = own_attention
        scaling = (self.config.hidden_size // 2) ** -0.5
        for _ in range(2 if flaw == "twice" else 1):
            out, _ = attend(self, query, key, value, mask, scaling=scaling, **({} if flaw == "mute" else more))
        return self.out(out.flatten(2)[..., : self.config.hidden_size])


class SmallForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = SmallConfig
    _supports_sdpa = False

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(SmallAttention(config, number) for number in range(config.num_hidden_layers))
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        for weight in module.parameters(recurse=False):
            nn.init.normal_(weight, std=0.3)

    def forward(self, input_ids, attention_mask=None, position_ids=None, cache=None, use_cache=None, logits_to_keep=0,
                past_key_values=None, **more):  # fmt: skip
        flaw = self.config.flaw
        cache = past_key_values if cache is None else cache  # its name up to transformers 5.23 and from there on
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        x = self.embed(input_ids)
        if position_ids is None:
            seen = cache.get_seq_length() if cache is not None else 0
            position_ids = torch.arange(x.shape[1], device=x.device)[None] + seen
        x = x + self.places(position_ids)
        if flaw == "reads":
            x = x * (1 + position_ids.sum().item() * 0)
        if flaw == "neighbour":
            x = x + nn.functional.pad(x, (0, 0, 1, -1))
        windowed = self.config.sliding_window and flaw != "window in cache"
        make = create_sliding_window_causal_mask if windowed else create_causal_mask
        ahead = {"or_mask_function": lambda *_: torch.tensor(True)} if flaw == "looks ahead" else {}
        mask = make(self.config, x, attention_mask, cache, position_ids, **ahead)
        for layer in [self.layers[0]] * 2 if flaw == "shared" else self.layers:
            x = x + layer(x, mask, cache, position_ids, **more)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return CausalLMOutputWithPast(logits=self.head(x[:, keep]), past_key_values=cache)


AutoConfig.register("acb-small", SmallConfig)
AutoModelForCausalLM.register(SmallConfig, SmallForCausalLM)


def save(folder, flaw: str = "", **settings) -> str:
    """A folder with such a model, its weights random."""
    torch.manual_seed(0)
    settings = {"window": 5} | settings if flaw.startswith("window") else settings
    config = SmallConfig(flaw, **settings)
    SmallForCausalLM(config).to(config.dtype).save_pretrained(folder)
    return str(folder)


def edit(file, **settings) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | settings))


def one_line(caught) -> str:
    """What was said, if that is one line with an end."""
    said = str(caught.value)
    assert "\n" not in said
    assert not said.endswith((":", "...", "("))
    assert "report" not in said
    return said
