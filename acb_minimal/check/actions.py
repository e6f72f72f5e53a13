"""What the host and the device do, and what can be wrong with the order of it, in words."""

from dataclasses import dataclass

from .lines import Line

HOST = 0
NOUNS = {"forward": "forward pass", "logits": "forward pass", "sample": "sampling", "carry_over": "carry-over",
         "count": "counting", "correct": "correction", "draft": "drafting", "replay": "graph replay",
         "swap_out": "swap-out", "swap_in": "swap-in"}  # fmt: skip


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
            said = f"{self.what}, batch {self.batch_number}" if numbered else self.what
            return f"the host ({said})" if said else "the host"
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
class EventWait:
    """That the host made somebody wait for an event.

    Attributes:
        after: the number of the last action before.
        actor: who is to wait.
        found: the record that the event had; None if it had none.
        line: the engine's line.
    """

    after: int
    actor: int
    found: Action | None
    line: Line | None
