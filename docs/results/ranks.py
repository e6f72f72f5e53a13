"""A decode step on one GPU and on several that share the model: kernels, communication, launch gaps, bubbles.

    python docs/results/ranks.py    # on a machine with several GPUs: makes the table in ranks.json anew

For each model and number of GPUs it starts itself under torchrun. The requests come with their prompts behind them, as
random keys and values, because computing prompts would take most of the time and says nothing about a decode step.
Everything is first run without a profiler and then again under torch's, which slows the launching but not the kernels:
of that run only kernel times are used.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from acb_minimal.errors import InputError
from acb_minimal.measure.kernel_profile import Enough, ProfiledDevice, kernel_runs
from acb_minimal.measure.metrics import environment
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.devices import open_device
from acb_minimal.run.options import Options
from acb_minimal.run.ranks import Ranks, is_first, is_rank
from acb_minimal.run.session import Session
from acb_minimal.run.timed import Machine, TimedModel
from acb_minimal.run.workload import Workload, workload
from acb_minimal.trace.batches import COMMUNICATION
from acb_minimal.trace.torch_profiler import Recording
from acb_minimal.trace.verdict import PACE

FILE = Path(__file__).with_suffix(".json")
GPUS = (1, 2, 4)
MODELS = ("llama-3.1-8b", "qwen3-32b")
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
NOTE = (
    "ms per decode step, means, as rank 0 saw it. step = kernels + NCCL + launch gaps + bubbles. NCCL: no kernels run "
    "but those that talk to the other GPUs, or wait for them; counted as launch gaps where launching sets the pace. "
    "Replayed graphs run a little longer under the profiler, which has the kernels' times: gaps of them can come out "
    "below 0. share: of bubbles in the step. launching: what the host takes to launch a batch. gain: how many times as "
    "fast as the first engine on as many GPUs."
)


class Decoding(Session):
    """A session whose requests have their prompts behind them: the first batch has all of them decode."""

    def load_model(self) -> TimedModel:
        model = super().load_model()
        for memory in (*model.cache.keys, *model.cache.values):
            memory.normal_()
        model.decode_sizes = [self.size.rows]  # no batch is smaller
        for request in self.requests:
            request.scheduled = request.prompt_len - 1
        return model


def main() -> None:
    """Measures each model on each number of GPUs, in processes of their own, and keeps the table after each."""
    if not torch.cuda.is_available():
        sys.exit("error: what several GPUs win needs a CUDA GPU; torch finds none")
    rows, lost, facts = [], [], environment(open_device("cuda", Checkpoint("counter")))
    for model in MODELS:
        for count in (count for count in GPUS if count <= torch.cuda.device_count()):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "rows.json")
                command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__]
                status = subprocess.run([sys.executable, *command, model, file]).returncode
                rows += json.loads(file.read_text()) if file.exists() else []
            if status:  # what was measured before, and all the rest, is worth keeping
                lost.append(f"{model} on {count} GPUs ended with status {status}.")
            note = " ".join([NOTE, *lost])
            ResultTable("One GPU and several", COLUMNS, rows, note, facts).save(FILE, "ranks")


def measure(model: str, file: Path) -> None:
    """What each rank runs: all engines on all workloads. Rank 0 writes the table's rows as they come."""
    ranks = Ranks.here(timeout=120.0).join("cuda") if is_rank() else None
    checkpoint = Checkpoint(model, ranks)
    loads = [workload(name) for name in ("long", "wide")]
    loads = [load.override(requests=load.max_running, new_tokens=STEPS) for load in loads]
    cases = [(load, engine) for load in loads for engine in ENGINES]
    with suppress(InputError):
        times(*cases[0], checkpoint)  # does not count: what came first was faster than all after it
    timed = {}
    for load, engine in cases:
        with suppress(InputError):  # too little memory
            timed[load, engine] = times(load, engine, checkpoint)
    rows = []
    for (load, engine), (window, bubbles, launching) in timed.items():
        step = window + bubbles
        talk, kernels = kernel_times(load, engine, checkpoint)
        # Where launching sets the pace, NCCL's kernels wait for what another rank has not launched yet, and under the
        # profiler they wait longer: of that wait, none is talk.
        if ranks and launching > PACE * window:
            talk = None
        parts = [step, kernels, talk, window - kernels - (talk or 0.0), bubbles]
        in_ms = [None if part is None else 1e3 * part for part in parts]
        first = sum(timed[load, next(iter(ENGINES))][:2]) if (load, next(iter(ENGINES))) in timed else None
        row = [load.name, model, ranks.count if ranks else 1, engine, *in_ms, bubbles / step, 1e3 * launching]
        rows.append([*row, first and first / step])
        if is_first():
            file.write_text(json.dumps(rows))


def session(load: Workload, engine: str, checkpoint: Checkpoint, device: str | Machine, trace: bool) -> Session:
    """One that has not been run."""
    gc.collect()  # what the session before has held on the GPU
    chapter, graphs = ENGINES[engine]
    options = Options(graphs=graphs, gpus=checkpoint.ranks.count if checkpoint.ranks else 1)
    return Decoding(load.job(checkpoint.vocab_size), chapter, checkpoint, device, options, trace)


def times(load: Workload, engine: str, checkpoint: Checkpoint) -> tuple[float, float, float]:
    """Mean seconds of a step with a batch on the GPU, and without one, and of the host to launch a batch."""
    run = session(load, engine, checkpoint, "cuda", trace=True)
    run.serve()
    windows, bubbles = run.trace.batches(), run.trace.bubbles()
    numbers = range(SETTLING, len(run.done) - 1)  # nothing is launched beside the last
    window = statistics.fmean(windows[number][1] - windows[number][0] for number in numbers)
    seconds = run.trace.launching()
    launching = statistics.fmean(seconds[number] for number in numbers)
    return window, statistics.fmean(bubbles[number] for number in numbers), launching


def kernel_times(load: Workload, engine: str, checkpoint: Checkpoint) -> tuple[float, float]:
    """Mean seconds of a step in which this rank's GPU does nothing but communicate, and in which it computes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        device = ProfiledDevice(SAMPLE, file)
        with device.profiler, suppress(Enough):
            session(load, engine, checkpoint, device, trace=False).serve()
        recording = Recording.of(json.loads(file.read_text())["traceEvents"])
    found = (kernel_runs(recording, but).values() for but in (None, COMMUNICATION))
    busy, computing = (sum(run.seconds for run, _ in runs) / len(SAMPLE) for runs in found)
    return busy - computing, computing


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2])) if sys.argv[1:] else main()
