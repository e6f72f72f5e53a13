"""From a model's name to its config, tokenizer and weights, with every check that needs no GPU made first.

A name is one of the bundled ones, a local folder, or a model on the Hugging Face hub. The bundled shapes have random
weights: how long a forward pass takes does not depend on what the weights are.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from .. import models
from ..errors import InputError
from ..model import ATTENTION
from ..models import counter
from ..sampling import Sampling
from . import generation, model_support, shards
from .generation import UnsupportedModel
from .model_support import in_one_line
from .ranks import Ranks

CONFIGS = Path(models.__file__).parent / "configs"
SHAPES = ("llama-3.1-8b", "llama-3.2-1b", "qwen3-8b", "qwen3-32b")


class Checkpoint:
    """A model that has been named but not yet loaded. InputError if there is none of that name, it would be served
    wrong, or the ranks cannot share it.

    Attributes:
        name: "counter", one of SHAPES, a folder, or a model on the Hugging Face hub.
        ranks: those that share it, which must have joined; None for a single process.
        random: whether it is one of the bundled shapes, with random weights.
        path: where transformers finds it: a folder, or a name on the hub.
        dtype: of weights, activations and KV cache.
        vocab_size: token ids are below it.
        max_positions: prompt and generated tokens of a request, at most.
        layers: its attention layers, in the order they run; this rank's part of each.
        weight_bytes: device bytes of its weights, or of this rank's part of them.
    """

    def __init__(self, name: str, ranks: Ranks | None = None):
        self.name, self.ranks = name, ranks
        self.random = name in SHAPES
        self.path = str(CONFIGS / name) if self.random else str(counter.PATH) if name == "counter" else name
        if name and (wrong := _no_model(Path(self.path))):
            raise self._wrong(wrong)
        try:
            self.config = AutoConfig.from_pretrained(self.path, trust_remote_code=False)
        except Exception as error:  # every kind of broken folder, unreachable hub or unknown architecture
            if "trust_remote_code" in str(error):
                raise self._wrong(in_one_line(error)) from error
            why = f"no config could be read from a folder or hub model of that name ({in_one_line(error)})"
            raise InputError(f"unknown model {name!r}: not one of counter, {', '.join(SHAPES)}, and {why}") from error
        self.dtype = self.config.dtype or torch.float32
        self.bundled = self.random or name == "counter"  # and known to be served right
        with self._served_right():
            if not self.bundled:
                for why in chain(model_support.flaws(self.config), generation.flaws(self._generation)):
                    raise UnsupportedModel(why)
            with torch.device("meta"):
                model = self._empty()
            self.layers = model_support.attention_layers(model)
            self.vocab_size, self.max_positions = map(self._size, ("vocab_size", "max_position_embeddings"))
        self.weight_bytes = sum(weight.nbytes for weight in model.parameters())
        if ranks:
            shards.check_plan(model, name, self.layers, ranks.count)
            self.layers = [layer._replace(kv_heads=layer.kv_heads // ranks.count) for layer in self.layers]
            self.weight_bytes = shards.share_of_bytes(model, ranks.count)
        self._loaded: dict[torch.device, PreTrainedModel] = {}

    @contextmanager
    def _served_right(self) -> Iterator[None]:
        """Around what finds out whether it is. Whatever transformers, or the model's code, raises is an InputError."""
        try:
            yield
        except Exception as error:
            kind = type(self.config).__name__.removesuffix("Config")
            raise self._wrong(f"{kind} cannot be served here: {in_one_line(error)}") from error

    def _size(self, name: str) -> int:
        """A number of its config."""
        size = getattr(self.config.get_text_config(), name, None)
        if type(size) is not int or size < 2:
            raise UnsupportedModel(f"its config has {name} = {size!r}; it must be at least 2")
        return size

    def _wrong(self, what: str) -> InputError:
        return InputError(f"model {self.name!r}: {what}")

    def _empty(self) -> PreTrainedModel:
        """The model with freshly initialised weights on torch's current default device."""
        config = copy.deepcopy(self.config)  # sharing a model out writes to it
        asked = {"dtype": self.dtype, "attn_implementation": ATTENTION, "trust_remote_code": False}
        return AutoModelForCausalLM.from_config(config, **asked)

    def is_loaded(self, device: torch.device) -> bool:
        """Whether its weights are on `device` already."""
        return device in self._loaded

    def load(self, device: torch.device) -> PreTrainedModel:
        """The model on a device, in eval mode, its attention replaced by ours. Loaded once, then kept. InputError if
        weights are missing or broken, before anything is on a GPU, because they are read on the CPU first; or if its
        own attention and ours give different answers."""
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
        transformers.utils.logging.disable_progress_bar()  # our own output is the progress to look at,
        transformers.utils.logging.set_verbosity_error()  # and our own words are what is wrong with weights
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                self.path, config=copy.deepcopy(self.config), dtype="auto", attn_implementation=ATTENTION,
                trust_remote_code=False, ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
        except Exception as error:
            raise self._wrong(f"its weights are missing or broken ({in_one_line(error)})") from error
        if missing := sorted(info["missing_keys"]):
            raise self._wrong(f"its weights lack {len(missing)} tensors, {missing[0]} first")
        for name, found, right in sorted(info["mismatched_keys"]):
            raise self._wrong(f"{name} of its weights is {list(found)}, and {list(right)} by its config")
        if model.config.dtype not in (None, self.dtype):
            raise self._wrong(f"its weights are {model.config.dtype}, and its config does not say so (dtype)")
        model = shards.share(model, device, count) if count > 1 else model.to(device).eval()
        model_support.no_padding(model)
        if not self.bundled:
            with self._served_right():
                model_support.check_network(model, self.layers, self.vocab_size, self.max_positions)
        return model

    @cached_property
    def _tokenizer(self) -> transformers.PreTrainedTokenizerBase | str:
        """The tokenizer, or the reason why there is none."""
        if self.random:
            return "has random weights and no tokenizer: give token ids or a workload"
        try:
            return AutoTokenizer.from_pretrained(self.path, trust_remote_code=False)
        except Exception as error:
            return f"has no tokenizer ({in_one_line(error)}): give token ids"

    @cached_property
    def _generation(self) -> GenerationConfig:
        """What transformers' `generate` goes by, found as it finds it."""
        try:
            return GenerationConfig.from_pretrained(self.path)
        except OSError:  # there is none, and self.config has dropped what config.json says of this
            return GenerationConfig.from_pretrained(self.path, config_file_name="config.json", _from_model_config=True)

    @cached_property
    def stop_tokens(self) -> Sequence[int]:
        """Token ids that transformers' `generate` stops at; none for random weights, which would stop at random."""
        if self.random:
            return ()
        eos = self._generation.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    @cached_property
    def sampling(self) -> Sampling:
        """How its tokens are chosen unless a run says otherwise: as transformers' `generate` would, but for the noise.
        InputError if its generation config asks for values that make no sense."""
        try:
            return Sampling() if self.random else generation.sampling(self._generation)
        except InputError as error:
            raise self._wrong(f"its generation config cannot be obeyed: {error}") from error

    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        """What its texts are made of; InputError if the model has none."""
        if isinstance(self._tokenizer, str):
            raise InputError(f"model {self.name!r} {self._tokenizer}")
        return self._tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt; none for an empty text, whatever begins a text. InputError if the model has no
        tokenizer, or does not know a word of it."""
        tokenizer = self.tokenizer()
        ids = tokenizer(text)["input_ids"]
        if ids == tokenizer("")["input_ids"]:  # no more than what begins every text
            return []
        if (unknown := tokenizer.unk_token_id) is not None and unknown in ids:
            words = [word for word in text.split() if unknown in tokenizer(word)["input_ids"]]
            known = f"; it knows {counter.WORDS}" if self.name == "counter" else ""
            raise InputError(f"prompt {text!r}: model {self.name!r} does not know {', '.join(map(repr, words))}{known}")
        return ids

    def decode(self, ids: Sequence[int]) -> str | None:
        """The text of generated token ids, special tokens left out; None for a model without a tokenizer."""
        return None if isinstance(self._tokenizer, str) else self._tokenizer.decode(ids, skip_special_tokens=True)


def _no_model(path: Path) -> str | None:
    """Why a path is none of a model, if it looks like something else; None for a name on the hub."""
    if path.is_file():
        return "it is a file; give the folder that has config.json and the weights"
    if (path / "adapter_config.json").exists():
        return "the folder holds an adapter (adapter_config.json): merge it into its model and save that"
    if path.is_dir() and not (path / "config.json").exists():
        return "the folder has no config.json" + (" (a .gguf file is not read)" if any(path.glob("*.gguf")) else "")
    return None
