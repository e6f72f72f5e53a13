"""A decode step on one GPU and on several that share the model: kernels, communication, launch gaps, bubbles.

For each number of GPUs and each model, ranks of their own are started and load it once. They serve decodes alone: the
requests come with their prompts behind them, as random keys and values, because computing prompts would take most of
the time and says nothing about a decode step. Everything is first run without a profiler and then again under torch's,
which slows the launching but not the kernels: as in profile.py, of that run only kernel times are used.
"""

import gc
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, RankError
from ..model import Model
from ..run import launch
from ..run.checkpoint import Checkpoint
from ..run.devices import open_device
from ..run.options import Options
from ..run.session import Session
from ..run.timed import Machine
from ..run.workload import Workload
from ..trace.batches import PACE
from ..trace.launched import COMMUNICATION
from ..trace.torch_profiler import Recording, kernel_runs
from .kernel_profile import Enough, ProfiledDevice, launch_names
from .metrics import environment
from .result_table import ResultTable

GPUS = (1, 2, 4)
MODELS = ("llama-3.1-8b", "qwen3-32b")
LOADS = ("long", "wide")
ENGINES = {  # by what they are called: the chapter, and whether the model launches its decodes as graphs
    "ch1 + graphs": ("ch1", True),
    "ch5": ("ch5", False),
    "ch6": ("ch6", False),
}
STEPS, SETTLING = 80, 20  # decode steps of a run, of which the first are not counted
SAMPLE = range(40, 48)  # batches that run under the profiler
COLUMNS = {
    "workload": "", "model": "", "GPUs": "d", "engine": "", "step": ".2f", "kernels": ".2f", "NCCL": ".2f",
    "launch gaps": ".2f", "bubbles": ".2f", "share": ".1%", "launching": ".2f", "gain": ".2f",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One engine on one workload, as rank 0 saw it. Means over decode steps, in seconds; None where it is not known.

    Attributes:
        workload: its name.
        model: its name.
        gpus: that shared it.
        engine: a key of ENGINES.
        step: from one batch's end to the next one's.
        window: of that, with a batch on the GPU.
        bubbles: of that, without one.
        launching: what the host takes to launch a batch.
        kernels: of the window, with a kernel running that computes.
        communication: of the window, with only kernels running that talk to other GPUs, or wait for them to.
        refused: why there is nothing of all that.
    """

    workload: str
    model: str
    gpus: int
    engine: str
    step: float | None = None
    window: float | None = None
    bubbles: float | None = None
    launching: float | None = None
    kernels: float | None = None
    communication: float | None = None
    refused: str | None = None

    def row(self, slowest: float | None) -> list:
        """Its line of the table, in ms.

        Args:
            slowest: seconds of the step of the first engine on as many GPUs.
        """
        communication, gaps = self.communication, None
        if self.kernels is not None:
            # Where launching sets the pace, NCCL's kernels wait for what another rank has not launched yet, and under
            # the profiler they wait longer: of that wait, none is talk.
            if self.gpus > 1 and self.launching > PACE * self.window:
                communication = None
            gaps = self.window - self.kernels - (communication or 0.0)
        parts = (self.step, self.kernels, communication, gaps, self.bubbles, self.launching)
        *parts, launching = (None if part is None else 1e3 * part for part in parts)
        share = None if self.bubbles is None else self.bubbles / self.step
        gain = slowest / self.step if slowest and self.step else None
        return [self.workload, self.model, self.gpus, self.engine, *parts, share, launching, gain]


class Decoding(Session):
    """A session whose requests have their prompts behind them: the first batch has all of them decode."""

    def load_model(self) -> Model:
        model = super().load_model()
        for memory in (*model.cache.keys, *model.cache.values):
            memory.normal_()
        model.decode_sizes = [self.size.rows]  # no batch is smaller
        for request in self.requests:
            request.scheduled = request.prompt_len - 1
        return model


def measure(workloads: Sequence[Workload], checkpoint: Checkpoint, device: str) -> Iterator[list[Point]]:
    """All engines on these workloads, on the ranks that share the checkpoint; every rank has to call it.

    Yields all points each time there is more to say of one.

    Args:
        workloads: as long as all of their requests fit into a batch.
        checkpoint: their model.
        device: "cuda", or "cpu" for the length of a step alone.
    """
    cases = [(workload, engine) for workload in workloads for engine in ENGINES]
    points: list[Point] = []
    _point(*cases[0], checkpoint, device)  # does not count: what came first was faster than all after it
    for workload, engine in cases:
        points.append(_point(workload, engine, checkpoint, device))
        yield points
    for number, (workload, engine) in enumerate(cases):
        if points[number].window is not None:
            kernels, communication = _kernels(workload, engine, checkpoint)
            points[number] = replace(points[number], kernels=kernels, communication=communication)
            yield points


def _session(workload: Workload, engine: str, checkpoint: Checkpoint, device: str | Machine, trace: bool) -> Session:
    gc.collect()  # what the session before has held on the GPU
    chapter, graphs = ENGINES[engine]
    options = Options(graphs=graphs, gpus=checkpoint.ranks.count if checkpoint.ranks else 1)
    return Decoding(workload.job(checkpoint.vocab_size), chapter, checkpoint, device, options, trace)


def _point(workload: Workload, engine: str, checkpoint: Checkpoint, device: str) -> Point:
    names = workload.name, checkpoint.name, checkpoint.ranks.count if checkpoint.ranks else 1, engine
    try:
        session = _session(workload, engine, checkpoint, device, trace=True)
    except InputError as error:
        return Point(*names, refused=str(error))
    session.serve()
    steps, trace = session.done, session.trace
    numbers = range(SETTLING, len(steps) - 1)  # nothing is launched beside the last
    if trace is None:
        return Point(*names, statistics.fmean(steps[number].time - steps[number - 1].time for number in numbers))
    windows, bubbles = trace.batches(), trace.bubbles()
    window = statistics.fmean(windows[number][1] - windows[number][0] for number in numbers)
    bubble = statistics.fmean(bubbles[number] for number in numbers)
    launching = statistics.fmean(trace.launching(number) for number in numbers)
    return Point(*names, window + bubble, window, bubble, launching)


def _kernels(workload: Workload, engine: str, checkpoint: Checkpoint) -> tuple[float, float]:
    """Seconds of a step in which this rank's GPU computes, and in which it does nothing but communicate."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        device = ProfiledDevice(SAMPLE, file)
        with device.profiler, suppress(Enough):
            _session(workload, engine, checkpoint, device, trace=False).serve()
        recording = Recording.of(json.loads(file.read_text())["traceEvents"])
    busy, computing = (
        [sum(end - start for start, end in runs) for runs, _ in kernel_runs(recording, launches, but).values()]
        for launches, but in ((launch_names(SAMPLE), None), (launch_names(SAMPLE), COMMUNICATION))
    )
    return statistics.fmean(computing), statistics.fmean(busy) - statistics.fmean(computing)


def gather(
    counts: Sequence[int], models: Sequence[str], arguments: Sequence[str], progress: Callable[[str], None]
) -> Iterator[Point]:
    """Starts ranks for each number of GPUs and each model, one after another, and yields what they measure.

    Args:
        counts: numbers of GPUs.
        models: their names.
        arguments: of `acb`, to have ranks measure one model; its name and the file for the points are added.
        progress: is told what comes next.
    """
    for model in models:
        for count in counts:
            progress(f"{model} on {count} GPUs" if count > 1 else f"{model} on 1 GPU")
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "points.json")
                rest = ["--gpus", str(count), "--model", model, "--part", str(file)]
                try:
                    launch.launch(count, [*arguments, *rest])
                except RankError as error:  # what was measured before it, and all the rest, is worth keeping
                    yield Point("", model, count, "", refused=str(error))
                if file.exists():
                    yield from (Point(**point) for point in json.loads(file.read_text()))


def table(points: list[Point], device: str) -> ResultTable:
    """The points as a table.

    Args:
        points: in the order in which they were measured.
        device: as Session takes it.
    """
    slowest: dict[tuple, float | None] = {}
    rows = []
    for point in points:
        if not point.engine:
            continue  # it says only why there are no others
        first = slowest.setdefault((point.workload, point.model, point.gpus), point.step)
        rows.append(point.row(first))
    note = (
        "ms per decode step, means, as rank 0 saw it. step = kernels + NCCL + launch gaps + bubbles. NCCL: no kernels "
        "run but those that talk to the other GPUs, or wait for them; counted as launch gaps where launching sets the "
        "pace. Replayed graphs run a little longer under the profiler, which has the kernels' times: gaps of them can "
        "come out below 0. share: of bubbles in the step. launching: what the host takes to launch a batch. gain: how "
        "many times as fast as the first engine on as many GPUs."
    )
    refused = [point for point in points if point.refused]
    reasons = (f"{point.workload} {point.model} on {point.gpus}: {point.refused}.".lstrip() for point in refused)
    note = " ".join([note, *dict.fromkeys(reasons)])
    facts = environment(open_device(device, Checkpoint("counter")))
    return ResultTable("One GPU and several", COLUMNS, rows, note, facts)
