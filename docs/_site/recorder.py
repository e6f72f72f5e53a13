"""Notes what an engine calls on the simulated GPU, line by line, and what the device does for it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dialled import Dialled

from acb_minimal.check import lines
from acb_minimal.check.actions import Action, Hazard
from acb_minimal.check.race_detector import RaceDetector
from acb_minimal.request import Batch
from acb_minimal.run.session import Session
from acb_minimal.sim.cuda import Event
from acb_minimal.sim.operations import Operation, Queue
from acb_minimal.slot import IOSlot

lines.LIBRARIES.add(Path(__file__).parent)  # what calls the simulator from here is no engine
Call = dict[str, Any]
# The parts of a slot that a piece of device work writes.
WRITES = {
    "upload": ["inputs"],
    "carry_over": ["inputs"],
    "forward": ["outputs"],
    "replay": ["inputs", "outputs"],
    "download": ["pinned outputs"],
}


class Recorder(RaceDetector):
    """Notes every call that the host makes, with the line of the engine that it comes from.

    Attributes:
        calls: in order, each with `do` and what that needs:
            "host" has done `what` ("schedule", "write", "fill", "update");
            "launch" has queued `what` in `stream`, which takes its `engine` as long as its `parts` do, or, if it is
            a copy, `seconds`; `gradual`: it can begin with the first kernel that is launched;
            "record" and "wait": an event, in `stream`; a wait is `on` the call that recorded it, None if none has;
            "sync": the host waits `on` a call; `always`: it pays for the return even if there was nothing to wait for.
            Each may have a `batch`, a `slot`, and `then`: what lies in memory once it is done, by the memory's name. An
            `update` has `answers` too: the tokens so far of the requests in the batch.
        happened: the order of things: a call's number when the host makes it, ~number when the device is done with it.
        batches: those that were written to a slot, by number.
        pages: of each of their rows, as they were when the batch was written.
        words: makes text of token ids.
    """

    def __init__(self, words: Callable[[Sequence[int]], list[str]]):
        super().__init__(below=Session.run.__code__)
        self.words = words
        self.slots: dict[str, IOSlot] = {}
        self._event_names: dict[object, str] = {}
        self.blocking = False  # whether the copy that is being queued makes the host wait
        self.costs: Dialled | None = None
        self.clear()

    def clear(self) -> None:
        """Forgets everything so far."""
        self.calls: list[Call] = []
        self.happened: list[int] = []
        self.batches: dict[int, Batch] = {}
        self.pages: dict[int, list[list[int]]] = {}
        self._numbers: dict[Operation, int] = {}
        self._of_actions: dict[int, int] = {}

    def told(self, hazard: Hazard) -> dict[str, Any] | None:
        """A hazard's `text`, its two `calls`, whether each `writes`, and the `memory`; None if one of the calls came
        before the recording began."""
        calls = [self._of_actions.get(action.number) for action in (hazard.first, hazard.second)]
        if None in calls:
            return None
        writes = [hazard.first_writes, hazard.second_writes]
        return {"text": str(hazard), "calls": calls, "writes": writes, "memory": hazard.memory}

    def name_streams(self, engine: object, default: object) -> None:
        super().name_streams(engine, default)
        self.clear()  # what the engine did before it was complete, capturing say, belongs to no batch
        parts = vars(engine).items()
        self.slots = {part.name: part for _, part in parts if isinstance(part, IOSlot)}
        self._event_names = {part: name for name, part in parts if isinstance(part, Event)}
        for name, part in parts:
            for key, value in part.items() if isinstance(part, dict) else ():
                if isinstance(value, Event):
                    self._event_names[value] = f"{name}[{getattr(key, 'name', key)}]"

    # --- what an Observer is told ---

    def queued(self, operation: Operation) -> None:
        super().queued(operation)
        action, stream = self._issued[operation], self.names.get(operation.queue.stream, "")
        if operation.engine is None:
            call = {"do": operation.what, "stream": stream}
            if operation.after is not None:
                call["on"] = self._numbers[operation.after]
        else:
            call = {"do": "launch", "what": operation.what, "engine": operation.engine, "stream": stream}
            parts = self.costs.computed if self.costs else []
            compute = operation.engine == "compute"
            call |= {"parts": list(parts)} if compute else {"seconds": operation.cost.busy}
            if operation.what in ("forward", "carry_over"):
                call["gradual"] = True
            parts.clear()
        self._numbers[operation] = self._add(action, call)

    def recorded(self, event: object, record: Operation) -> None:
        super().recorded(event, record)
        self.calls[self._numbers[record]]["event"] = self._event_names.get(event, "event")

    def waits(self, queue: Queue | None, event: object, record: Operation | None) -> None:
        super().waits(queue, event, record)
        self.blocking = queue is None  # the host waits for an event, as for a copy, whether or not it is done
        if record is None:
            line = self._line()
            where = {"stream": self.names.get(queue.stream, "")} if queue else {"always": True}
            call = {"do": "wait" if queue else "sync", **where, "on": None, "event": self._event_names.get(event)}
            self.happened.append(len(self.calls))
            self.calls.append(call | {"line": line.number if line else None})

    def saw(self, operation: Operation) -> None:
        super().saw(operation)
        line = self._line()
        if operation in self._numbers:  # else it was queued before the recording began
            self.happened.append(len(self.calls))
            call = {"do": "sync", "on": self._numbers[operation], "always": self.blocking}
            self.calls.append(call | {"line": line.number if line else None})
        self.blocking = False

    def run(self, operation: Operation) -> None:
        super().run(operation)
        number, slot = self._numbers[operation], self.slots.get(operation.slot)
        self.happened.append(~number)
        if slot is not None and operation.batch_number in self.batches:
            for name in WRITES[operation.what]:
                self._note(self.calls[number], slot, name)

    def did(self, what: str, batch_number: int | None, slot: str | None) -> None:
        super().did(what, batch_number, slot)
        _, action = self.events[-1]
        call = self.calls[self._add(action, {"do": "host", "what": what})]
        if line := self._line():  # an action has the line that touched anything first: a slot's making, say
            call["line"] = line.number
        if what in ("write", "fill") and slot in self.slots:
            batch = self.batches[batch_number] = self.slots[slot].batch
            self.pages.setdefault(batch_number, [list(row.request.pages) for row in batch.rows])
            self._note(call, self.slots[slot], "pinned inputs")
        if what == "update" and batch_number in self.batches:
            requests = (row.request for row in self.batches[batch_number].rows)
            call["answers"] = {request.id: self.words(request.generated) for request in requests}

    def _add(self, action: Action, call: Call) -> int:
        number = self._of_actions[action.number] = len(self.calls)
        call |= {"line": action.line.number if action.line else None}
        call |= {"batch": action.batch_number, "slot": action.slot}
        self.calls.append({key: value for key, value in call.items() if value is not None})
        self.happened.append(number)
        return number

    def _note(self, call: Call, slot: IOSlot, name: str) -> None:
        """What lies in a part of a slot now, as far as its batch goes: a token each."""
        batch = self.batches[call["batch"]]
        tokens, samples = batch.num_tokens - batch.padding, len(batch.sampled)
        memory, length = {
            "pinned inputs": (slot.host_buffer, tokens),  # token ids come first
            "inputs": (slot.device_buffer, tokens),
            "outputs": (slot.device_tokens, samples),
            "pinned outputs": (slot.host_tokens, samples),
        }[name]
        call.setdefault("then", {})[name] = self.words(memory[:length].tolist())
