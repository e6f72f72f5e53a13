"""What a run measured, the machine it was measured on, and the file that keeps both."""

import datetime
import json
import platform
import re
import statistics
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ..errors import InputError
from ..run.session import Session
from ..run.timed import Machine
from ..trace.steps import typical_decodes


@dataclass(frozen=True)
class Metrics:
    """The figures of one run, of all its requests together.

    Attributes:
        seconds: from the first batch being scheduled to the last one's tokens being on the host.
        steps: batches.
        tokens_per_second: new tokens over `seconds`.
        ms_per_step: `seconds` over all batches, those with prefill included.
        ms_per_decode_step: median time from one batch's tokens to the next one's, over the typical decodes
            (trace/steps.py); None if there are none.
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
        decodes = [steps[number].time - steps[number - 1].time for number in typical_decodes(steps)]
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
        known = Path("/proc/driver/nvidia/version").read_text()  # torch knows only CUDA's
        driver = re.search(r"\d+\.\d+\.\d+", known)[0]
        facts |= {"cuda": str(torch.version.cuda), "driver": driver, "triton": version("triton")}
    return facts


COMPARISON = {"command", "environment", "workload", "chapters"}  # what `acb compare` stores of a workload


def command() -> str:
    """The command line that is running: `acb`, or a script of docs/results."""
    script = Path(sys.argv[0]).resolve()
    program = f"python docs/results/{script.name}" if script.parent.name == "results" else "acb"
    return " ".join([program, *sys.argv[1:]])


def save(path: Path, name: str, entry: dict, keys: Collection[str] = COMPARISON) -> None:
    """Writes an entry as JSON to a file that may hold others of its kind; one of that name is replaced.

    Args:
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
