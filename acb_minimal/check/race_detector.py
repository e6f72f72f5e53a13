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
import threading
from collections import deque
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import torch

from ..sim.cuda import Stream
from ..sim.operations import Limit, Observer, Operation, Queue
from . import lines
from .actions import HOST, Action, EventWait, Hazard
from .lines import Line
from .memory import AccessMode, Memories, Memory, Pieces

OWN, SET_UP = "its own code", "set-up"  # what the host does that is no part's, and what is told of by none
NOT_ITS_OWN = ("builtins", "collections", "numpy", "torch", __name__.partition(".")[0])  # packages of others' classes


class RaceDetector(Observer):
    """Looks on while an engine runs on a simulated device, and collects hazards."""

    def __init__(self, below: CodeType | None = None):
        self.below = below  # the code that runs the engine; actions then know the engine's lines
        self.file: str | None = None  # the engine's; a line of it is told without its name
        self.names: dict[Stream, str] = {}
        self.actions: list[Action | None] = [None]  # all of the host and the streams, by number, from 1
        # What happened, in order: what kind ("issued", "done", "asked" for by the host, "seen" by the host to be done)
        # and the action; the host's own actions are "done" at once.
        self.events: list[tuple[str, Action]] = []
        self.memories = Memories()  # what is watched
        self.running: Action | None = None  # the device work that is running, or was the last
        self._hazards: dict[tuple, Hazard] = {}
        self._issued: dict[Operation, Action] = {}
        self._actors: dict[Queue | None, int] = {None: HOST}
        self._pasts: list[list[int]] = [[0]]  # by actor: what is over before its next action begins
        self._pools: dict[int, tuple[object, Memory]] = {}  # by id; the pool is kept, so that its id is not reused
        self._host_action: Action | None = None  # what the host is doing, as far as it has touched anything
        self._waits: list[tuple[object, EventWait]] = []  # each behind its event
        self._records: dict[object, list[Action]] = {}  # by event
        self._thread = threading.get_ident()
        self._torch = AccessMode(self.touch, self.touch_positions)

    @property
    def hazards(self) -> list[Hazard]:
        """What was found, one for each pair of lines and memory, by when the host had issued both."""
        return sorted(self._hazards.values(), key=lambda hazard: (hazard.second.number, hazard.first.number))

    def too_early(self, hazard: Hazard) -> EventWait | None:
        """The last wait that would have made the hazard none, had it not come before what it was for was recorded."""
        first, second = hazard.first, hazard.second
        # Had the actor done the same since the last time, the wait would have been for that.
        alike = second.actor, second.what
        before = [each.number for each in self.actions[1 : second.number] if (each.actor, each.what) == alike]
        for event, wait in reversed(self._waits):
            theirs = [each.number for each in self._records.get(event, ()) if each.actor == first.actor]
            older = wait.found is None or wait.found.number < first.number
            recorded_later = any(number > max(wait.after, first.number) for number in theirs)
            its_own = max(before, default=0) <= wait.after < second.number
            if wait.actor == second.actor and its_own and older and recorded_later:
                return wait
        return None

    # --- names ---

    def name_streams(self, engine: object, default: object) -> None:
        """Calls every stream by the engine's attribute that holds it, or that leads to it."""
        self.names[default] = "the default stream"
        self._name(engine, "self")

    def _name(self, value: object, name: str, depth: int = 3) -> None:
        """Calls a stream so, unless it has a name, and what lies in something after that."""
        inside: list[tuple[str, object]] = []
        if isinstance(value, Stream):
            self.names.setdefault(value, name)
        elif isinstance(value, dict):
            inside = [(f"{name}[{key!r}]" if isinstance(key, str | int) else name, each) for key, each in value.items()]
        elif isinstance(value, list | tuple | deque):
            inside = [(f"{name}[{number}]", each) for number, each in enumerate(value)]
        elif type(value).__module__.partition(".")[0] not in NOT_ITS_OWN:
            own = getattr(value, "__dict__", {}).items()
            inside = [(key if name == "self" else f"{name}.{key}", each) for key, each in own]
        for its_name, each in inside if depth else ():
            self._name(each, its_name, depth - 1)

    def _name_locals(self) -> None:
        """Calls streams that have no name yet by the engine's variables, if these lead to them now."""
        frame = sys._getframe(1)
        while self.below is not None and frame is not None and frame.f_code is not self.below:
            for name, value in frame.f_locals.items() if lines.is_own(frame.f_code.co_filename) else ():
                self._name(value, name)
            frame = frame.f_back

    @property
    def all_names(self) -> list[str]:
        """What to call the host and the streams, by actor."""
        queues = list(self._actors)[1:]
        return ["the host", *(self.names.get(queue.stream, f"stream {actor}") for actor, queue in enumerate(queues, 1))]

    def _line(self) -> Line | None:
        """The engine's line that the host is in."""
        return self.below and lines.of_engine(sys._getframe(1), self.below)

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
        self.running = self._issued[operation]
        try:
            with self._torch:
                operation.run()
        except (Limit, lines.Told):
            raise
        except Exception as error:
            line, what = self.running.line, " ".join(f"{type(error).__name__}: {error}".split())
            launched = f" (launched in {line.told(self.file)}: {line.code})" if line else ""
            raise lines.Told(
                f"{what}, in {self.running}{launched}; a GPU checks no such thing: a kernel reads and writes what lies "
                "there, or ends in an illegal memory access"
            ) from error
        self.events.append(("done", self.running))

    def replayed(self, pool: object) -> None:
        # The memory itself is torch's business. One piece stands for it, and who replays writes it.
        _, memory = self._pools.setdefault(id(pool), (pool, Memory("the results in between in the graphs' pool")))
        self._access(self.running, memory, slice(None), True)

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
        self._waits.append((event, EventWait(len(self.actions) - 1, actor, found, self._line())))

    def touched(self, memory: np.ndarray, writes: bool) -> None:
        if threading.get_ident() != self._thread:
            raise Limit("the simulator follows one thread of an engine, and a second one touches pinned memory")
        own = self.below is not None and _by_engine(sys._getframe(1))
        action = self._host_action
        if action is None or own != (action.what == OWN) or (own and action.line != self._line()):
            action = self._host_act(OWN if own else "")
        address = memory.__array_interface__["data"][0]  # through torch it would take far longer
        if memory.size:
            self._touch(action, address, memory.shape, memory.strides, memory.itemsize, writes)

    def did(self, what: str, batch_number: int | None, slot: str | None) -> None:
        pending = self._host_action
        if pending is not None and not pending.what and pending.line != self._line():
            pending.what = SET_UP  # it is of what the engine called before, and nobody has anything to say of it
            self.events.remove(("done", pending))
        if pending is None or pending.what:
            pending = self._host_act(what)
        # Named only now, when the host says what it was for.
        pending.what, pending.batch_number, pending.slot = what, batch_number, slot
        self._host_action = None

    # --- accesses ---

    def touch(self, tensor: torch.Tensor, writes: bool) -> None:
        """The action that runs reads or writes the tensor; of no matter if it is not watched."""
        if tensor.numel():
            itemsize, address = tensor.itemsize, tensor.data_ptr()
            strides = [itemsize * stride for stride in tensor.stride()]
            self._touch(self.running, address, tensor.shape, strides, itemsize, writes)

    def touch_positions(self, cache: torch.Tensor, positions: np.ndarray, writes: bool) -> None:
        """The action that runs reads or writes these positions of a KV cache, int [any]: page * page_size + offset."""
        if (memory := self.memories.at(cache.data_ptr())) is not None:
            self._access(self.running, memory, positions, writes)

    def _touch(self, action: Action, address: int, shape, strides, itemsize: int, writes: bool) -> None:
        if (memory := self.memories.at(address)) is not None:
            self._access(action, memory, memory.pieces_of(address, shape, strides, itemsize), writes)

    def _access(self, action: Action, memory: Memory, pieces: Pieces, writes: bool) -> None:
        found = memory.access(action.actor, action.past, pieces, writes)
        if found is None:
            return
        number, wrote, piece = found
        sides = sorted(((self.actions[number], wrote), (action, writes)), key=lambda side: side[0].number)
        (first, first_writes), (second, second_writes) = sides
        kind = first.what, first.line, second.what, second.line, memory.name, first_writes, second_writes
        if kind not in self._hazards or second.number < self._hazards[kind].second.number:
            page = f", page {piece // memory.block}" if memory.block > 1 else ""
            edge = self.all_names[second.actor], self.all_names[first.actor]
            self._hazards[kind] = Hazard(first, second, first_writes, second_writes, memory.name + page, edge)

    def _act(
        self, queue: Queue | None, what: str, batch_number: int | None, slot: str | None, before: list[int] = ()
    ) -> Action:
        """The next action of a stream (None: the host), which comes after `before` too."""
        actor = self._actors.setdefault(queue, len(self._actors))
        if actor >= len(self._pasts):  # several may be new: to wait for what was never recorded is no action
            self._pasts += [[] for _ in range(actor + 1 - len(self._pasts))]
            self._name_locals()
        past = _joined(self._pasts[actor], before)
        past += [0] * (actor + 1 - len(past))
        number = past[actor] = len(self.actions)
        self.actions.append(Action(number, actor, what, batch_number, slot, self._line(), past))
        self._pasts[actor] = past
        return self.actions[-1]

    def _host_act(self, what: str) -> Action:
        """What the host begins to do, done at once."""
        self._host_action = self._act(None, what, None, None)
        self.events.append(("done", self._host_action))
        return self._host_action


def _by_engine(frame: FrameType) -> bool:
    """Whether it is the engine's own code that has called for this, and not one of the parts that it is handed."""
    whose = None
    while frame is not None and (whose := _whose(frame.f_code.co_filename)) is None:
        frame = frame.f_back
    return whose == "engine"


@cache
def _whose(file: str) -> str | None:
    """Whose a source file is: the engine's, or that of a part; None for those that both work with."""
    if lines.is_own(file):
        return "engine"
    package = Path(__file__).parents[1]
    return "part" if Path(file).parent in (package, package / "run") else None


def _joined(a: list[int], b: list[int]) -> list[int]:
    return [max(x, y) for x, y in zip_longest(a, b, fillvalue=0)]
