"""Speculation: each decode takes k guesses along, and is as many tokens further as the model agrees with, and one.

Drafts are looked up: what came behind the same tokens the last time that the request had them ("prompt lookup
decoding", "n-gram" elsewhere). One forward pass says what the model itself would have said behind each of them, so
tokens are those of greedy decoding, whatever was guessed.

How far a request has got then, only the GPU knows, and there it stays, with its tokens so far. A batch takes positions,
lengths, KV slots and its newest tokens from there. The host writes them as if every draft had been right, which bounds
them, and takes off what was not when it learns of it.
"""

from dataclasses import replace

import numpy as np
import torch

from .errors import InputError
from .model import Model
from .request import Batch, Request
from .scheduler import Scheduler, device_rows
from .slot import IOSlot, SlotSize

NGRAM = 3  # tokens that are compared, at most


def reserve_for(drafts: int) -> int:
    """Positions behind its last that a request may touch, where N + 1 is launched before N is retired.

    It has a row in N + 1 only if the least that N can give leaves it a token to go. If N gives all `drafts` more, N + 1
    begins so much further, and computes `drafts` behind its newest token. Where N is retired first, `drafts` will do.
    """
    return 2 * drafts


class SpeculatingRequest(Request):
    """A request whose decodes take drafts along. Its `scheduled` counts all of them, until their batch is retired.

    Attributes:
        drafts: in each decode.
        reserve: positions that it may touch behind its last.
        in_flight: batches that have not come back, and give it a token at least.
        row: its row on the device while it runs.
    """

    __slots__ = ("drafts", "reserve", "in_flight", "row")

    def __init__(self, *args, drafts: int, reserve: int | None = None):
        super().__init__(*args)
        self.drafts, self.reserve = drafts, reserve_for(drafts) if reserve is None else reserve
        self.in_flight, self.row = 0, -1

    @property
    def max_positions(self) -> int:
        """As Request has it, and the reserve."""
        return super().max_positions + self.reserve

    @property
    def unscheduled(self) -> int:
        """As Request has it, but a decode is its newest token and the drafts. There is another unless those in flight
        are sure to be the last."""
        if self.scheduled < self.prefill_len:
            return self.prefill_len - self.scheduled
        goes_on = len(self.generated) + self.in_flight < self.max_new_tokens
        return 1 + self.drafts if goes_on else 0

    def check(self, vocab_size: int, max_positions: int) -> None:
        super().check(vocab_size, max(max_positions, self.max_positions))
        if self.max_positions > max_positions:
            raise InputError(
                f"request {self.id!r}: {self.prompt_len} prompt + {self.max_new_tokens} new tokens + {self.reserve} "
                f"positions for drafts are past the model's {max_positions} positions"
            )


class SpeculatingScheduler(Scheduler):
    """A scheduler of such requests.

    Attributes:
        drafts: in each decode.
        drafted: drafts in all decodes that have come back before their request was finished.
        accepted: of these, those that were right.
    """

    drafts = 1
    drafted = accepted = 0

    @property
    def width(self) -> int:
        """As Scheduler has it: the newest token, and the drafts."""
        return 1 + self.drafts

    def schedule(self) -> Batch | None:
        """As Scheduler has it."""
        batch = super().schedule()
        if batch:
            for request, row in device_rows(batch, self):
                request.row = row
            for index in batch.sampled:
                batch.rows[index].request.in_flight += 1
        return batch

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        """As Scheduler has it.

        Args:
            tokens: int32 [1 + drafts, len(batch.sampled)]: of each row the token that it gets, and those behind it by
                drafts that were right; -1 for others.
        """
        for index, count in zip(batch.sampled, (tokens >= 0).sum(0).tolist(), strict=True):
            row = batch.rows[index]
            row.request.in_flight -= 1
            if decodes(row) and row.request.finish_reason is None:
                row.request.scheduled -= row.length - count
                self.drafted += row.length - 1
                self.accepted += count - 1
        finished = []
        for column in tokens:
            given = np.flatnonzero(column >= 0)
            rows = [batch.rows[batch.sampled[place]] for place in given]
            finished += super().update(replace(batch, rows=rows), column[given])
        return finished


def decodes(row) -> bool:
    """Whether a row of a batch is a newest token and drafts, not a part of what is to prefill."""
    return row.start >= row.request.prefill_len


class SpeculatingSlot(IOSlot):
    """An I/O slot whose rows may have drafts, and bring back 1 + drafts tokens; -1 behind a draft that was wrong.

    Attributes:
        host_rows: pinned, int32 [2, rows]: each row's row on the device, and whether it is a decode.
        device_rows: their twin.
    """

    def __init__(self, size: SlotSize, *args):
        self.results = self.width = 1 + size.drafts
        super().__init__(size, *args)
        self.host_rows, self.device_rows = self.twins(2, size.rows)
        self.row_view = self.host_rows.numpy()

    def write(self, batch: Batch) -> None:
        """As IOSlot has it. Positions of decodes, and what follows from them, are what they are at most, and their
        token ids are 0: all of that the device knows."""
        super().write(batch)
        nobody = self.size.rows
        rows = [(getattr(row.request, "row", nobody), decodes(row)) for row in batch.rows]
        rows += [(nobody, False)] * batch.padding
        self.row_view[:, : len(rows)] = np.array(rows).T

    def _write_ids(self, batch: Batch) -> None:
        ids: list[int] = []
        for row in batch.rows:
            ids += [0] * row.length if decodes(row) else row.request.tokens[row.start : row.start + row.length]
        self.host_inputs.input_ids[: batch.num_tokens] = ids + [0] * (batch.num_tokens - len(ids))

    def upload(self, non_blocking: bool = False) -> None:
        super().upload(non_blocking)
        self.device.copy("h2d", self.device_rows, self.host_rows, non_blocking, self)


class SpeculatingModel(Model):
    """A model that drafts and verifies.

    What it knows of the requests that run is there once, and not once for each slot: a batch goes on from where the
    last has left it.

    Attributes:
        drafts: in each decode.
        history: tokens of the request that has the row, prompt and answer; int32 [rows + 1, positions], the last row
            for padding. What lies behind `lengths` is nothing.
        lengths: how many they are, int32 [rows + 1]. The newest has not been an input yet.
    """

    slot_class = SpeculatingSlot

    def __init__(self, *args):
        super().__init__(*args)
        self.drafts = self.size.drafts
        shape = self.size.rows + 1, self.size.pages * self.cache.page_size + 1 + self.drafts
        self.history = torch.zeros(shape, dtype=torch.int32, device=self.where)
        self.lengths = torch.zeros_like(self.history[:, 0])

    def carry_over(self, slot: SpeculatingSlot, previous: SpeculatingSlot) -> None:
        """Does nothing: `correct` takes the newest tokens from where `verify` has left them."""

    def forward(self, slot: SpeculatingSlot) -> None:
        """All three, one after the other, for an engine that knows nothing of drafts."""
        self.correct(slot)
        self.draft(slot)
        self.verify(slot)

    def correct(self, slot: SpeculatingSlot) -> None:
        """Writes over what the host could not know of decodes: positions, KV slots, lengths and newest tokens. What it
        did know, tokens to prefill, goes into the history."""
        inputs, history, lengths, page_size = slot.written.inputs, self.history, self.lengths, slot.page_size
        owner, decoding = slot.device_rows[:, : len(inputs.seq_lens)]

        @torch.inference_mode()
        def work() -> None:
            rows, most = history.shape
            row = inputs.row_of_token
            places = torch.arange(len(row), dtype=torch.int32, device=row.device) - inputs.query_starts[row]
            decode, length = decoding[row] > 0, lengths[owner]
            first = length - 1  # of a decode: the position of its newest token
            positions = torch.where(decode, first[row] + places, inputs.positions)
            page = inputs.page_table[row, positions // page_size]
            inputs.positions.copy_(positions)
            inputs.kv_slots.copy_(page * page_size + positions % page_size)
            inputs.seq_lens.copy_(torch.where(decoding > 0, length + self.drafts, inputs.seq_lens))
            newest = history[owner, first.clamp(min=0)]
            inputs.input_ids.copy_(torch.where(decode & (places == 0), newest[row], inputs.input_ids))
            to = torch.where(decode, rows - 1, owner[row]).long() * most + positions
            history.view(-1).index_copy_(0, to, inputs.input_ids)

        self.device.compute("correct", slot, work)

    def draft(self, slot: SpeculatingSlot) -> None:
        """Writes the drafts of decodes behind their newest tokens."""
        inputs, history, lengths = slot.written.inputs, self.history, self.lengths
        owner, decoding = slot.device_rows[:, : len(inputs.seq_lens)]

        @torch.inference_mode()
        def work() -> None:
            row = inputs.row_of_token
            places = torch.arange(len(row), dtype=torch.int32, device=row.device) - inputs.query_starts[row]
            drafts = lookup(history[owner], self.known(slot, lengths[owner]), self.drafts)
            mine = drafts[row, (places - 1).clamp(0, self.drafts - 1)]
            inputs.input_ids.copy_(torch.where((decoding[row] > 0) & (places > 0), mine, inputs.input_ids))

        self.device.compute("draft", slot, work)

    def known(self, slot: SpeculatingSlot, lengths: torch.Tensor) -> torch.Tensor:
        """How many tokens of each row drafts are made from: all."""
        return lengths

    def verify(self, slot: SpeculatingSlot) -> None:
        """Runs the slot's batch. Writes to `slot.written.outputs` what each sampled row has got, and to the history."""
        written, history, lengths = slot.written, self.history, self.lengths
        inputs, outputs, longest = written.inputs, written.outputs, written.batch.max_query_len
        owner, decoding = slot.device_rows[:, : len(inputs.seq_lens)]

        @torch.inference_mode()
        def work() -> None:
            count = torch.arange(1 + self.drafts, dtype=torch.int32, device=outputs.device)
            last = inputs.sampling_rows[:, None]
            asked = (last - self.drafts + count).clamp(min=0)  # its last tokens: of a decode, all
            logits = self.compute_logits(inputs._replace(sampling_rows=asked.flatten()), longest)
            likeliest = logits.argmax(-1).int().view(asked.shape)

            row = inputs.row_of_token[inputs.sampling_rows]
            mine, decode = owner[row], decoding[row] > 0
            length = torch.where(decode, lengths[mine], inputs.seq_lens[row])
            accepted = torch.where(decode, self.accept(inputs.input_ids[asked], likeliest, mine, length), 0)
            tokens = torch.where(decode[:, None], likeliest, likeliest[:, -1:])
            outputs.copy_(torch.where(count <= accepted[:, None], tokens, -1).T)
            history[mine[:, None], length[:, None] + count] = tokens
            lengths[mine] = length + accepted + 1

        self.device.compute("forward", slot, work)

    def accept(self, given, likeliest, owner, lengths) -> torch.Tensor:
        """How many drafts of each row are right, int32 [rows]: those before the first that the model would not have
        said.

        Args:
            given: the newest token and the drafts, int32 [rows, 1 + drafts].
            likeliest: what the model says behind each of them, likewise.
            owner: whose row of the history it is, int32 [rows].
            lengths: tokens that there were before, int32 [rows].
        """
        return (given[:, 1:] == likeliest[:, :-1]).int().cumprod(1).sum(1, dtype=torch.int32)


def lookup(tokens: torch.Tensor, lengths: torch.Tensor, count: int) -> torch.Tensor:
    """What each row might say next: what came behind the newest tokens where they were before. Of several such places
    it is the one where most of NGRAM tokens are the same, and then the last. Without any, it is the newest token again.

    Args:
        tokens: int32 [rows, positions].
        lengths: of the rows, int32 [rows]; what lies behind is not looked at.
        count: of drafts.

    Returns:
        int32 [rows, count].
    """
    positions, newest = tokens.shape[1], (lengths[:, None].long() - 1).clamp(min=0)
    places = torch.arange(positions, device=tokens.device)
    same, matched = torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens)
    for back in range(NGRAM):
        alike = tokens.roll(back, 1) == tokens.gather(1, (newest - back).clamp(min=0))
        same = same & alike & (places >= back)
        matched = matched + same
    rank = torch.where(places < newest, matched * positions + places, -1)
    found = rank.argmax(1, keepdim=True)
    period = (newest - found).clamp(min=1)  # behind the newest token it goes on as it did before
    places = found + 1 + torch.arange(count, device=tokens.device) % period
    return tokens.gather(1, torch.minimum(places, newest))
