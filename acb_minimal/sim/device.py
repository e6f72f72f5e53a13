"""The devices that need no GPU: the simulated one, and the CPU by itself. Both are machines (run/timed.py)."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from ..device import Work
from ..trace.spans import COPIES, SWAPS, Trace
from .costs import Costs, Shape
from .cuda import SimulatedCuda
from .engine_code import engine_code
from .memory import PINNED, HostView, Places
from .operations import Cost, Observer
from .policies import Eager, Timed
from .simulator import Policy, Simulator


class SimulatedDevice:
    """The simulated GPU: CPU tensors stand for device memory, figures are simulated. See timed.Machine.

    Attributes:
        costs: what things take; they move the virtual clock of the policy Timed.
        places: memory that it knows as pinned, or as the device's.
        simulator: what is behind `cuda`.
    """

    kind = "sim"

    def __init__(
        self,
        costs: Costs,
        policy: Policy | None = None,
        arithmetic: bool = True,
        trace: bool = False,
        observer: Observer | None = None,
    ):
        """By default queued work runs in the order of virtual time. No arithmetic: for a model too large to compute
        here. `trace`: whether to record what happens."""
        self.torch_device = torch.device("cpu")
        self.costs, self.arithmetic = costs, arithmetic
        self.trace = Trace(self.name) if trace else None
        self.simulator = Simulator(policy or Timed(), costs.replay_launch, costs.call, self.trace, observer)
        self.cuda = SimulatedCuda(self.simulator)
        self._observed = observer is not None
        self.places = Places()

    @property
    def name(self) -> str:
        return self.costs.gpu

    def clock(self) -> float:
        return self.simulator.now

    def begin(self) -> float:
        self.cuda.synchronize()
        if self.trace is not None:
            self.trace.spans.clear()
        return self.clock()

    def finish(self) -> None:
        self.cuda.synchronize()

    def work(self, seconds: float) -> None:
        self.simulator.host(seconds)

    def wait(self, seconds: float) -> None:
        self.simulator.host(seconds)

    def pinned(self, numel: int) -> torch.Tensor:
        buffer = torch.zeros(numel, dtype=torch.int32)
        self.places.add(buffer, PINNED)
        return buffer

    def host_view(self, memory: torch.Tensor) -> np.ndarray:
        return HostView.of(memory.numpy(), self.simulator.observer) if self._observed else memory.numpy()

    def engine_code(self) -> AbstractContextManager:
        return engine_code(self)

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None = None, work: Work | None = None) -> None:
        self.places.add(memory, work=work)
        self.simulator.observer.watch(name, memory, page_size)

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        host = source if engine == "h2d" else target
        # From pageable memory the driver copies through a buffer of its own, and the host waits for that.
        pinned = self.places.kind(host) == PINNED
        if non_blocking and not pinned:
            self.simulator.none_in_capture("copy pageable memory")
        run, cost = lambda: target.copy_(source), lambda: Cost(self.costs.copy(engine, target.nbytes))
        wait = not (non_blocking and pinned)
        self.simulator.submit(COPIES[engine], engine, run, cost, self.costs.copy_launch, wait=wait, work=work)

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers)

    def swap(self, engine: str, run: Callable[[], None], nbytes: int, calls: int) -> None:
        run = run if self.arithmetic else lambda: None
        cost = lambda: Cost(self.costs.copy(engine, nbytes))  # noqa: E731
        self.simulator.submit(SWAPS[engine], engine, run, cost, calls * self.costs.copy_launch)

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        self.simulator.submit(
            what,
            "compute",
            run if self.arithmetic else lambda: None,
            lambda: self.costs.compute(what, Shape.of(work.batch)),
            self.costs.launch(what, Shape.of(work.batch)),
            gradual=True,
            work=work,
            graph_cost=lambda: self.costs.compute(what, Shape.of(work.batch), graph=True),
        )

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        self.simulator.observer.did(what, batch_number, slot)
        self.simulator.host(self.costs.host(what, rows))
        if self.trace is not None:
            self.trace.add("CPU", what, since, self.clock(), batch_number, slot)


class RealTime:
    """A machine on which work takes the time it takes: all of timed.Machine but what device work is.

    Attributes:
        cuda: what a chapter is handed.
    """

    arithmetic = True
    trace = None

    def clock(self) -> float:
        return time.perf_counter()

    def begin(self) -> float:
        self.cuda.synchronize()
        return self.clock()

    def finish(self) -> None:
        self.cuda.synchronize()

    def work(self, seconds: float) -> None:
        until = self.clock() + seconds
        while self.clock() < until:  # busily: asleep, the host would give its core away and come back late
            pass

    def wait(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0))

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        """Nobody asks."""

    def host_view(self, memory: torch.Tensor) -> np.ndarray:
        return memory.numpy()

    def watch(self, name: str, memory: torch.Tensor, page_size: int | None = None, work: Work | None = None) -> None:
        """Nobody looks on."""

    def engine_code(self) -> AbstractContextManager:
        return nullcontext()  # a GPU's operations are torch's own, and of a CPU host and device are one


class CpuDevice(RealTime):
    """The CPU as the device: all device work runs as soon as it may. See timed.Machine."""

    kind = "cpu"
    name = "CPU"

    def __init__(self):
        self.torch_device = torch.device("cpu")
        self.simulator = Simulator(Eager())
        self.cuda = SimulatedCuda(self.simulator)

    def pinned(self, numel: int) -> torch.Tensor:
        return torch.zeros(numel, dtype=torch.int32)

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        self.simulator.submit(COPIES[engine], engine, lambda: target.copy_(source), wait=not non_blocking)

    def index(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers)

    def swap(self, engine: str, run: Callable[[], None], nbytes: int, calls: int) -> None:
        self.simulator.submit(SWAPS[engine], engine, run)

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        self.simulator.submit(what, "compute", run)
