"""A run on the simulator as a recording to be played: what the host called, line by line, and what the device did.

An engine of the chapters decides nothing by the time: its scheduler goes by counts. So what the host calls, in which
order, and what each piece of device work waits for is the same whatever things cost, and one recording is enough to say
when everything happens under any costs. The page that plays it needs nothing else than the rules of sim/policies.py.
"""

from contextlib import nullcontext
from typing import Any

import torch
from dialled import Dialled
from recorder import Recorder

from acb_minimal.check.cases import CASES
from acb_minimal.check.schedules import replay
from acb_minimal.device import Work
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.trace.steps import typical_decodes


class RecordedDevice(SimulatedDevice):
    """The simulated GPU with a Recorder looking on from where serving begins."""

    def __init__(self, costs: Dialled, recorder: Recorder):
        super().__init__(costs, trace=True, observer=recorder)
        self.recorder = recorder
        recorder.costs = costs
        recorder._torch = nullcontext()  # whoever plays it asks for no hazards: nobody need look at memory

    def begin(self) -> float:
        clock = super().begin()
        self.recorder.clear()
        return clock

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        self.recorder.blocking = not non_blocking
        super().copy(engine, target, source, non_blocking, work)


def watch(
    engine_class: type, job: Job, checkpoint: Checkpoint, costs: Dialled, graphs: bool = False
) -> tuple[Recorder, Session]:
    """Serves a job on the simulated GPU, and says what was seen; `graphs`: the model launches decodes as graphs."""
    recorder = Recorder(lambda ids: [checkpoint.decode([token]) or "end" for token in ids])

    class Watched(engine_class):
        def __init__(self, model, scheduler, cuda):
            super().__init__(model, scheduler, cuda)
            recorder.name_streams(self, cuda.default_stream())

    session = Session(job, Watched, checkpoint, RecordedDevice(costs, recorder), Options(graphs=graphs))
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
        "batches": batches(recorder),
        "steady": typical_decodes(session.done),
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
        "batches": batches(recorder),
        "hazard": hazard,
        "failure": outcome.failure,
    }


def batches(recorder: Recorder) -> dict[int, list[tuple[str, int]]]:
    """Of each batch the requests that have a row in it, and how many tokens the row has."""
    return {number: [(row.request.id, row.length) for row in batch.rows] for number, batch in recorder.batches.items()}
