"""The engine's parts, timed from outside: each tells the machine it runs on what the host has done, and for how long.

The parts themselves know no clock. Here the scheduler and the slot are wrapped, so that a machine can take the time of
host work (a real one), let it pass (the simulated one), or look for races (the judge's).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

from ..device import CudaDevice, Device, Work
from ..kv_cache import PagePool
from ..model import Model
from ..request import Batch, Request
from ..scheduler import Scheduler
from ..sim.device import RealTime
from ..slot import Inputs, IOSlot
from ..trace.spans import Trace


class Machine(Device, Protocol):
    """A device with a clock, that is told what the host does.

    Attributes:
        kind: "cuda", a GPU; "sim", the simulated one; "cpu", where host and device are one.
        name: what to call it beside a figure.
        arithmetic: whether forward passes compute anything; if not, only time passes and every token is 0.
        trace: what has happened since `begin`, if it was asked for; complete after `finish`.
    """

    kind: Literal["cuda", "sim", "cpu"]
    name: str
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

    def wait(self, seconds: float) -> None:
        """Lets so much time pass; the host has nothing to do."""

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        """Says that since then the host has done "schedule", "write", "fill", "masks" or "update" for `rows`."""

    def host_view(self, memory: torch.Tensor) -> np.ndarray:
        """What the host reads and writes a buffer of `pinned` through: the same memory as a NumPy array."""

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None = None, work: Work | None = None) -> None:
        """Names memory that host and device, or batch and batch, share: for who checks that they take turns.

        Args:
            page_size: positions per page, of a KV cache.
            work: what the memory is for.
        """

    def engine_code(self) -> AbstractContextManager:
        """Around an engine's code, so that its own torch operations are device work as well."""


class BatchDone(NamedTuple):
    """A batch whose tokens have come back.

    Attributes:
        time: when, in seconds on the machine's clock.
        rows: of the batch, without padding.
        tokens: of the batch, without padding.
        decodes: whether it was a batch of decodes.
    """

    time: float
    rows: int
    tokens: int
    decodes: bool


class TimedScheduler(Scheduler):
    """A scheduler whose work is timed, and can be made to take longer.

    Attributes:
        done: the batches whose tokens have come back, in order.
        host_work: seconds of bookkeeping to add to the step of a batch of that number, for a host that has more to do
            than this one.
    """

    def __init__(
        self,
        pool: PagePool,
        max_running: int,
        max_batch_tokens: int,
        vocab_size: int,
        max_positions: int,
        device: Machine,
        host_work: Callable[[int], float] = lambda number: 0.0,
    ):
        super().__init__(pool, max_running, max_batch_tokens, vocab_size, max_positions)
        self.device, self.host_work = device, host_work
        self.done: list[BatchDone] = []

    def schedule(self) -> Batch | None:
        started, batch = self.device.clock(), super().schedule()
        if batch and (seconds := self.host_work(batch.number)):
            self.device.work(seconds)
        self.device.spent("schedule", started, len(batch.rows) if batch else 0, batch.number if batch else None)
        return batch

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        started, finished = self.device.clock(), super().update(batch, tokens)
        self.device.spent("update", started, len(batch.rows), batch.number)
        tokens_of_rows = batch.num_tokens - batch.padding
        self.done.append(BatchDone(self.device.clock(), len(batch.rows), tokens_of_rows, batch.decodes))
        return finished


class TimedSlot(IOSlot):
    """An I/O slot whose writes are timed, and whose buffers have names."""

    def __init__(self, *args):
        super().__init__(*args)
        self.host_inputs = Inputs.cut(self.device.host_view(self.host_buffer), self.size)
        self.token_view = self.device.host_view(self.host_tokens)
        for what, buffer in (
            ("pinned inputs", self.host_buffer),
            ("inputs", self.device_buffer),
            ("pinned outputs", self.host_tokens),
            ("outputs", self.device_tokens),
        ):
            self.device.watch(f"slot {self.name}'s {what}", buffer, work=self)

    def write(self, batch: Batch) -> None:
        started = self.device.clock()
        super().write(batch)
        self.device.spent("write", started, len(batch.rows) + batch.padding, batch.number, self.name)

    def fill(self) -> None:
        started = self.device.clock()
        super().fill()
        self.device.spent("fill", started, len(self.unknown), self.written.batch.number, self.name)


class TimedModel(Model):
    """A model whose slots are timed, and whose KV cache has a name in every layer."""

    slot_class = TimedSlot

    def __init__(self, *args):
        super().__init__(*args)
        for number, (keys, values) in enumerate(zip(self.cache.keys, self.cache.values, strict=True)):
            self.device.watch(f"the keys of layer {number}", keys, self.cache.page_size)
            self.device.watch(f"the values of layer {number}", values, self.cache.page_size)


class TimedCudaDevice(RealTime, CudaDevice):
    """A CUDA GPU and the host's clock. See Machine."""

    kind = "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name()
