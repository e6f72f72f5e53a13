"""What a run measured, and the machine it was measured on."""

import datetime
import platform
import re
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise

import torch

from .device import Device
from .scheduler import Step


@dataclass(frozen=True)
class Figures:
    """The figures of one run.

    seconds             from the first batch being scheduled to the last one's tokens being on the host
    ms_per_step         `seconds` over all batches, those with prefill included
    ms_per_decode_step  median time from one batch's tokens to the next one's, over batches of decodes only; None if
                        there were fewer than two in a row
    gpu_busy            Trace.busy: 1 less the share of bubbles; None without a trace
    """

    requests: int
    prompt_tokens: int
    new_tokens: int
    seconds: float
    steps: int
    tokens_per_second: float
    ms_per_step: float
    ms_per_decode_step: float | None
    gpu_busy: float | None

    @classmethod
    def of(
        cls,
        requests: int,
        prompt_tokens: int,
        new_tokens: int,
        started: float,
        steps: list[Step],
        gpu_busy: float | None = None,
    ) -> "Figures":
        """`started` is on the clock of `steps`, which are in order and not empty."""
        seconds = steps[-1].time - started
        decodes = [
            after.time - before.time
            for before, after in pairwise(steps)
            if before.rows == before.tokens and after.rows == after.tokens
        ]
        return cls(
            requests,
            prompt_tokens,
            new_tokens,
            seconds,
            len(steps),
            new_tokens / seconds,
            1e3 * seconds / len(steps),
            1e3 * statistics.median(decodes) if decodes else None,
            gpu_busy,
        )

    def usd_per_million_tokens(self, gpu_hour_price: float) -> float:
        """Cost of a million generated tokens at `gpu_hour_price` USD per hour of this machine."""
        return gpu_hour_price / 3600 / self.tokens_per_second * 1e6


def environment(device: Device) -> dict[str, str]:
    """The machine, versions and date to store beside a figure."""
    facts = {
        "device": device.name,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    if device.torch_device.type == "cuda":
        facts |= {"cuda": str(torch.version.cuda), "driver": _driver(), "triton": version("triton")}
    return facts


def _driver() -> str:
    """The NVIDIA driver's version; torch knows only CUDA's."""
    with open("/proc/driver/nvidia/version") as file:
        return re.search(r"\d+\.\d+\.\d+", file.read()).group()
