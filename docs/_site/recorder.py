"""A run on the simulator as a recording to be played: what the host called, line by line, and what the device did.

An engine of the chapters decides nothing by the time: its scheduler goes by counts. So what the host calls, in which
order, and what each piece of device work waits for is the same whatever things cost, and one recording is enough to say
when everything happens under any costs. The page that plays it needs nothing else than the rules of sim/policies.py.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dialled import Dialled

from acb_minimal.check import lines
from acb_minimal.check.actions import Action, Hazard
from acb_minimal.check.cases import CASES
from acb_minimal.check.race_detector import RaceDetector
from acb_minimal.check.schedules import replay
from acb_minimal.request import Batch
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.cuda import Event
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.operations import Operation, Queue
from acb_minimal.slot import IOSlot
from acb_minimal.trace.steps import typical_decodes

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

    def __init__(self, words: Callable[[Sequence[int]], list[str]], costs: Dialled | None = None):
        super().__init__(below=Session.run.__code__)
        self.words, self.costs = words, costs
        self.slots: dict[str, IOSlot] = {}
        self._event_names: dict[object, str] = {}
        self.blocking = False  # whether the copy that is being queued makes the host wait
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
        writes = [hazard.first_writes, hazard.second_writes]
        found = {"text": str(hazard), "calls": calls, "writes": writes, "memory": hazard.memory}
        return None if None in calls else found

    def rows(self) -> dict[int, list[tuple[str, int]]]:
        """Of each batch the requests that have a row in it, and how many tokens the row has."""
        return {number: [(row.request.id, row.length) for row in batch.rows] for number, batch in self.batches.items()}

    def name_streams(self, engine: object, default: object) -> None:
        super().name_streams(engine, default)
        self.clear()  # what the engine did before it was complete, capturing say, belongs to no batch
        parts = vars(engine)
        self.slots = {part.name: part for part in parts.values() if isinstance(part, IOSlot)}
        named = {name: part for name, part in parts.items() if not isinstance(part, dict)}
        for name, part in parts.items():
            if isinstance(part, dict):
                named |= {f"{name}[{getattr(key, 'name', key)}]": each for key, each in part.items()}
        self._event_names = {part: name for name, part in named.items() if isinstance(part, Event)}

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
            where = {"stream": self.names.get(queue.stream, "")} if queue else {"always": True}
            self._wait({"do": "wait" if queue else "sync", **where, "on": None, "event": self._event_names.get(event)})

    def saw(self, operation: Operation) -> None:
        super().saw(operation)
        if operation in self._numbers:  # else it was queued before the recording began
            self._wait({"do": "sync", "on": self._numbers[operation], "always": self.blocking})
        self.blocking = False

    def _wait(self, call: Call) -> None:
        line = self._line()
        self.happened.append(len(self.calls))
        self.calls.append(call | {"line": line.number if line else None})

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


class RecordedDevice(SimulatedDevice):
    """The simulated GPU with a Recorder looking on from where serving begins."""

    def __init__(self, recorder: Recorder):
        super().__init__(recorder.costs, trace=True, observer=recorder)
        self.recorder = recorder
        recorder._torch = nullcontext()  # whoever plays it asks for no hazards: nobody need look at memory

    def begin(self) -> float:
        clock = super().begin()
        self.recorder.clear()
        return clock

    def copy(self, engine: str, target, source, non_blocking: bool, work=None) -> None:
        self.recorder.blocking = not non_blocking
        super().copy(engine, target, source, non_blocking, work)


def watch(
    engine_class: type, job: Job, checkpoint: Checkpoint, costs: Dialled, graphs: bool = False
) -> tuple[Recorder, Session]:
    """Serves a job on the simulated GPU, and says what was seen; `graphs`: the model launches decodes as graphs."""
    recorder = Recorder(lambda ids: [checkpoint.decode([token]) or "end" for token in ids], costs)

    class Watched(engine_class):
        def __init__(self, model, scheduler, cuda):
            super().__init__(model, scheduler, cuda)
            recorder.name_streams(self, cuda.default_stream())

    session = Session(job, Watched, checkpoint, RecordedDevice(recorder), Options(graphs=graphs))
    session.serve()
    return recorder, session


def record(*watched, **options) -> dict[str, Any]:
    """Serves a job as `watch` does.

    Returns:
        The `calls` of a Recorder; `requests`: each one's prompt; `batches`: of each the requests in it; `steady`: the
        numbers of those that figures are taken from (steps.typical_decodes).
    """
    recorder, session = watch(*watched, **options)
    return {
        "calls": [call for call in recorder.calls if call["line"]],  # the last synchronize is nobody's
        "requests": {request.id: recorder.words(request.tokens[: request.prompt_len]) for request in session.requests},
        "batches": recorder.rows(),
        "steady": typical_decodes(session.done),
    }


def record_schedule(engine_class: type, seed: str) -> dict[str, Any]:
    """Runs the schedule that a seed stands for, up to where it goes wrong.

    Args:
        engine_class: an engine that does something wrong under it.
        seed: a number, as `schedules.replay` takes it.

    Returns:
        As of `record`, and: `happened`, of a Recorder; `right`: the right answer to each request; `hazard`, as `told`
        tells it, or None; `failure`: the first wrong token, or the error that the engine ended in, or None.

    Raises:
        ValueError: nothing goes wrong.
    """
    recorder = Recorder(lambda ids: [str(token) for token in ids])
    outcome = replay(engine_class, seed, recorder)
    if outcome.clean:
        raise ValueError(f"nothing goes wrong under seed {seed}")
    served = CASES[int(seed) % len(CASES)].served
    hazard = next(filter(None, map(recorder.told, outcome.hazards)), None)
    racing = hazard["calls"] if hazard else ()
    end = max(number for number, call in enumerate(recorder.calls) if call["do"] == "host")
    # Whoever races may run only when all else is over.
    last = max(
        index for index, number in enumerate(recorder.happened) if number in (end, *racing, *(~call for call in racing))
    )
    # What no line has called is the judge's, who lets the device finish.
    happened = [number for number in recorder.happened[: last + 1] if number < 0 or recorder.calls[number]["line"]]
    return {
        "calls": recorder.calls[: 1 + max(happened)],
        "happened": happened,
        "requests": {str(number): recorder.words(prompt) for number, (prompt, _, _) in enumerate(served)},
        "right": {str(number): recorder.words(tokens) for number, (_, tokens, _) in enumerate(served)},
        "batches": recorder.rows(),
        "hazard": hazard,
        "failure": outcome.failure,
    }
