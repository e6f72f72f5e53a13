"""Where device work goes: pinned memory, copies, and work that is launched on the current stream.

A slot's copies and a model's forward pass are device work. On a CUDA GPU there is nothing to it: torch runs them on the
current stream. The devices that need no GPU (sim/device.py) queue them, or run them at once. Whoever wants to know what
ran when wraps a device (run/timed.py); nothing here does.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch

from .request import Batch


class Work(Protocol):
    """What device work is for. An IOSlot is that.

    Attributes:
        name: the slot's letter.
        batch: what the slot holds; None before anything is written to it.
    """

    name: str
    batch: Batch | None


class Device(Protocol):
    """Where an engine's parts run.

    Attributes:
        torch_device: where tensors live.
        cuda: what a chapter is handed as `cuda`: the names of torch.cuda.
    """

    torch_device: torch.device
    cuda: Any

    def pinned(self, numel: int) -> torch.Tensor:
        """A host buffer that can be copied from and to while the host goes on: int32 [numel], zeros."""

    def copy(
        self,
        engine: Literal["h2d", "d2h"],
        target: torch.Tensor,
        source: torch.Tensor,
        non_blocking: bool,
        work: Work | None = None,
    ) -> None:
        """Copies on the current stream, by one of the two copy engines; the host waits unless `non_blocking`."""

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        """Takes numbers to the device, on the current stream: int64. The host does not wait."""

    def swap(self, engine: Literal["h2d", "d2h"], run: Callable[[], None], nbytes: int, calls: int) -> None:
        """Launches copies of KV pages on the current stream; the host does not wait.

        Args:
            run: the copies themselves.
            nbytes: of them all.
            calls: how many the host makes to launch them.
        """

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        """Launches device work on the current stream.

        Args:
            what: "forward" or "carry_over"; "count", "logits" or "sample", where these are by themselves.
            work: what it is for; looked at again when a graph with it in it is replayed for another batch.
            run: the work itself.
        """


class CudaDevice:
    """A CUDA GPU. See Device."""

    def __init__(self):
        self.torch_device, self.cuda = torch.device("cuda"), torch.cuda

    def pinned(self, numel: int) -> torch.Tensor:
        return torch.zeros(numel, dtype=torch.int32, pin_memory=True)

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        target.copy_(source, non_blocking=non_blocking)

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        # Pinned memory of its own, which torch does not hand out again before the copy is done.
        return torch.tensor(numbers).pin_memory().to(self.torch_device, non_blocking=True)

    def swap(self, engine: str, run: Callable[[], None], nbytes: int, calls: int) -> None:
        run()

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        run()
