"""A transformers causal LM, its code untouched, run over the batch in an I/O slot.

transformers calls a registered function wherever a model computes attention. Ours writes the new keys and values to
the paged cache and attends over it; all else in the forward pass is the model's own code. A batch is one sequence of
all its rows' tokens to that code, which only the attention tells apart.

No mask function is registered with it, on purpose: with one, transformers would look at the position ids for packed
sequences in every forward pass, and that look makes the host wait for the GPU.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import AttentionInterface, PreTrainedModel

from . import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)
from .device import Device
from .errors import InputError
from .kv_cache import AttentionLayer, KVCache
from .slot import Inputs, IOSlot, SlotSize

ATTENTION = "acb_paged"


def _paged_attention(module, query, key, value, attention_mask, *, scaling, sliding_window=None, batch, **options):
    """What transformers calls in every layer: query is [1, heads, tokens, head_dim]; returns [1, tokens, ...]."""
    out = torch.ops.acb.paged_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        module.key_cache,
        module.value_cache,
        *batch,
        scaling,
        sliding_window or 0,
    )
    return out[None], None


AttentionInterface.register(ATTENTION, _paged_attention)


def decode_sizes(largest: int) -> list[int]:
    """Batch sizes up to `largest` worth a CUDA graph each; a batch of decodes is padded to the next of them.

    Largest first, because graphs that share a memory pool reuse what the first of them has allocated.
    """
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, largest, 32)]
    return [largest, *(rows for rows in reversed(steps) if rows < largest)]


class Model:
    """A network with its KV cache, ready to run batches of up to `size`.

    Attributes:
        decode_sizes: the batch sizes worth a CUDA graph each, largest first.
        where: its tensors live: on the device, or nowhere ("meta") on a simulator that only keeps time.
        slot_class: of its slots.
    """

    slot_class = IOSlot

    def __init__(
        self,
        network: PreTrainedModel | None,
        layers: Sequence[AttentionLayer],
        cache: KVCache,
        size: SlotSize,
        device: Device,
    ):
        """
        Args:
            network: a causal LM whose attention implementation is ATTENTION; None on a simulator that only keeps time.
            layers: its attention layers, in the order of `cache`.
            device: where it runs.

        Raises:
            InputError: the network runs with another KV cache already.
        """
        self.network, self.cache, self.size, self.device = network, cache, size, device
        self.where = device.torch_device if network is not None else torch.device("meta")
        self.decode_sizes = decode_sizes(size.rows)
        self._attached = []
        self._slots = 0
        if network is None:
            return
        # As attributes of the module the caches cost no lookup per call and torch.compile makes one graph for all
        # layers; found through module.layer_idx they would mean one graph per layer.
        for layer, key_cache, value_cache in zip(layers, cache.keys, cache.values, strict=True):
            module = network.get_submodule(layer.name)
            if hasattr(module, "key_cache"):
                raise InputError("the model is serving another session: run that to its end first, or load it again")
            module.key_cache, module.value_cache = key_cache, value_cache
            self._attached.append(module)

    def close(self) -> None:
        """Lets go of the KV cache, so that the network can be given another."""
        for module in self._attached:
            del module.key_cache, module.value_cache
        self._attached.clear()

    def new_slot(self) -> IOSlot:
        """An I/O slot for the largest batch this model runs."""
        self._slots += 1
        return self.make_slot("ABCDEFGH"[(self._slots - 1) % 8])

    def make_slot(self, name: str) -> IOSlot:
        """A slot of that name."""
        return self.slot_class(self.size, self.cache.page_size, self.cache.scratch_page, self.device, name)

    def forward(self, slot: IOSlot) -> None:
        """Runs the slot's batch and writes each sampled row's most likely next token to `slot.written.outputs`.

        Raises:
            RuntimeError: nothing was ever written to the slot.
        """
        written = slot.written
        # Taken now: when the work runs, the host may have written the next batch to the slot.
        inputs, outputs, longest = written.inputs, written.outputs, written.batch.max_query_len

        @torch.inference_mode()
        def work() -> None:
            outputs.copy_(self.compute_logits(inputs, longest).argmax(-1))

        self.device.compute("forward", slot, work)

    def compute_logits(self, inputs: Inputs, longest: int) -> torch.Tensor:
        """Runs a batch at once, whatever stream or graph that is in.

        Args:
            inputs: of the batch, on the device, trimmed to it.
            longest: tokens of its longest row.

        Returns:
            [sampled rows, vocabulary], in the network's dtype.
        """
        return self.network(
            input_ids=inputs.input_ids[None],
            position_ids=inputs.positions[None],
            use_cache=False,
            logits_to_keep=inputs.sampling_rows,
            batch=(inputs.kv_slots, inputs.page_table, inputs.seq_lens, inputs.query_starts, longest),
        ).logits[0]

    def carry_over(self, slot: IOSlot, previous: IOSlot) -> None:
        """Copies the tokens that the batch in `previous` has sampled to where `slot`'s batch starts from them."""
        ids, source = slot.written.inputs.input_ids, slot.written.inputs.carry_over
        tokens = previous.device_tokens.view(-1)  # where there is more than tokens, these come first

        @torch.inference_mode()
        def work() -> None:
            ids.copy_(torch.where(source >= 0, tokens[source.clamp(min=0)], ids))

        self.device.compute("carry_over", slot, work)


class SplitModel(Model):
    """A model whose forward pass comes in two, for whoever has something to do in between: as far as the scores, and
    what samples from them.

    Attributes:
        scores: of each sampled row's next token, as `logits` leaves them to `sample`: [rows, vocabulary].
    """

    def __init__(self, *args):
        super().__init__(*args)
        dtype = torch.promote_types(self.cache.keys[0].dtype, torch.float32)
        self.scores = torch.zeros(self.size.rows, self.size.vocab, dtype=dtype, device=self.where)

    def scores_of(self, slot: IOSlot) -> torch.Tensor:
        """Those of the batch that the slot holds."""
        return self.scores[: slot.written.outputs.shape[-1]]

    def forward(self, slot: IOSlot) -> None:
        """Both, one after the other, for an engine that has nothing to do in between."""
        self.logits(slot)
        self.sample(slot)

    def logits(self, slot: IOSlot) -> None:
        """Runs the slot's batch as far as the scores of each sampled row's next token."""
        inputs, longest, scores = slot.written.inputs, slot.written.batch.max_query_len, self.scores_of(slot)

        @torch.inference_mode()
        def work() -> None:
            scores.copy_(self.compute_logits(inputs, longest))

        self.device.compute("logits", slot, work)

    def allowed(self, slot: IOSlot) -> Callable[[torch.Tensor], torch.Tensor]:
        """What makes of the scores of the slot's rows those that may be sampled; the others are -inf. Here all may."""
        return lambda scores: scores
