"""From a model's name to its config, tokenizer and weights, with every check that needs no GPU made first.

A name is one of the bundled ones, a local folder, or a model on the Hugging Face hub. The bundled shapes have random
weights: how long a forward pass takes does not depend on what the weights are.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .. import models
from ..errors import InputError
from ..kv_cache import AttentionLayer
from ..model import ATTENTION
from ..models import counter
from . import model_support, shards
from .ranks import Ranks

CONFIGS = Path(models.__file__).parent / "configs"
SHAPES = ("llama-3.1-8b", "llama-3.2-1b", "qwen3-8b", "qwen3-32b")


class Checkpoint:
    """A model that has been named but not yet loaded.

    Attributes:
        name: as it was given.
        random: whether it is one of the bundled shapes, with random weights.
        bundled: whether it comes with the package, and is known to be served right.
        path: where transformers finds it: a folder, or a name on the hub.
        config: its transformers config.
        dtype: of weights, activations and KV cache.
        vocab_size: token ids are below it.
        max_positions: prompt and generated tokens of a request, at most.
        layers: its attention layers, in the order they run; this rank's part of each.
        weight_bytes: device bytes of its weights, or of this rank's part of them.
        ranks: those that share it; None for a single process.
    """

    def __init__(self, name: str, ranks: Ranks | None = None):
        """
        Args:
            name: "counter", one of SHAPES, a folder, or a model on the Hugging Face hub.
            ranks: those that share it; they must have joined.

        Raises:
            InputError: there is no such model, it would be served wrong, or the ranks cannot share it.
        """
        self.ranks = ranks
        self.name = name
        self.random = name in SHAPES
        self.path = str(CONFIGS / name) if self.random else str(counter.PATH) if name == "counter" else name
        try:
            self.config = AutoConfig.from_pretrained(self.path)
        except Exception as error:  # every kind of broken folder, unreachable hub or unknown architecture
            raise InputError(
                f"unknown model {name!r}: not one of counter, {', '.join(SHAPES)}, and no config could be read from a "
                f"folder or hub model of that name ({model_support.first_line(error)})"
            ) from error
        self.dtype = self.config.dtype or torch.float32
        self.bundled = self.random or name == "counter"
        self.layers, self.weight_bytes = self._probe()
        self._loaded: dict[torch.device, PreTrainedModel] = {}
        text_config = self.config.get_text_config()
        self.vocab_size: int = text_config.vocab_size
        self.max_positions: int = text_config.max_position_embeddings

    def _probe(self) -> tuple[list[AttentionLayer], int]:
        """Its attention layers and the bytes of its weights, from the model without data (on the meta device)."""
        try:
            if not self.bundled:
                model_support.check_config(self.config)
                model_support.check_generation(self._generation)
            with torch.device("meta"):
                model = self._empty()
            layers = model_support.attention_layers(model)
        except Exception as error:  # whatever transformers, or the model's own code, raises
            raise self._unsupported(error) from error
        if self.ranks:
            count = self.ranks.count
            shards.check_plan(model, self.name, layers, count)
            layers = [layer._replace(kv_heads=layer.kv_heads // count) for layer in layers]
            return layers, shards.share_of_bytes(model, count)
        return layers, sum(p.numel() * p.dtype.itemsize for p in model.parameters())

    def _unsupported(self, error: Exception) -> InputError:
        kind = type(self.config).__name__.removesuffix("Config")
        return InputError(f"model {self.name!r}: {kind} cannot be served here: {model_support.reason(error)}")

    def _empty(self) -> PreTrainedModel:
        """The model with freshly initialised weights on torch's current default device."""
        config = copy.deepcopy(self.config)  # sharing a model out writes to it
        return AutoModelForCausalLM.from_config(config, dtype=self.dtype, attn_implementation=ATTENTION)

    def is_loaded(self, device: torch.device) -> bool:
        """Whether its weights are on `device` already."""
        return device in self._loaded

    def load(self, device: torch.device) -> PreTrainedModel:
        """The model on a device, in eval mode, its attention replaced by ours. Loaded once, then kept.

        Raises:
            InputError: weights are missing or broken, before anything is on a GPU, because they are read on the CPU
                first; or its own attention and ours give different answers.
        """
        if device not in self._loaded:
            self._loaded[device] = self._load(device)
        return self._loaded[device]

    def _load(self, device: torch.device) -> PreTrainedModel:
        count = self.ranks.count if self.ranks else 1
        if self.random:
            torch.manual_seed(0)
            with torch.device(device if count == 1 else "meta"):
                model = self._empty()
            return shards.share(model, device, count) if count > 1 else model.eval()
        transformers.utils.logging.disable_progress_bar()  # our own output is the progress to look at
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                self.path, dtype=self.dtype, attn_implementation=ATTENTION, output_loading_info=True
            )
        except Exception as error:
            raise InputError(
                f"model {self.name!r}: its weights are missing or broken ({model_support.first_line(error)})"
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise InputError(f"model {self.name!r}: its weights lack {len(missing)} tensors, {missing[0]} first")
        model = shards.share(model, device, count) if count > 1 else model.to(device).eval()
        model_support.no_padding(model)
        if not self.bundled:
            try:
                model_support.check_answers(model, self.layers, self.config)
            except Exception as error:
                raise self._unsupported(error) from error
        return model

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase | str:
        """The tokenizer, or the reason why there is none."""
        if self.random:
            return "has random weights and no tokenizer: give token ids or a workload"
        try:
            return AutoTokenizer.from_pretrained(self.path)
        except Exception as error:
            return f"has no tokenizer ({model_support.first_line(error)})"

    @cached_property
    def _generation(self) -> GenerationConfig:
        """What transformers' `generate` goes by."""
        try:
            return GenerationConfig.from_pretrained(self.path)
        except OSError:  # a model without generation_config.json
            return GenerationConfig.from_model_config(self.config)

    @cached_property
    def stop_tokens(self) -> Sequence[int]:
        """Token ids that end a text, those that transformers' `generate` stops at; none for random weights, which would
        stop at random."""
        if self.random:
            return ()
        eos = self._generation.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt.

        Raises:
            InputError: the model has no tokenizer, or does not know a word of it.
        """
        tokenizer = self._tokenizer
        if isinstance(tokenizer, str):
            raise InputError(f"model {self.name!r} {tokenizer}")
        ids = tokenizer(text)["input_ids"]
        if (unknown := tokenizer.unk_token_id) is not None and unknown in ids:
            words = [word for word in text.split() if unknown in tokenizer(word)["input_ids"]]
            known = f"; it knows {counter.WORDS}" if self.name == "counter" else ""
            raise InputError(f"prompt {text!r}: model {self.name!r} does not know {', '.join(map(repr, words))}{known}")
        return ids

    def decode(self, ids: Sequence[int]) -> str | None:
        """The text of generated token ids, special tokens left out; None for a model without a tokenizer."""
        return None if isinstance(self._tokenizer, str) else self._tokenizer.decode(ids, skip_special_tokens=True)
