"""What the host and the device do, and what can be wrong with the order of it, in words."""

from dataclasses import dataclass

from .lines import Line

HOST = 0
NOUNS = {"forward": "forward pass", "logits": "forward pass", "sample": "sampling", "carry_over": "carry-over",
         "count": "counting", "correct": "correction", "draft": "drafting", "replay": "graph replay",
         "swap_out": "swap-out", "swap_in": "swap-in"}  # fmt: skip


@dataclass(slots=True)
class Action:
    """Something that the host or the device does."""

    number: int  # its place among all actions, from 1, by when the host did or issued it
    actor: int  # HOST, or a number for the stream it is in
    what: str  # "upload", "forward", "write"...; also "record" and "wait", which touch no memory
    batch_number: int | None
    slot: str | None  # a letter
    line: Line | None  # the engine's line that did it; None if that was not asked for
    past: list[int]  # for every actor, its last action that is over before this begins; its own for its own

    def __str__(self) -> str:
        numbered = self.batch_number is not None and self.batch_number >= 0
        if self.actor == HOST:
            said = f"{self.what}, batch {self.batch_number}" if numbered else self.what
            return f"the host ({said})" if said else "the host"
        noun = NOUNS.get(self.what, self.what)
        return f"the {noun} of batch {self.batch_number}" if numbered else f"the {noun}"


@dataclass(frozen=True)
class Hazard:
    """Two accesses to the same memory that nothing orders; `second` was done or issued after `first`."""

    first: Action
    second: Action
    first_writes: bool  # else it reads
    second_writes: bool
    memory: str
    edge: tuple[str, str]  # the names of the two actors: who should wait, and for whom

    def __str__(self) -> str:
        does, did = ("writes" if writes else "reads" for writes in (self.second_writes, self.first_writes))
        them, (waits, awaited) = "them too" if does == did else "them", self.edge
        accesses = f"{self.second} {does} {self.memory}; {self.first} {did} {them}"
        return f"{accesses}; nothing makes {waits} wait for {awaited}"


@dataclass(frozen=True)
class EventWait:
    """That the host made somebody wait for an event."""

    after: int  # the number of the last action before
    actor: int  # who is to wait
    found: Action | None  # the record that the event had
    line: Line | None  # the engine's
