"""Grammars followed on the GPU: a table of states there, and the state of each row handed on with its token.

Where a grammar is a small automaton, the host need not know where a request is in it. A state goes the way of a token:
computed with batch N, and carried over to batch N + 1 on the GPU. So no mask is made on the host, nobody waits for one,
and the loop of chapter 5 or 6 stays as it is. What it takes is memory: a row of the vocabulary for each state.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .device import Device
from .errors import InputError
from .grammar import Walk
from .model import Model
from .request import Batch, Request
from .slot import IOSlot, SlotSize

MOST_BYTES = 1 << 30  # of a table


class Tables:
    """The automata of all requests in one table; its first state is of requests without one, and allows everything.

    Attributes:
        moves: int32 [states, vocabulary]: the state that each token leads to; -1 for one that may not follow.
        begins: the first state of each automaton, by its id.
    """

    def __init__(self, requests: Sequence[Request], vocab_size: int):
        """
        Raises:
            InputError: a grammar is no automaton, or there is no room for so many states.
        """
        automata = {id(walk.automaton): walk.automaton for walk in map(_walk, requests) if walk}
        count = 1 + sum(len(each.states) for each in automata.values())
        if 4 * count * vocab_size > MOST_BYTES:
            raise InputError(
                f"a grammar table of {count:,} states and {vocab_size:,} tokens takes {4 * count * vocab_size >> 20:,} "
                f"MiB; it must be at most {MOST_BYTES >> 20:,}"
            )
        self.moves, self.begins = np.full((count, vocab_size), -1, dtype=np.int32), {}
        self.moves[0], state = 0, 1
        for name, automaton in automata.items():
            self.begins[name] = state
            for number, tokens in enumerate(automaton.states):
                self.moves[state + number, list(tokens)] = [state + target for target in tokens.values()]
            state += len(automaton.states)

    def state(self, request: Request) -> int:
        """The state that a request is in, by the tokens that the host has seen."""
        walk = _walk(request)
        return self.begins[id(walk.automaton)] + walk.state if walk else 0


def _walk(request: Request):
    """Where a request is in its automaton; None if it has no grammar."""
    if not isinstance(request.matcher, Walk | None):
        raise InputError("a grammar table takes grammars of few states, and a JSON schema is none")
    return request.matcher


class TableSlot(IOSlot):
    """An I/O slot with a state for each row that samples.

    Attributes:
        tables: of the model it belongs to.
        host_states: pinned, int32 [2, rows]: where the batch before has a row's state, or -1: where the host knows it;
            and that one.
        device_states: their twin.
        before: int32 [rows], on the device: the state that each row's token is sampled in.
        after: likewise, the state that it leads to.
    """

    tables: Tables

    def __init__(self, *args):
        super().__init__(*args)
        self.host_states, self.device_states = self.twins(2, self.size.rows)
        self.before = torch.zeros_like(self.device_states[0])
        self.after = torch.zeros_like(self.before)
        self.state_view = self.host_states.numpy()

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self.state_view[:, : len(self.written.outputs)] = [[-1], [0]]  # a row that pads is in the first state
        for index, row in enumerate(batch.sampled):
            request, start, length, source = batch.rows[row]
            known = start + length <= len(request.tokens)
            self.state_view[:, index] = -1 if known else source, self.tables.state(request)

    def upload(self, non_blocking: bool = False) -> None:
        super().upload(non_blocking)
        self.device.copy("h2d", self.device_states, self.host_states, non_blocking, self)


class TableModel(Model):
    """A model that follows grammars by a table on the device. It needs an engine that carries tokens over there.

    Attributes:
        moves: int32 [states, vocabulary], on the device.
    """

    slot_class = TableSlot

    def __init__(self, network, layers, cache, size: SlotSize, device: Device, tables: Tables):
        super().__init__(network, layers, cache, size, device)
        self.tables = tables
        self.moves = torch.from_numpy(tables.moves).to(self.where)

    def make_slot(self, name: str) -> TableSlot:
        slot = super().make_slot(name)
        slot.tables = self.tables
        return slot

    def carry_over(self, slot: TableSlot, previous: TableSlot) -> None:
        """As Model has it, and states with the tokens."""
        super().carry_over(slot, previous)
        rows = len(slot.written.outputs)
        source, known = slot.device_states[:, :rows]
        before, states = slot.before[:rows], previous.after

        @torch.inference_mode()
        def work() -> None:
            before.copy_(torch.where(source >= 0, states[source.clamp(min=0)], known))

        self.device.compute("carry_over", slot, work)

    def forward(self, slot: TableSlot) -> None:
        """As Model has it, of the tokens that may follow each row's state; and the state that each leads to."""
        written = slot.written
        inputs, outputs, longest = written.inputs, written.outputs, written.batch.max_query_len
        before, after = slot.before[: len(outputs)], slot.after[: len(outputs)]

        @torch.inference_mode()
        def work() -> None:
            moves = self.moves[before.clamp(min=0)]  # a row that is dead may have left its automaton
            outputs.copy_(self.compute_logits(inputs, longest).masked_fill(moves < 0, -torch.inf).argmax(-1))
            after.copy_(moves.gather(1, outputs[:, None].long())[:, 0])

        self.device.compute("forward", slot, work)
