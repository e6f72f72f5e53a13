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
        """Names memory that host and device, or batch and batch, share: for who checks that they take turns. A KV cache
        has a page size, in positions; `work` is what the memory is for."""

    def engine_code(self) -> AbstractContextManager:
        """Around an engine's code, so that its own torch operations are device work as well."""


class BatchDone(NamedTuple):
    """A batch whose tokens have come back: when, in seconds on the machine's clock; its rows and tokens, without
    padding; whether it was of decodes."""

    time: float
    rows: int
    tokens: int
    decodes: bool


class TimedScheduler(Scheduler):
    """A scheduler whose work is timed, and can be made to take longer: by `host_work` seconds in the step of a batch of
    that number, for a host that has more bookkeeping to do than this one. It notes which batches are `done`."""

    def __init__(self, *args, device: Machine, host_work: Callable[[int], float] = lambda number: 0.0):
        super().__init__(*args)
        self.device, self.host_work = device, host_work
        self.done: list[BatchDone] = []

    def schedule(self) -> Batch | None:
        started, batch = self.device.clock(), super().schedule()
        if batch and (seconds := self.host_work(batch.number)):
            self.device.work(seconds)
        self.device.spent("schedule", started, len(batch.rows) if batch else 0, batch.number if batch else None)
        return batch

    def update(self, batch: Batch, tokens: np.ndarray) -> list[Request]:
        started, finished, rows = self.device.clock(), super().update(batch, tokens), len(batch.rows)
        self.device.spent("update", started, rows, batch.number)
        self.done.append(BatchDone(self.device.clock(), rows, batch.num_tokens - batch.padding, batch.decodes))
        return finished


class TimedSlot(IOSlot):
    """A slot whose writes are timed."""

    def write(self, batch: Batch) -> None:
        started = self.device.clock()
        super().write(batch)
        self.device.spent("write", started, len(batch.rows) + batch.padding, batch.number, self.name)

    def fill(self) -> None:
        started = self.device.clock()
        super().fill()
        self.device.spent("fill", started, len(self.unknown), self.written.batch.number, self.name)


class TimedMasks:
    """The outermost part of a slot with masks, whose writing is timed and can be made to take longer: by `mask_work`
    seconds for a batch of that number."""

    mask_work: Callable[[int], float] = staticmethod(lambda number: 0.0)

    def write_masks(self) -> None:
        started, batch = self.device.clock(), self.written.batch
        super().write_masks()
        if batch.rows and (seconds := self.mask_work(batch.number)):
            self.device.work(seconds)
        self.device.spent("masks", started, len(batch.sampled), batch.number, self.name)


# What a model may have on the device besides its KV cache.
MEMORY = {"scores": "the scores", "history": "the tokens so far", "lengths": "how many tokens there are"}
# What the host reads and writes a slot's pinned memory through.
VIEWS = {"outputs": "token_view", "masks": "mask_view", "settings": "settings_view", "states": "state_view",
         "rows": "row_view"}  # fmt: skip


class TimedModel(Model):
    """A model whose slots are timed, and whose memory has names, in the slots, too."""

    slot_class = TimedSlot

    def __init__(self, *args):
        super().__init__(*args)
        for number, both in enumerate(zip(self.cache.keys, self.cache.values, strict=True)):
            for what, memory in zip(("keys", "values"), both, strict=True):
                self.device.watch(f"the {what} of layer {number}", memory, self.cache.page_size)
        for attribute, name in MEMORY.items():
            if hasattr(self, attribute):
                self.device.watch(name, getattr(self, attribute))

    def new_state(self):
        """As SamplingModel has it, if it is one."""
        state = super().new_state()
        self.device.watch("the counts", state)
        return state

    def make_slot(self, name: str) -> IOSlot:
        slot = super().make_slot(name)
        memories = {name: each for name, each in vars(slot).items() if isinstance(each, torch.Tensor)}
        for attribute, memory in memories.items():
            side, _, what = attribute.rpartition("_")
            what = {"buffer": "inputs", "tokens": "outputs"}.get(what, what)
            self.device.watch(f"slot {name}'s {'pinned ' if side == 'host' else ''}{what}", memory, work=slot)
            if side == "host" and what in VIEWS:
                setattr(slot, VIEWS[what], self.device.host_view(memory))
        slot.host_inputs = Inputs.cut(self.device.host_view(slot.host_buffer), slot.size)
        return slot


def composed(*kinds: type, **attributes) -> type:
    """One class of several, the outermost first."""
    return type(kinds[0].__name__, bases(*kinds), attributes)


def bases(*kinds: type) -> tuple[type, ...]:
    """Those that no other among them is derived from: it has them as bases already."""
    return tuple(kind for kind in kinds if not any(kind in other.__mro__[1:] for other in kinds))


def timed(*kinds: type[Model]) -> type[TimedModel]:
    """A kind of model, composed of these, that is timed, as its slots are."""
    if kinds == (Model,):
        return TimedModel
    slot = composed(*kinds).slot_class
    # All that a slot writes is in its time; but masks have a time of their own, and a write may write them.
    parts = (TimedMasks, slot, TimedSlot) if hasattr(slot, "write_masks") else (TimedSlot, slot)
    return composed(TimedModel, *kinds, slot_class=composed(*parts))


class TimedCudaDevice(RealTime, CudaDevice):
    """A CUDA GPU and the host's clock. See Machine."""

    kind = "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name()
