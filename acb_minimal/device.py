"""The seam between the shared parts and the machine they run on.

A slot's copies and a model's forward pass are device work; scheduling, writing and updating are host work. Both are
reported here. On a GPU there is little to do: device work runs on the current stream, host work takes the time it
takes. On the simulated one (sim.py) device work is queued and host work moves a virtual clock.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import torch

from .costs import Costs, Shape
from .queues import Choice, Observer, Tag
from .sim import SimulatedCuda
from .trace import ENGINES, Trace


class Work(Tag, Protocol):
    """What device work is for: the slot's name, the number of the batch it holds, and its shape. An IOSlot is that."""

    shape: Shape


class Device:
    """A CUDA GPU.

    torch_device  where tensors live
    cuda          what a chapter is handed as `cuda`
    arithmetic    whether forward passes compute anything; here they always do
    trace         what has happened since `begin`, if it was asked for; complete after `finish`
    """

    def __init__(self, trace: bool = False):
        self.torch_device = torch.device("cuda")
        self.arithmetic = True
        self.trace = Trace(self.name) if trace else None
        self.cuda = traced_cuda(self) if trace else torch.cuda
        self.captured: Work | None = None
        self._pending: list[tuple] = []  # device spans whose events have not been read yet

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
        if self.trace is not None:
            self.trace.spans.clear()
            self._pending.clear()
            self._zero, before = torch.cuda.Event(enable_timing=True), self.clock()
            self._zero.record()
            self._zero.synchronize()
            # The two clocks run at one rate. They are laid together here, to half the time this took.
            self._zero_time = (before + self.clock()) / 2
        return self.clock()

    def finish(self) -> None:
        """Waits until the device has nothing left to do, and completes the trace."""
        self.cuda.synchronize()
        for lane, name, start, end, *rest in self._pending:
            times = [self._zero_time + self._zero.elapsed_time(event) / 1e3 for event in (start, end)]
            self.trace.add(lane, name, *times, *rest)
        self._pending.clear()

    @contextmanager
    def launching(self, engine: str, name: str, work: Work | None):
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
        batch, slot = (work.batch, work.name) if work else (None, None)
        self.trace.add("CPU", name, launched, self.clock(), batch, slot)
        self._pending.append((ENGINES[engine], name, start, end, batch, slot, launched))

    @contextmanager
    def waiting(self):
        """Around what makes the host wait: notes how long."""
        start = self.clock()
        yield
        if self.trace is not None:
            self.trace.add("CPU", "wait", start, self.clock())

    def pinned(self, numel: int) -> torch.Tensor:
        """A host buffer that copies can run to and from beside the host: int32 [numel], zeros."""
        return torch.zeros(numel, dtype=torch.int32, pin_memory=True)

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None = None) -> None:
        """Names memory that host and device, or batch and batch, share: for who checks that they take turns.

        page_size  positions per page, of a KV cache
        """

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        """Copies on the current stream, engine "h2d" or "d2h"; the host waits unless `non_blocking`."""
        with self.launching(engine, COPIES[engine], work):
            target.copy_(source, non_blocking=True)
        if not non_blocking:  # all that a blocking copy from pinned memory is, but visible to the trace
            with self.waiting():
                torch.cuda.current_stream().synchronize()

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        """Launches `run` on the current stream: what is "forward" or "carry_over".

        work  what it is for; looked at again when a graph with it in it is replayed for another batch
        """
        with self.launching("compute", what, work):
            run()

    def spent(
        self,
        what: str,
        since: float,
        rows: int,
        batch: int | None = None,
        slot: str | None = None,
        reads: np.ndarray | None = None,
        writes: torch.Tensor | None = None,
    ) -> None:
        """Says that from `since` to now the host has done "schedule", "write", "fill" or "update" for `rows`, and which
        memory that copies run to or from it has read and written."""
        if self.trace is not None:
            self.trace.add("CPU", what, since, self.clock(), batch, slot)


COPIES = {"h2d": "upload", "d2h": "download"}


def traced_cuda(device: Device) -> SimpleNamespace:
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


class SimulatedDevice(Device):
    """The simulated GPU: CPU tensors stand for device memory, figures are simulated.

    costs       what things take; they move the virtual clock of the policy "timed"
    arithmetic  False for a model too large to compute here: then only time passes, and every token is 0
    observer    who looks on: see queues.Observer
    """

    def __init__(
        self,
        costs: Costs,
        policy: str | Choice = "timed",
        seed: int = 0,
        arithmetic: bool = True,
        trace: bool = False,
        observer: Observer | None = None,
    ):
        self.torch_device = torch.device("cpu")
        self.costs, self.arithmetic = costs, arithmetic
        self.trace = Trace(self.name) if trace else None
        self.cuda = SimulatedCuda(policy, seed, costs.replay_launch, costs.call, self.trace, observer)
        self._pinned: dict[int, torch.Tensor] = {}  # by address, kept alive: a freed address may be handed out again

    @property
    def name(self) -> str:
        return self.costs.gpu

    def clock(self) -> float:
        return self.cuda.now

    def begin(self) -> float:
        self.cuda.synchronize()
        self.cuda.finished.clear()
        if self.trace is not None:
            self.trace.spans.clear()
        return self.clock()

    def finish(self) -> None:
        self.cuda.synchronize()

    def pinned(self, numel: int) -> torch.Tensor:
        buffer = torch.zeros(numel, dtype=torch.int32)
        self._pinned[buffer.untyped_storage().data_ptr()] = buffer
        return buffer

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None = None) -> None:
        self.cuda.queues.observer.watch(name, memory, page_size)

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        host = source if engine == "h2d" else target
        # From pageable memory the driver copies through a buffer of its own, and the host waits for that.
        pinned = host.untyped_storage().data_ptr() in self._pinned
        self.cuda.submit(
            COPIES[engine],
            engine,
            lambda: target.copy_(source),
            lambda: self.costs.copy(engine, target.nbytes),
            self.costs.copy_launch,
            wait=not (non_blocking and pinned),
            tag=work,
        )

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        self.cuda.submit(
            what,
            "compute",
            run if self.arithmetic else lambda: None,
            lambda: self.costs.compute(what, work.shape),
            self.costs.launch(what, work.shape),
            gradual=True,
            tag=work,
        )

    def spent(
        self,
        what: str,
        since: float,
        rows: int,
        batch: int | None = None,
        slot: str | None = None,
        reads: np.ndarray | None = None,
        writes: torch.Tensor | None = None,
    ) -> None:
        self.cuda.queues.observer.touched(what, batch, slot, reads, writes)
        self.cuda.host(self.costs.host(what, rows))
        super().spent(what, since, rows, batch, slot)


class CpuDevice(SimulatedDevice):
    """The CPU as the device: all device work runs as soon as it may, and everything takes the time it takes."""

    def __init__(self):
        self.torch_device = torch.device("cpu")
        self.arithmetic = True
        self.trace = None
        self.cuda = SimulatedCuda("eager")

    name = "CPU"
    clock = Device.clock
    spent = Device.spent

    def pinned(self, numel: int) -> torch.Tensor:
        return torch.zeros(numel, dtype=torch.int32)

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        self.cuda.submit(COPIES[engine], engine, lambda: target.copy_(source), wait=not non_blocking)

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        self.cuda.submit(what, "compute", run)
