"""The parts of an engine that sample as requests ask for: what lies on the GPU for that, and what is done with it.

What sampling has to know of a request is on the GPU: how often each token was in its prompt and its answer so far, a
row for every running request. A batch counts its own inputs before it samples. With carry-over every earlier token has
been an input by then, on the GPU; on the host, the newest has not arrived.
"""

from functools import cached_property

import numpy as np
import torch

from . import draw
from .device import Device
from .model import SplitModel
from .request import Batch
from .sampling import Asked, SamplingRequest
from .slot import Inputs, IOSlot, SlotSize

WIDTH = 9  # numbers of a row's settings before those of its biases, three for each


class SamplingSlot(IOSlot):
    """An I/O slot with settings for each row of its batch: in a pinned buffer of its own, with a twin on the device."""

    results = 2  # the token, and the bits of its log probability (float32)

    def __init__(self, *args):
        super().__init__(*args)
        self.host_settings, self.device_settings = self.twins(self.size.rows, WIDTH + 3 * self.size.biases)
        self.settings_view = self.host_settings.numpy()
        nobody = SamplingRequest("", [], 0)
        nobody.take(self.size.rows)  # the row behind those of requests
        self._nobody = nobody.settings
        self._settings = [np.zeros(0)] * self.size.rows  # those that each row of the buffer has
        self._changed = True

    def write(self, batch: Batch, **more) -> None:
        """As IOSlot has it. A request keeps its settings: they are written when it takes a row of the batch."""
        super().write(batch, **more)
        each = [getattr(row.request, "settings", self._nobody) for row in batch.rows] + [self._nobody] * batch.padding
        for index, settings in enumerate(each):
            if self._settings[index] is not settings:
                self.settings_view[index] = 0
                self.settings_view[index, : len(settings)] = settings
                self._settings[index] = settings
                self._changed = True

    def upload(self, non_blocking: bool = False) -> None:
        """As IOSlot has it; settings go along if any have changed."""
        super().upload(non_blocking)
        if self._changed:
            self.device.copy("h2d", self.device_settings, self.host_settings, non_blocking, self)
            self._changed = False


class SamplingModel(SplitModel):
    """A model that samples as requests ask for: it counts a batch's inputs, computes the scores, and draws.

    Attributes:
        asked: what any request asks for.
    """

    slot_class = SamplingSlot

    def __init__(self, network, layers, cache, size: SlotSize, device: Device, asked: Asked):
        super().__init__(network, layers, cache, size, device)
        self.asked = asked

    def new_state(self) -> torch.Tensor:
        """What sampling knows of the requests that run. One serves all slots: a batch goes on from the last.

        Returns:
            Counts, zeros: how often each token was in the prompt [0] and in the answer [1] of the request that has the
            row; int32 [2, rows + 1, vocabulary], the last row for padding. Without a vocabulary where nobody asks for
            penalties.
        """
        shape = 2, self.size.rows + 1, self.size.vocab if self.asked.penalties else 0
        return torch.zeros(shape, dtype=torch.int32, device=self.where)

    @cached_property
    def state(self) -> torch.Tensor:
        """That of `forward`."""
        return self.new_state()

    def forward(self, slot: SamplingSlot) -> None:
        """All three, one after the other, for an engine that keeps no state of its own."""
        self.count(slot, self.state)
        self.logits(slot)
        self.sample(slot, self.state)

    def count(self, slot: SamplingSlot, counts: torch.Tensor) -> None:
        """Counts the inputs of the slot's batch, each in its request's row. A row is cleared where a request begins."""
        if not self.asked.penalties:
            return
        inputs = slot.written.inputs
        settings = slot.device_settings[: len(inputs.seq_lens)]

        @torch.inference_mode()
        def work() -> None:
            _, rows, vocab_size = counts.shape
            owner, prompt_len = settings[:, 0].long(), settings[:, 1]
            counts.index_fill_(1, torch.where(self.begins(inputs), owner, rows - 1), 0)
            row = inputs.row_of_token
            answer = inputs.positions >= prompt_len[row]
            places = (answer * rows + owner[row]) * vocab_size + inputs.input_ids
            counts.view(-1).scatter_add_(0, places, torch.ones_like(places, dtype=counts.dtype))

        self.device.compute("count", slot, work)

    def begins(self, inputs: Inputs) -> torch.Tensor:
        """Which rows of a batch are the first of their requests: bool [rows]."""
        return inputs.positions[inputs.query_starts[:-1]] == 0

    def sample(self, slot: SamplingSlot, counts: torch.Tensor | None = None) -> None:
        """Draws each sampled row's next token from its scores, to `slot.written.outputs`. An engine that keeps no state
        need not count either."""
        if counts is None:
            counts = self.state
            self.count(slot, counts)
        inputs, scores, allowed = slot.written.inputs, self.scores_of(slot), self.allowed(slot)
        outputs, logprobs = slot.written.outputs
        settings = slot.device_settings[: len(inputs.seq_lens)]

        @torch.inference_mode()
        def work() -> None:
            row = torch.searchsorted(inputs.query_starts[1:], inputs.sampling_rows, right=True)
            positions = inputs.seq_lens[row]  # of the tokens to be drawn
            tokens, likely = self.choose(allowed(scores), settings[row], counts, positions)
            outputs.copy_(tokens)
            if likely is not None:
                logprobs.view(torch.float32).copy_(likely)

        self.device.compute("sample", slot, work)

    def choose(self, scores, settings, counts, positions) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As the function of that name has it."""
        return choose(scores, settings, counts, positions, self.asked)


def choose(
    scores: torch.Tensor, settings: torch.Tensor, counts: torch.Tensor, positions: torch.Tensor, asked: Asked
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The token that each row draws, and its log probability before anything was done to the scores.

    Args:
        scores: [rows, vocabulary].
        settings: as a slot has them, int32 [rows, any].
        counts: as `new_state` has them.
        positions: of the tokens to be drawn, int32 [rows].
        asked: what of it is looked at.

    Returns:
        int64 [rows], and [rows] or None if nobody asks.
    """
    owner, parts = settings[:, 0].long(), settings.view(torch.float32)
    mine = draw.Settings(settings[:, 2], parts[:, 4], settings[:, 3], *parts[:, 5:WIDTH].unbind(1))
    changed = scores
    if asked.biases:
        ids, values, until = settings[:, WIDTH::3].long(), parts[:, WIDTH + 1 :: 3], settings[:, WIDTH + 2 :: 3]
        added = torch.where(positions[:, None] < until, values, 0)
        changed = changed.scatter_add(1, ids, added.to(changed.dtype))
    if asked.penalties:
        changed = draw.penalised(changed, *counts[:, owner], mine)
    if asked.noise:
        changed = draw.warmed(changed, mine)
        if asked.cuts:
            changed = draw.cut(changed, mine)
        tokens = draw.drawn(changed, mine, positions)
    else:
        tokens = changed.argmax(-1)
    if not asked.logprobs:
        return tokens, None
    return tokens, scores.gather(1, tokens[:, None])[:, 0] - scores.logsumexp(-1)
