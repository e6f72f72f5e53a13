"""The seam between the shared parts and the machine they run on.

A slot's copies and a model's forward pass are device work; scheduling, writing and updating are host work. Both are
reported here. On a GPU there is little to do: device work runs on the current stream, host work takes the time it
takes. On the simulated one (sim.py) device work is queued and host work moves a virtual clock.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import torch

from .costs import Costs, Shape
from .sim import SimulatedCuda


class Device:
    """A CUDA GPU.

    torch_device  where tensors live
    cuda          what a chapter is handed as `cuda`
    arithmetic    whether forward passes compute anything; here they always do
    timing        record when each batch begins and ends on the GPU, for `busy`
    """

    def __init__(self, timing: bool = False):
        self.torch_device = torch.device("cuda")
        self.arithmetic = True
        self.timing = timing
        self.cuda = _timed_cuda(self) if timing else torch.cuda
        self._windows: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def name(self) -> str:
        """What to call it beside a figure."""
        return torch.cuda.get_device_name()

    def clock(self) -> float:
        """Host time in seconds."""
        return time.perf_counter()

    def begin(self) -> float:
        """Waits until the device has nothing left to do, forgets what it did before, and returns the clock."""
        self.cuda.synchronize()
        self._windows.clear()
        return self.clock()

    def busy(self) -> float | None:
        """Share of time, 0 to 1, in which a batch was on the GPU, from the first one's begin to the last one's end;
        both ends are on the GPU's clock. None if this device does not tell.

        What is missing from 1 are the bubbles between batches. Gaps inside a batch, where the GPU waits for the
        launch of its next kernel, count as busy here.
        """
        if not self._windows:
            return None
        first = self._windows[0][1]
        spans = [(what, first.elapsed_time(start), first.elapsed_time(end)) for what, start, end in self._windows]
        return _busy_share(spans)

    @contextmanager
    def window(self, what: str):
        """Around device work of a batch: notes when it begins and ends, if `timing`."""
        if not self.timing or torch.cuda.is_current_stream_capturing():
            yield
            return
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        end.record()
        self._windows.append((what, start, end))

    def pinned(self, numel: int) -> torch.Tensor:
        """A host buffer that copies can run to and from beside the host: int32 [numel], zeros."""
        return torch.zeros(numel, dtype=torch.int32, pin_memory=True)

    def copy(self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
        """Copies on the current stream, engine "h2d" or "d2h"; the host waits unless `non_blocking`."""
        target.copy_(source, non_blocking=non_blocking)

    def compute(self, what: str, shape: Callable[[], Shape], work: Callable[[], None]) -> None:
        """Launches `work` on the current stream: what is "forward" or "carry_over".

        shape  of the batch it is for; asked again when a graph with this work in it is replayed for another
        """
        with self.window(what):
            work()

    def spent(self, what: str, rows: int) -> None:
        """Says that the host has just done "schedule", "write", "fill" or "update" for a batch of `rows`."""


def _timed_cuda(device: Device) -> SimpleNamespace:
    """torch.cuda for a chapter, but that a replayed graph is timed: its work does not come by `Device.compute`."""

    class CUDAGraph(torch.cuda.CUDAGraph):
        def replay(self) -> None:
            with device.window("replay"):
                super().replay()

    return SimpleNamespace(**{**vars(torch.cuda), "CUDAGraph": CUDAGraph})


def _busy_share(spans: list[tuple[str, float, float]]) -> float:
    """Share of the time from the first span's start to the last one's end that is not between two batches."""
    bubbles = sum(
        start - end
        for (what, _, end), (_, start, _) in pairwise(spans)
        if what != "carry_over"  # the forward pass that follows it is of the same batch
    )
    return 1 - bubbles / (spans[-1][2] - spans[0][1])


class SimulatedDevice(Device):
    """The simulated GPU: CPU tensors stand for device memory, figures are simulated.

    costs       what things take; they move the virtual clock of the policy "timed"
    arithmetic  False for a model too large to compute here: then only time passes, and every token is 0
    """

    def __init__(self, costs: Costs, policy: str = "timed", seed: int = 0, arithmetic: bool = True):
        self.torch_device = torch.device("cpu")
        self.cuda = SimulatedCuda(policy, seed, costs.replay_launch, costs.call)
        self.costs, self.arithmetic = costs, arithmetic
        self._pinned: dict[int, torch.Tensor] = {}  # by address, kept alive: a freed address may be handed out again

    @property
    def name(self) -> str:
        return self.costs.gpu

    def clock(self) -> float:
        return self.cuda.now

    def begin(self) -> float:
        self.cuda.synchronize()
        self.cuda.finished.clear()
        return self.clock()

    def busy(self) -> float | None:
        if self.cuda.policy != "timed":
            return None  # the other policies know no durations
        return _busy_share([(op.what, op.start, op.end) for op in self.cuda.finished if op.engine == "compute"])

    def pinned(self, numel: int) -> torch.Tensor:
        buffer = torch.zeros(numel, dtype=torch.int32)
        self._pinned[buffer.untyped_storage().data_ptr()] = buffer
        return buffer

    def copy(self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
        host = source if engine == "h2d" else target
        # From pageable memory the driver copies through a buffer of its own, and the host waits for that.
        pinned = host.untyped_storage().data_ptr() in self._pinned
        self.cuda.submit(
            "upload" if engine == "h2d" else "download",
            engine,
            lambda: target.copy_(source),
            lambda: self.costs.copy(engine, target.nbytes),
            self.costs.copy_launch,
            wait=not (non_blocking and pinned),
        )

    def compute(self, what: str, shape: Callable[[], Shape], work: Callable[[], None]) -> None:
        self.cuda.submit(
            what,
            "compute",
            work if self.arithmetic else lambda: None,
            lambda: self.costs.compute(what, shape()),
            self.costs.launch(what, shape()),
            gradual=True,
        )

    def spent(self, what: str, rows: int) -> None:
        self.cuda.host(self.costs.host(what, rows))


class CpuDevice(SimulatedDevice):
    """The CPU as the device: all device work runs as soon as it may, and everything takes the time it takes."""

    def __init__(self):
        self.torch_device = torch.device("cpu")
        self.cuda = SimulatedCuda("eager")
        self.arithmetic = True

    name = "CPU"
    clock = Device.clock

    def pinned(self, numel: int) -> torch.Tensor:
        return torch.zeros(numel, dtype=torch.int32)

    def copy(self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
        self.cuda.submit(engine, engine, lambda: target.copy_(source), wait=not non_blocking)

    def compute(self, what: str, shape: Callable[[], Shape], work: Callable[[], None]) -> None:
        self.cuda.submit(what, "compute", work)

    def spent(self, what: str, rows: int) -> None:
        pass
