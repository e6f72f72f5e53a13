"""A run on the simulator as a recording to be played: what the host called, line by line, and what the device did.

An engine of the chapters decides nothing by the time: its scheduler goes by counts. So what the host calls, in which
order, and what each piece of device work waits for is the same whatever things cost, and one recording is enough to say
when everything happens under any costs. What the page that plays it needs for that is what sim/queues.py goes by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..check.cases import CASES
from ..check.hazards import Action, Checker, Hazard
from ..check.schedules import replay
from ..device import Work
from ..measure.figures import widest_decodes
from ..request import Batch
from ..run.checkpoint import Checkpoint
from ..run.dials import Dials
from ..run.session import Session
from ..run.workload import Job
from ..sim.costs import Costs, Shape
from ..sim.device import SimulatedDevice
from ..sim.operations import Cost, Operation, Queue
from ..sim.streams import Event
from ..slot import IOSlot

Call = dict[str, Any]


@dataclass(frozen=True)
class Dialled(Costs):
    """Costs in which the times of the law of overlap are what somebody has set them to; all else is as calibrated.

    Attributes:
        kernels: K, seconds: a forward pass, whatever its batch.
        launching: L, seconds: launching one kernel by kernel.
        bookkeeping: H, seconds: schedule, write and update together.
        waiting: the ramp, seconds.
        shares: of H that each kind of host work takes. `fill`, which only one chapter does, comes on top.
        computed: what was asked for the GPU's time of, since somebody has last cleared it.
    """

    kernels: float = 1.0
    launching: float = 1.0
    bookkeeping: float = 1.0
    waiting: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)

    @classmethod
    def to(cls, kernels: float, launching: float, bookkeeping: float, ramp: float, rows: int = 384) -> "Dialled":
        """These times, in seconds, on the costs of the 8B model; H is shared out as it is for a batch of `rows`."""
        costs = Costs.of("llama-3.1-8b")
        own = {what: costs.host(what, rows) for what in ("schedule", "write", "fill", "update")}
        whole = own["schedule"] + own["write"] + own["update"]
        shares = {what: seconds / whole for what, seconds in own.items()}
        return cls(costs.gpu, costs.figures, costs.model, 1, 0, kernels, launching, bookkeeping, ramp, shares)

    def launch(self, what: str, shape: Shape) -> float:
        return super().launch(what, shape) if what == "carry_over" else self.launching

    def compute(self, what: str, shape: Shape, graph: bool = False) -> Cost:
        self.computed.append(what)
        if what == "carry_over":
            return super().compute(what, shape)
        return Cost(self.kernels, ramp=0.0 if graph else self.waiting)

    def host(self, what: str, rows: int) -> float:
        return self.bookkeeping * self.shares[what]


class Recorder(Checker):
    """Notes every call that the host makes, with the line of the engine that it comes from.

    Attributes:
        calls: in order, each with `do` and what that needs:
            "host" has done `what` ("schedule", "write", "fill", "update");
            "launch" has queued `what` in `stream`, which takes its `engine` as long as its `parts` do, or, if it is
            a copy, `seconds`; `gradual`: it can begin with the first kernel that is launched;
            "record" and "wait": an event, in `stream`; a wait is `on` the call that recorded it, None if none has;
            "sync": the host waits `on` a call; `always`: it pays for the return even if there was nothing to wait for.
            Each may have a `batch`, a `slot`, and `then`: what lies in memory once it is done, by the memory's name.
        happened: the order of things: a call's number when the host makes it, ~number when the device is done with it.
            Whoever has done an `update` has `answers` too: the tokens so far of the requests in the batch.
        happened: the order of things: a call's number when the host makes it, ~number when the device is done with it.
        batches: those that were written to a slot, by number.
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
        self._numbers: dict[Operation, int] = {}
        self._of_actions: dict[int, int] = {}

    def racing(self, hazard: Hazard) -> tuple[int, int] | None:
        """The numbers of the two calls of a hazard; None if one of them came before the recording began."""
        first, second = (self._of_actions.get(action.number) for action in (hazard.first, hazard.second))
        return None if first is None or second is None else (first, second)

    def name_streams(self, engine: object, default: object) -> None:
        super().name_streams(engine, default)
        self.clear()  # what the engine did before it was complete, capturing say, belongs to no batch
        parts = vars(engine).items()
        self.slots = {part.name: part for _, part in parts if isinstance(part, IOSlot)}
        self._event_names = {part: name for name, part in parts if isinstance(part, Event)}
        for name, part in parts:
            for key, value in part.items() if isinstance(part, dict) else ():
                if isinstance(value, Event):
                    self._event_names[value] = f"{name}[{key.name}]"

    # --- what an Observer is told ---

    def queued(self, operation: Operation) -> None:
        super().queued(operation)
        action, stream = self._issued[operation], self.names.get(operation.queue, "")
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
            where = {"stream": self.names.get(queue, "")} if queue else {"always": True}
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
        if what in ("write", "fill") and slot in self.slots:
            self.batches[batch_number] = self.slots[slot].batch
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


WRITES = {
    "upload": ["inputs"],
    "carry_over": ["inputs"],
    "forward": ["outputs"],
    "replay": ["inputs", "outputs"],
    "download": ["pinned outputs"],
}


class Device(SimulatedDevice):
    """The simulated GPU with a Recorder looking on from where serving begins."""

    def __init__(self, costs: Dialled, recorder: Recorder):
        super().__init__(costs, trace=True, observer=recorder)
        self.recorder = recorder
        recorder.costs = costs

    def begin(self) -> float:
        clock = super().begin()
        self.recorder.clear()
        return clock

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        self.recorder.blocking = not non_blocking
        super().copy(engine, target, source, non_blocking, work)


def record(
    engine_class: type, job: Job, checkpoint: Checkpoint, costs: Dialled, graphs: bool = False
) -> dict[str, Any]:
    """Serves a job on the simulated GPU.

    Args:
        graphs: whether the model launches decodes as graphs.

    Returns:
        The `calls` of a Recorder; `requests`: each one's prompt; `batches`: of each the requests in it; `steady`: the
        numbers of those that figures are taken from (figures.widest_decodes).
    """
    recorder = Recorder(lambda ids: [checkpoint.decode([token]) or "end" for token in ids])

    class Watched(engine_class):
        def __init__(self, model, scheduler, cuda):
            super().__init__(model, scheduler, cuda)
            recorder.name_streams(self, cuda.default_stream())

    session = Session(job, Watched, checkpoint, Device(costs, recorder), Dials(graphs=graphs))
    session.serve()
    return {
        "calls": [call for call in recorder.calls if call["line"]],  # the last synchronize is nobody's
        "requests": {request.id: recorder.words(request.tokens[: request.prompt_len]) for request in session.requests},
        "batches": batches(recorder),
        "steady": widest_decodes(session.scheduler.steps),
    }


def record_schedule(engine_class: type, seed: str) -> dict[str, Any]:
    """Runs the schedule that a seed stands for, up to where it goes wrong.

    Args:
        engine_class: an engine that does something wrong under it.
        seed: a number, as `schedules.replay` takes it.

    Returns:
        As of `record`, and: `happened`, of a Recorder; `right`: the right answer to each request; `hazard`: its `text`,
        its two calls, whether each `writes`, and the `memory`, or None; `failure`: the first wrong token, or the error
        that the engine ended in, or None.

    Raises:
        ValueError: nothing goes wrong.
    """
    recorder = Recorder(lambda ids: [str(token) for token in ids])
    outcome = replay(engine_class, seed, recorder)
    if outcome.clean:
        raise ValueError(f"nothing goes wrong under seed {seed}")
    served = CASES[int(seed) % len(CASES)].served
    found = [(hazard, racing) for hazard in outcome.hazards if (racing := recorder.racing(hazard))]
    hazard, racing = found[0] if found else (None, ())
    end = max(number for number, call in enumerate(recorder.calls) if call["do"] == "host")
    # Whoever races may run only when all else is over.
    last = max(index for index, number in enumerate(recorder.happened) if number in (end, *racing, *map(_done, racing)))
    happened = recorder.happened[: last + 1]
    return {
        "calls": recorder.calls[: 1 + max(happened)],
        "happened": happened,
        "requests": {str(number): recorder.words(prompt) for number, (prompt, _, _) in enumerate(served)},
        "right": {str(number): recorder.words(tokens) for number, (_, tokens, _) in enumerate(served)},
        "batches": batches(recorder),
        "hazard": hazard
        and {
            "text": str(hazard),
            "calls": racing,
            "writes": (hazard.first_writes, hazard.second_writes),
            "memory": hazard.memory,
        },
        "failure": outcome.failure,
    }


def _done(number: int) -> int:
    return ~number


def batches(recorder: Recorder) -> dict[int, list[tuple[str, int]]]:
    """Of each batch the requests that have a row in it, and how many tokens the row has."""
    return {number: [(row.request.id, row.length) for row in batch.rows] for number, batch in recorder.batches.items()}
