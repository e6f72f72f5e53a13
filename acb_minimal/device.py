"""The seam between the shared parts and the machine they run on, and the machine it is for: a CUDA GPU.

A slot's copies and a model's forward pass are device work; scheduling, writing and updating are host work. Both are
reported here. On a GPU there is little to do: device work runs on the current stream, host work takes the time it
takes. The devices that need no GPU (sim/device.py) queue device work, or run it at once.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import numpy as np
import torch

from .clocks import host_times, moment
from .request import Batch
from .trace.spans import ENGINES, Trace

COPIES = {"h2d": "upload", "d2h": "download"}


class Work(Protocol):
    """What device work is for. An IOSlot is that.

    Attributes:
        name: the slot's letter.
        batch: what the slot holds; None before anything is written to it.
    """

    name: str
    batch: Batch | None


class Device(Protocol):
    """Where an engine runs.

    Attributes:
        kind: "cuda", a GPU; "sim", the simulated one; "cpu", where host and device are one.
        name: what to call it beside a figure.
        torch_device: where tensors live.
        cuda: what a chapter is handed as `cuda`: the names of torch.cuda.
        arithmetic: whether forward passes compute anything; if not, only time passes and every token is 0.
        trace: what has happened since `begin`, if it was asked for; complete after `finish`.
    """

    kind: Literal["cuda", "sim", "cpu"]
    name: str
    torch_device: torch.device
    cuda: Any
    arithmetic: bool
    trace: Trace | None

    def clock(self) -> float:
        """Host time in seconds."""

    def begin(self) -> float:
        """Waits until the device has nothing left to do, forgets what it did before, and returns the clock."""

    def finish(self) -> None:
        """Waits until the device has nothing left to do, and completes the trace."""

    def work(self, seconds: float) -> None:
        """Keeps the host busy for so long."""

    def pinned(self, numel: int) -> torch.Tensor:
        """A host buffer that copies can run to and from beside the host: int32 [numel], zeros."""

    def host_view(self, memory: torch.Tensor) -> np.ndarray:
        """What the host reads and writes a buffer of `pinned` through: the same memory as a NumPy array."""

    def engine_code(self) -> AbstractContextManager:
        """Around an engine's code, so that its own torch operations are device work as well."""

    def watch(
        self, name: str, memory: torch.Tensor, page_size: int | None = None, work: Work | None = None
    ) -> None:
        """Names memory that host and device, or batch and batch, share: for who checks that they take turns.

        Args:
            page_size: positions per page, of a KV cache.
            work: what the memory is for.
        """

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        """Copies on the current stream, engine "h2d" or "d2h"; the host waits unless `non_blocking`."""

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        """Launches device work on the current stream.

        Args:
            what: "forward" or "carry_over".
            work: what it is for; looked at again when a graph with it in it is replayed for another batch.
            run: the work itself.
        """

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        """Says that from `since` to now the host has done "schedule", "write", "fill" or "update" for `rows`."""


class CudaDevice:
    """A CUDA GPU. See Device.

    Attributes:
        captured: what the work of the graph that is being captured is for.
    """

    kind = "cuda"
    arithmetic = True

    def __init__(self, trace: bool = False):
        self.torch_device = torch.device("cuda")
        self.trace = Trace(self.name) if trace else None
        self.cuda = traced_cuda(self) if trace else torch.cuda
        self.captured: Work | None = None
        self._pending: list[tuple] = []  # device spans whose events have not been read yet

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name()

    def clock(self) -> float:
        return time.perf_counter()

    def begin(self) -> float:
        self.cuda.synchronize()
        if self.trace is not None:
            self.trace.spans.clear()
            self._pending.clear()
            self._began = moment(self.clock)
        return self.clock()

    def finish(self) -> None:
        self.cuda.synchronize()
        if not self._pending:
            return
        events = [event for span in self._pending for event in span[2:4]]
        times = iter(host_times(self._began, moment(self.clock), events))
        for lane, name, _, _, *rest in self._pending:
            self.trace.add(lane, name, next(times), next(times), *rest)
        self._pending.clear()

    @contextmanager
    def launching(self, engine: str, name: str, work: Work | None) -> Iterator[None]:
        """Around the launch of device work on the current stream: notes when it is launched and when it runs."""
        if self.trace is None or torch.cuda.is_current_stream_capturing():
            self.captured = work
            yield
            return
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        launched = self.clock()
        start.record()
        yield
        end.record()
        batch_number, slot = (number_of(work), work.name) if work else (None, None)
        self.trace.add("CPU", name, launched, self.clock(), batch_number, slot)
        self._pending.append((ENGINES[engine], name, start, end, batch_number, slot, launched))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what makes the host wait: notes how long."""
        start = self.clock()
        yield
        if self.trace is not None:
            self.trace.add("CPU", "wait", start, self.clock())

    def work(self, seconds: float) -> None:
        spin(seconds)

    def pinned(self, numel: int) -> torch.Tensor:
        return torch.zeros(numel, dtype=torch.int32, pin_memory=True)

    def host_view(self, memory: torch.Tensor) -> np.ndarray:
        return memory.numpy()

    def engine_code(self) -> AbstractContextManager:
        return nullcontext()  # torch sees to it

    def watch(
        self, name: str, memory: torch.Tensor, page_size: int | None = None, work: Work | None = None
    ) -> None:
        """A GPU tells nobody who touches its memory."""

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        with self.launching(engine, COPIES[engine], work):
            target.copy_(source, non_blocking=True)
        if not non_blocking:  # all that a blocking copy from pinned memory is, but visible to the trace
            with self.waiting():
                torch.cuda.current_stream().synchronize()

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        with self.launching("compute", what, work):
            run()

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        if self.trace is not None:
            self.trace.add("CPU", what, since, self.clock(), batch_number, slot)


def spin(seconds: float) -> None:
    """Keeps a real host busy: asleep, it would give its core away and come back late."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def number_of(work: Work | None) -> int | None:
    """The number of the batch that work is for, as it is now; None without one."""
    return work.batch.number if work is not None and work.batch is not None else None


def traced_cuda(device: CudaDevice) -> SimpleNamespace:
    """torch.cuda for a chapter, with word to the device of what does not come by it: waits and replays."""

    class Event(torch.cuda.Event):
        def synchronize(self) -> None:
            with device.waiting():
                super().synchronize()

    class Stream(torch.cuda.Stream):
        def synchronize(self) -> None:
            with device.waiting():
                super().synchronize()

    class CUDAGraph(torch.cuda.CUDAGraph):
        def capture_end(self) -> None:
            super().capture_end()
            self.work = device.captured

        def replay(self) -> None:
            with device.launching("compute", "replay", self.work):
                super().replay()

    return SimpleNamespace(**{**vars(torch.cuda), "Event": Event, "Stream": Stream, "CUDAGraph": CUDAGraph})
