"""What a run measured, the machine it was measured on, and the file that keeps both."""

import datetime
import json
import platform
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ..errors import EngineError, InputError
from ..run.session import Session
from ..run.timed import BatchDone, Machine
from ..trace.spans import Trace


@dataclass(frozen=True)
class Metrics:
    """The figures of one run.

    Attributes:
        requests: how many were served.
        prompt_tokens: of all of them.
        new_tokens: of all of them.
        seconds: from the first batch being scheduled to the last one's tokens being on the host.
        steps: batches.
        tokens_per_second: new tokens over `seconds`.
        ms_per_step: `seconds` over all batches, those with prefill included.
        ms_per_decode_step: median time from one batch's tokens to the next one's, over `decode_batches`; None if there
            are none.
        gpu_active: share of time, 0 to 1, with a batch on the GPU, which is 1 less the share of bubbles (Trace.active);
            None without a trace.
    """

    requests: int
    prompt_tokens: int
    new_tokens: int
    seconds: float
    steps: int
    tokens_per_second: float
    ms_per_step: float
    ms_per_decode_step: float | None
    gpu_active: float | None

    @classmethod
    def of(cls, session: Session) -> "Metrics":
        """The figures of a session that has been served to its end."""
        steps, requests = session.done, session.requests
        seconds = steps[-1].time - session.started
        new_tokens = sum(len(request.generated) for request in requests)
        decodes = [steps[number].time - steps[number - 1].time for number in decode_batches(steps)]
        return cls(
            len(requests),
            sum(request.prompt_len for request in requests),
            new_tokens,
            seconds,
            len(steps),
            new_tokens / seconds,
            1e3 * seconds / len(steps),
            1e3 * statistics.median(decodes) if decodes else None,
            session.trace.active() if session.trace else None,
        )


PARTS = ("step", "kernels", "launch_gaps", "bubbles")  # of a Breakdown: the first is the sum of the others


@dataclass(frozen=True)
class Breakdown:
    """Where the time of a step goes, in seconds, over `widest_decodes`.

    On a GPU these are medians, but for the kernels, which come as a mean over fewer batches: a few steps in which the
    host is late by milliseconds would make a mean tell of that run alone. On the simulator all are means.

    Attributes:
        step: the sum of the three that follow: from one batch's end to the next one's, by the GPU's clock.
        kernels: time with a kernel running.
        launch_gaps: time with a batch on the GPU and no kernel running.
        bubbles: time with no batch on the GPU.
        kernel_count: kernels in a batch; None on the simulator, which does not know them one by one.
        launching: time that the host takes to launch a batch; None where that was not kept.
    """

    step: float
    kernels: float
    launch_gaps: float
    bubbles: float
    kernel_count: float | None
    launching: float | None = None

    @classmethod
    def of(
        cls,
        trace: Trace,
        steps: list[BatchDone],
        kernels: float,
        kernel_count: float | None,
        average: Callable[[Iterable[float]], float] = statistics.median,
    ) -> "Breakdown":
        """The breakdown of a run that has batches of decodes in a row.

        Args:
            trace: of the run.
            steps: of the run.
            kernels: seconds with a kernel running, of the widest batches of decodes.
            kernel_count: kernels in one of those batches, likewise.
            average: of what those batches took.

        Raises:
            EngineError: one of those batches was never on the GPU.
        """
        decodes = widest_decodes(steps)
        windows, bubbles = trace.batches(), trace.bubbles()
        for number in decodes:
            if number not in windows:
                raise EngineError(f"nothing was launched for batch {number}: what ran was for other batches")
        window = average(windows[number][1] - windows[number][0] for number in decodes)
        bubble = average(bubbles[number] for number in decodes)
        launching = average(trace.launching(number) for number in decodes)
        return cls(window + bubble, kernels, window - kernels, bubble, kernel_count, launching)

    @classmethod
    def simulated(cls, trace: Trace, steps: list[BatchDone]) -> "Breakdown":
        """The same of a run on the simulator, whose trace knows how long kernels run."""
        seconds: dict[int, float] = defaultdict(float)
        for span in trace.lane("compute"):
            seconds[span.batch_number] += span.kernels
        kernels = statistics.fmean(seconds[number] for number in widest_decodes(steps))
        return cls.of(trace, steps, kernels, None, statistics.fmean)

    def distance(self, measured: "Breakdown") -> float:
        """How far off the step is, or the part that differs most from the measured one's, as a share of that step."""
        return max(abs(getattr(self, part) - getattr(measured, part)) for part in PARTS) / measured.step


def decode_batches(steps: list[BatchDone]) -> list[int]:
    """Numbers of the batches of decodes that come between batches of decodes, or after one at the very end.

    The one after matters because from chapter 5 on it is launched before this one's tokens are taken in.
    """
    decode = [step.decodes for step in steps] + [True]
    return [number for number in range(1, len(steps)) if all(decode[number - 1 : number + 2])]


def widest_decodes(steps: list[BatchDone]) -> list[int]:
    """Those of `decode_batches` that have the most rows: at the end of a run, batches shrink as requests finish."""
    decodes = decode_batches(steps)
    most = max((steps[number].rows for number in decodes), default=0)
    return [number for number in decodes if steps[number].rows == most]


def typical_decodes(steps: list[BatchDone], count: int) -> range:
    """The numbers of so many batches in a row that stand for all of `widest_decodes`; fewer if there are not so many.

    A host can be slow for tens of batches on end, so they are those whose steps are nearest to the median; and kernels
    take longer as contexts grow, so they are from the middle half, if that has so many.

    Args:
        steps: of a run that has batches of decodes in a row.
        count: 1 or more.
    """
    decodes = widest_decodes(steps)
    took = {number: steps[number].time - steps[number - 1].time for number in range(1, len(steps))}
    median = statistics.median(took[number] for number in decodes)
    middle = decodes[len(decodes) // 4 : len(decodes) - len(decodes) // 4]
    among = middle if len(middle) >= count else decodes
    firsts = among[: max(len(among) - count + 1, 1)]
    windows = [range(first, min(first + count, decodes[-1] + 1)) for first in firsts]
    return min(windows, key=lambda window: statistics.fmean(abs(took[number] - median) for number in window))


def environment(device: Machine) -> dict[str, str]:
    """The machine, versions and date to store beside a figure."""
    facts = {
        "device": device.name,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    if device.kind == "cuda":
        facts |= {"cuda": str(torch.version.cuda), "driver": _driver(), "triton": version("triton")}
    return facts


def _driver() -> str:
    """The NVIDIA driver's version; torch knows only CUDA's."""
    with open("/proc/driver/nvidia/version") as file:
        return re.search(r"\d+\.\d+\.\d+", file.read()).group()


COMPARISON = {"command", "environment", "workload", "chapters"}  # what `acb compare` stores of a workload


def command() -> str:
    """The command line that is running: `acb`, or a script of docs/results."""
    script = Path(sys.argv[0]).resolve()
    program = f"python docs/results/{script.name}" if script.parent.name == "results" else "acb"
    return " ".join([program, *sys.argv[1:]])


def save(path: Path, name: str, entry: dict, keys: Collection[str] = COMPARISON) -> None:
    """Writes an entry to a file that may hold others of its kind.

    Args:
        path: the file.
        name: of the entry; one of that name is replaced.
        entry: what to store as JSON; it has all of `keys`.
        keys: what every entry of the file has.

    Raises:
        InputError: the file holds something else.
    """
    results = load(path, keys) if path.exists() else {}
    path.write_text(json.dumps(results | {name: entry}, indent=1) + "\n")


def load(path: Path, keys: Collection[str] = COMPARISON) -> dict[str, dict]:
    """The entries of a file that `save` wrote, by name.

    Raises:
        InputError: it is another file, or none.
    """
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results from {str(path)!r}: {error}") from error
    if not (isinstance(results, dict) and all(isinstance(e, dict) and set(keys) <= e.keys() for e in results.values())):
        raise InputError(f"{str(path)!r} holds no results of this kind: give a file that this command wrote")
    return results
