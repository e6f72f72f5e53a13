"""Happens-before checking on the simulated GPU: finds accesses to the same memory that nothing orders.

Two accesses, one of them a write, are a hazard if neither is sure to be over before the other begins, whether or not
they got in each other's way this time. What is sure follows from what the host did: a stream runs what it is given in
order, a wait_event holds a stream back, a synchronize holds the host back. Each action carries the list of what is
over before it begins, one entry for each stream and one for the host (a vector clock). So one run finds every hazard
of what the host did in it, however kind the schedule was.

What device work reads and writes is taken from the work itself (memory.py), and what the host does from the arrays
that it does it with (sim/memory.py).
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from types import CodeType

import numpy as np
import torch

from ..sim.cuda import Stream
from ..sim.simulator import Observer, Operation, Queue
from . import lines
from .lines import Line
from .memory import AccessMode, Memories, Memory

HOST = 0
NOUNS = {"forward": "forward pass", "carry_over": "carry-over", "replay": "graph replay"}


@dataclass(slots=True)
class Action:
    """Something that the host or the device does.

    Attributes:
        number: its place among all actions, from 1, by when the host did or issued it.
        actor: HOST, or a number for the stream it is in.
        what: "upload", "forward", "write"...; also "record" and "wait", which touch no memory.
        batch_number: its batch's number; None if it has none.
        slot: its slot's letter; None if it has none.
        line: the engine's line that did it; None if that was not asked for.
        past: for every actor, the number of its last action that is over before this one begins; its own for its own.
    """

    number: int
    actor: int
    what: str
    batch_number: int | None
    slot: str | None
    line: Line | None
    past: list[int]

    def __str__(self) -> str:
        numbered = self.batch_number is not None and self.batch_number >= 0
        if self.actor == HOST:
            return f"the host ({self.what}, batch {self.batch_number})" if numbered else f"the host ({self.what})"
        noun = NOUNS.get(self.what, self.what)
        return f"the {noun} of batch {self.batch_number}" if numbered else f"the {noun}"


@dataclass(frozen=True)
class Hazard:
    """Two accesses that nothing orders.

    Attributes:
        first: what was done or issued before `second`.
        second: the other.
        first_writes: whether it writes; else it reads.
        second_writes: likewise.
        memory: what both touch.
        edge: the names of the two actors: who should wait, and for whom.
    """

    first: Action
    second: Action
    first_writes: bool
    second_writes: bool
    memory: str
    edge: tuple[str, str]

    def __str__(self) -> str:
        does, did = ("writes" if writes else "reads" for writes in (self.second_writes, self.first_writes))
        them, (waits, awaited) = "them too" if does == did else "them", self.edge
        accesses = f"{self.second} {does} {self.memory}; {self.first} {did} {them}"
        return f"{accesses}; nothing makes {waits} wait for {awaited}"


@dataclass(frozen=True)
class Wait:
    """That the host made somebody wait for an event.

    Attributes:
        after: the number of the last action before.
        actor: who is to wait.
        event: for which.
        found: the record that the event had; None if it had none.
        line: the engine's line.
    """

    after: int
    actor: int
    event: object
    found: Action | None
    line: Line | None


@dataclass
class RaceDetector(Observer):
    """Looks on while an engine runs on a simulated device, and collects hazards.

    Attributes:
        file: the engine's source file; a line of it is told without its name.
        below: the code that runs the engine; actions then know the engine's lines.
        names: what to call the streams.
        events: what happened, in order: what kind ("issued", "done", "asked" for by the host, "seen" by the host to be
            done) and the action; the host's own actions are "done" at once.
        memories: what is watched.
    """

    file: str | None = None
    below: CodeType | None = None
    names: dict[Stream, str] = field(default_factory=dict)

    def __post_init__(self):
        self.events: list[tuple[str, Action]] = []
        self._hazards: dict[tuple, Hazard] = {}
        self._actions: list[Action | None] = [None]  # by number, from 1
        self._issued: dict[Operation, Action] = {}
        self._actors: dict[Queue | None, int] = {None: HOST}
        self._pasts: list[list[int]] = [[0]]  # by actor: what is over before its next action begins
        self.memories = Memories()
        self._pools: dict[int, tuple[object, Memory]] = {}  # by id; the pool is kept, so that its id is not reused
        self._running: Action | None = None
        self._host_action: Action | None = None  # what the host is doing, as far as it has touched anything
        self._waits: list[Wait] = []
        self._records: dict[object, list[Action]] = {}  # by event
        self._torch = AccessMode(self.touch, self.touch_positions)

    @property
    def hazards(self) -> list[Hazard]:
        """What was found, one for each pair of lines and memory, by when the host had issued both."""
        return sorted(self._hazards.values(), key=lambda hazard: (hazard.second.number, hazard.first.number))

    def name_streams(self, engine: object, default: object) -> None:
        """Calls every stream by the engine's attribute that holds it."""
        self.names[default] = "the default stream"
        slots = (name for cls in type(engine).__mro__ for name in _names(vars(cls).get("__slots__", ())))
        for name in [*getattr(engine, "__dict__", ()), *slots]:
            value = getattr(engine, name, None)
            if isinstance(value, Stream):
                self.names[value] = name

    @property
    def actions(self) -> list[Action]:
        """All of the host and the streams, by number."""
        return self._actions[1:]

    def too_early(self, hazard: Hazard) -> Wait | None:
        """The last wait that would have made the hazard none, had it not come before what it was for was recorded."""
        for wait in reversed(self._waits):
            records = self._records.get(wait.event, ())
            theirs = [record.number for record in records if record.actor == hazard.first.actor]
            older = wait.found is None or wait.found.number < hazard.first.number
            recorded_later = any(number > max(wait.after, hazard.first.number) for number in theirs)
            if wait.actor == hazard.second.actor and wait.after < hazard.second.number and older and recorded_later:
                return wait
        return None

    # --- what an Observer is told ---

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None) -> None:
        self.memories.watch(name, memory, page_size)

    def queued(self, operation: Operation) -> None:
        self._host_action = None
        before = self._issued[operation.after].past if operation.after else []
        past = _joined(self._pasts[HOST], before)
        action = self._act(operation.queue, operation.what, operation.batch_number, operation.slot, past)
        self._issued[operation] = action
        self.events.append(("issued", action))

    def run(self, operation: Operation) -> None:
        self._running = self._issued[operation]
        with self._torch:
            operation.run()
        self.events.append(("done", self._running))

    def replayed(self, pool: object) -> None:
        # The memory itself is torch's business. One piece stands for it, and who replays writes it.
        _, memory = self._pools.setdefault(id(pool), (pool, Memory("the results in between in the graphs' pool")))
        self._access(self._running, memory, slice(None), True)

    def asked(self, operation: Operation) -> None:
        self._host_action = None
        self.events.append(("asked", self._issued[operation]))

    def saw(self, operation: Operation) -> None:
        self._host_action = None
        action = self._issued[operation]
        self._pasts[HOST] = _joined(self._pasts[HOST], action.past)
        self.events.append(("seen", action))

    def recorded(self, event: object, record: Operation) -> None:
        self._records.setdefault(event, []).append(self._issued[record])

    def waits(self, queue: Queue | None, event: object, record: Operation | None) -> None:
        actor = self._actors.setdefault(queue, len(self._actors))
        found = self._issued[record] if record else None
        self._waits.append(Wait(len(self._actions) - 1, actor, event, found, self._line()))

    def touched(self, memory: np.ndarray, writes: bool) -> None:
        if self._host_action is None:
            self._host_action = self._act(None, "its own code", None, None)
            self.events.append(("done", self._host_action))
        address = memory.__array_interface__["data"][0]  # through torch it would take far longer
        if (watched := self.memories.at(address)) is not None and memory.size:
            pieces = watched.pieces_of(address, memory.shape, memory.strides, memory.itemsize)
            self._access(self._host_action, watched, pieces, writes)

    def did(self, what: str, batch_number: int | None, slot: str | None) -> None:
        if self._host_action is None:
            self._host_action = self._act(None, what, batch_number, slot)
            self.events.append(("done", self._host_action))
        # Named only now, when the host says what it was for.
        action, self._host_action = self._host_action, None
        action.what, action.batch_number, action.slot = what, batch_number, slot

    # --- accesses ---

    def touch(self, tensor: torch.Tensor, writes: bool) -> None:
        """The action that runs reads or writes the tensor; of no matter if it is not watched."""
        if (memory := self.memories.at(tensor.data_ptr())) is not None and tensor.numel():
            itemsize = tensor.itemsize
            strides = [itemsize * stride for stride in tensor.stride()]
            pieces = memory.pieces_of(tensor.data_ptr(), tensor.shape, strides, itemsize)
            self._access(self._running, memory, pieces, writes)

    def touch_positions(self, cache: torch.Tensor, positions: np.ndarray, writes: bool) -> None:
        """The action that runs reads or writes these positions of a KV cache, int [any]: page * page_size + offset."""
        if (memory := self.memories.at(cache.data_ptr())) is not None:
            self._access(self._running, memory, positions, writes)

    def _act(
        self, queue: Queue | None, what: str, batch_number: int | None, slot: str | None, before: list[int] = ()
    ) -> Action:
        """The next action of a stream (None: the host), which comes after `before` too."""
        actor = self._actors.setdefault(queue, len(self._actors))
        if actor == len(self._pasts):
            self._pasts.append([])
        past = _joined(self._pasts[actor], before)
        past += [0] * (actor + 1 - len(past))
        number = past[actor] = len(self._actions)
        action = Action(number, actor, what, batch_number, slot, self._line(), past)
        self._actions.append(action)
        self._pasts[actor] = past
        return action

    def _access(self, action: Action, memory: Memory, pieces: slice | np.ndarray, writes: bool) -> None:
        found = memory.access(action.actor, action.past, pieces, writes)
        if found is None:
            return
        number, wrote, piece = found
        first, second = sorted(((self._actions[number], wrote), (action, writes)), key=lambda side: side[0].number)
        kind = first[0].what, first[0].line, second[0].what, second[0].line, memory.name, first[1], second[1]
        if kind not in self._hazards or second[0].number < self._hazards[kind].second.number:
            page = f", page {piece // memory.block}" if memory.block > 1 else ""
            edge = self.name(second[0].actor), self.name(first[0].actor)
            self._hazards[kind] = Hazard(first[0], second[0], first[1], second[1], memory.name + page, edge)

    def name(self, actor: int) -> str:
        """What to call the host or a stream."""
        queue = list(self._actors)[actor]
        return "the host" if queue is None else self.names.get(queue.stream, f"stream {actor}")

    def _line(self) -> Line | None:
        """The engine's line that the host is in."""
        return self.below and lines.of_engine(sys._getframe(2), self.below)


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _joined(a: list[int], b: list[int]) -> list[int]:
    return [max(x, y) for x, y in zip_longest(a, b, fillvalue=0)]
