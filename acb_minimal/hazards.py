"""Happens-before checking on the simulated GPU: finds accesses to the same memory that nothing orders.

Two accesses, one of them a write, are a hazard if neither is sure to be over before the other begins, whether or not
they got in each other's way this time. What is sure follows from what the host did: a stream runs what it is given in
order, a wait_event holds a stream back, a synchronize holds the host back. Each action carries the list of what is
over before it begins, one entry for each stream and one for the host (a vector clock). So one run finds every hazard
of what the host did in it, however kind the schedule was.

Accesses are taken from the work itself. While an operation runs, every torch operation in it is looked at: its schema
says which arguments it reads and which it writes. Attention is looked at page by page, so that requests that share
the KV cache do not seem to share a page. What the host reads and writes, the shared parts report (Device.spent).

Only memory that host and device, or batch and batch, share is watched (Device.watch). A strided view of it counts as
everything between its ends.
"""

import linecache
import sys
from bisect import bisect, insort
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from operator import attrgetter

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)
from .queues import Observer, Operation, Queue

HOST = 0
_start = attrgetter("start")
NOUNS = {"forward": "forward pass", "carry_over": "carry-over", "replay": "graph replay"}


@dataclass(slots=True)
class Action:
    """Something that the host or the device does.

    number  its place among all actions, from 1, by when the host did or issued it
    actor   HOST, or a number for the stream it is in
    what    "upload", "forward", "write"...; also "record" and "wait", which touch no memory
    batch   its batch's number; None if it has none
    slot    its slot's letter; None if it has none
    line    the engine's line that did it; None if that was not asked for
    past    for every actor, the number of its last action that is over before this one begins; its own for its own
    """

    number: int
    actor: int
    what: str
    batch: int | None
    slot: str | None
    line: int | None
    past: list[int]

    def __str__(self) -> str:
        numbered = self.batch is not None and self.batch >= 0
        if self.actor == HOST:
            return f"the host ({self.what}, batch {self.batch})" if numbered else f"the host ({self.what})"
        noun = NOUNS.get(self.what, self.what)
        return f"the {noun} of batch {self.batch}" if numbered else f"the {noun}"


@dataclass(frozen=True)
class Hazard:
    """Two accesses that nothing orders: `first` was done or issued before `second`.

    memory  what both touch
    edge    the names of the two actors: who should wait, and for whom
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


class Memory:
    """Watched memory, cut into pieces, and for each piece which action of each actor last read and last wrote it.

    start, nbytes  where it is
    pieces         how many; elements of a buffer, positions of a KV cache
    block          pieces that cannot be told apart by address: the positions of a page
    """

    def __init__(self, name: str, tensor: torch.Tensor | None = None, pieces: int = 1, block: int = 1):
        self.name, self.tensor, self.pieces, self.block = name, tensor, pieces, block  # kept alive: so is its address
        self.start, self.nbytes = (tensor.data_ptr(), tensor.nbytes) if tensor is not None else (0, 0)
        self._last = np.zeros((2, 5, pieces), dtype=np.int64)  # [reads and writes, actors, pieces]; actors may grow

    def pieces_of(self, start: int, end: int) -> slice:
        """The pieces that the bytes from `start` to `end` are part of, whole blocks of them."""
        size = self.nbytes // self.pieces * self.block
        return slice((start - self.start) // size * self.block, -((self.start - end) // size) * self.block)

    def access(self, action: Action, pieces: slice | np.ndarray, writes: bool) -> tuple[int, bool, int] | None:
        """Notes an access. If there was one before that it is not ordered after, returns that one's action, whether
        it wrote, and the piece."""
        actors = self._last.shape[1]
        if (new := len(action.past) - actors) > 0:
            self._last = np.pad(self._last, ((0, 0), (0, new), (0, 0)))
        past = np.array(action.past + [0] * -new)
        # Earlier accesses are all there is to look at: what has to come after this one has not run yet.
        last = self._last[0 if writes else 1 :, :, pieces]
        late = last > past[:, None]
        found = None
        if late.any():
            number = last[late].max()
            kind, _, place = np.argwhere(late & (last == number))[-1]
            found = int(number), bool(kind or not writes), int(np.arange(self.pieces)[pieces][place])
        self._last[int(writes), action.actor, pieces] = action.number
        return found


@dataclass
class Checker(Observer):
    """Looks on while an engine runs on a simulated device, and collects hazards.

    file    the engine's source; actions then know their lines
    names   what to call the streams, by queue
    events  what happened, in order: ("issued", "done" or "seen", action); the host's own actions are "done" at once
    """

    file: str | None = None
    names: dict[Queue, str] = field(default_factory=dict)

    def __post_init__(self):
        self.events: list[tuple[str, Action]] = []
        self._hazards: dict[tuple, Hazard] = {}
        self._actions: list[Action | None] = [None]  # by number, from 1
        self._issued: dict[Operation, Action] = {}
        self._actors: dict[Queue | None, int] = {None: HOST}
        self._pasts: list[list[int]] = [[0]]  # by actor: what is over before its next action begins
        self._memories: list[Memory] = []
        self._by_address: list[Memory] = []
        self._pools: dict[int, tuple[object, Memory]] = {}  # by id; the pool is kept, so that its id is not reused
        self._running: Action | None = None
        self._torch = _Watch(self)

    @property
    def hazards(self) -> list[Hazard]:
        """What was found, one for each pair of lines and memory, by when the host had issued both."""
        return sorted(self._hazards.values(), key=lambda hazard: (hazard.second.number, hazard.first.number))

    def name_streams(self, engine: object, default: object) -> None:
        """Calls every stream by the engine's attribute that holds it."""
        self.names[default.queue] = "the default stream"
        for name, value in vars(engine).items():
            if isinstance(queue := getattr(value, "queue", None), Queue):
                self.names[queue] = name

    # --- what an Observer is told ---

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None) -> None:
        pieces = len(memory) * page_size if page_size else memory.numel()
        self._memories.append(Memory(name, memory, pieces, page_size or 1))
        insort(self._by_address, self._memories[-1], key=_start)

    def queued(self, operation: Operation) -> None:
        before = self._issued[operation.after].past if operation.after else []
        past = _joined(self._pasts[HOST], before)
        action = self._act(operation.queue, operation.what, operation.batch, operation.slot, past)
        self._issued[operation] = action
        self.events.append(("issued", action))

    def run(self, operation: Operation) -> None:
        self._running = self._issued[operation]
        with self._torch:
            operation.work()
        self.events.append(("done", self._running))

    def replayed(self, pool: object) -> None:
        # The memory itself is torch's business. One piece stands for it, and who replays writes it.
        _, memory = self._pools.setdefault(id(pool), (pool, Memory("the results in between in the graphs' pool")))
        self._access(self._running, memory, slice(None), True)

    def saw(self, operation: Operation) -> None:
        action = self._issued[operation]
        self._pasts[HOST] = _joined(self._pasts[HOST], action.past)
        self.events.append(("seen", action))

    def touched(self, what, batch, slot, reads, writes) -> None:
        action = self._act(None, what, batch, slot)
        self.events.append(("done", action))
        if reads is not None:
            self.touch(torch.from_numpy(reads), False, action)
        if writes is not None:
            self.touch(writes, True, action)

    # --- accesses ---

    def touch(self, tensor: torch.Tensor, writes: bool, action: Action | None = None) -> None:
        """The action (None: the one that runs) reads or writes the tensor; of no matter if it is not watched."""
        memory = self.memory_of(tensor)
        if memory is not None and tensor.numel():
            start = tensor.data_ptr()
            extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            pieces = memory.pieces_of(start, start + extent * tensor.itemsize)
            self._access(action or self._running, memory, pieces, writes)

    def touch_positions(self, cache: torch.Tensor, positions: np.ndarray, writes: bool) -> None:
        """The action that runs reads or writes these positions (page * page_size + offset) of a KV cache."""
        if (memory := self.memory_of(cache)) is not None:
            self._access(self._running, memory, positions, writes)

    def memory_of(self, tensor: torch.Tensor) -> Memory | None:
        address = tensor.data_ptr()
        before = bisect(self._by_address, address, key=_start)
        memory = self._by_address[before - 1] if before else None
        return memory if memory and address < memory.start + memory.nbytes else None

    def _act(
        self, queue: Queue | None, what: str, batch: int | None, slot: str | None, before: list[int] = ()
    ) -> Action:
        """The next action of a stream (None: the host), which comes after `before` too."""
        actor = self._actors.setdefault(queue, len(self._actors))
        if actor == len(self._pasts):
            self._pasts.append([])
        past = _joined(self._pasts[actor], before)
        past += [0] * (actor + 1 - len(past))
        number = past[actor] = len(self._actions)
        action = Action(number, actor, what, batch, slot, self._line(), past)
        self._actions.append(action)
        self._pasts[actor] = past
        return action

    def _access(self, action: Action, memory: Memory, pieces: slice | np.ndarray, writes: bool) -> None:
        found = memory.access(action, pieces, writes)
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
        return "the host" if queue is None else self.names.get(queue, f"stream {actor}")

    def _line(self) -> int | None:
        """The engine's line that the host is in."""
        frame = sys._getframe(2) if self.file else None
        while frame is not None and frame.f_code.co_filename != self.file:
            frame = frame.f_back
        return frame and frame.f_lineno

    def fingerprint(self) -> int:
        """A number that says what is in the watched memory."""
        return hash(tuple(memory.tensor.numpy().tobytes() for memory in self._memories))

    def source(self, action: Action) -> str:
        """The text of the engine's line that did it."""
        return linecache.getline(self.file, action.line).strip() if action.line else ""


def _joined(a: list[int], b: list[int]) -> list[int]:
    return [max(x, y) for x, y in zip_longest(a, b, fillvalue=0)]


@cache
def _arguments(func: torch._ops.OpOverload) -> list[tuple[str, bool, bool]]:
    """For each argument its name, whether the result can be a view of it, and whether it is written."""
    infos = [(argument.name, argument.alias_info) for argument in func._schema.arguments]
    return [(name, info is not None, info is not None and info.is_write) for name, info in infos]


class _Watch(TorchDispatchMode):
    """Tells a checker what every torch operation reads and writes."""

    def __init__(self, checker: Checker):
        super().__init__()
        self.checker = checker

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.acb.paged_attention.default:
            self._attention(*args)
            return func(*args, **kwargs)
        aliased = []
        for value, (name, alias, writes) in zip_longest(args, _arguments(func)):
            value = kwargs.get(name) if value is None else value
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if not isinstance(tensor, torch.Tensor):
                    continue
                if alias and not writes:
                    aliased.append(tensor)
                else:
                    # What is written may be read as well; whoever may not overlap a read may not overlap a write.
                    self.checker.touch(tensor, writes)
        result = func(*args, **kwargs)
        for tensor in aliased:  # a view reads nothing, but some operations return a view only if they can
            if isinstance(result, torch.Tensor) and result.untyped_storage()._cdata != tensor.untyped_storage()._cdata:
                self.checker.touch(tensor, False)
        return result

    def _attention(self, query, key, value, key_cache, value_cache, kv_slots, page_table, seq_lens, query_starts, *_):
        """Reads and writes of torch.ops.acb.paged_attention, by position."""
        for tensor in (kv_slots, page_table, seq_lens, query_starts):
            self.checker.touch(tensor, False)
        page_size = key_cache.shape[2]
        read = []
        for pages, length in zip(page_table.numpy(), seq_lens.tolist(), strict=True):
            page, offset = np.divmod(np.arange(length), page_size)
            read.append(pages[page] * page_size + offset)
        for keys_or_values in (key_cache, value_cache):
            self.checker.touch_positions(keys_or_values, kv_slots.numpy(), True)
            self.checker.touch_positions(keys_or_values, np.concatenate(read), False)
