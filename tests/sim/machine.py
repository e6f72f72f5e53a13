"""What the programs of the conformance tests run on: the real GPU, or the simulated one under a policy."""

import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from acb_minimal.device import CudaDevice
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.operations import Cost
from acb_minimal.sim.policies import named

SLOW = 0.1  # seconds: far longer than the host needs to queue the rest of a program
CYCLES = 200_000_000  # the same for a GPU of at most 2 GHz; a slower one is only slower
COSTS = SimpleNamespace(call=5e-6, replay_launch=20e-6, copy_launch=5e-6, copy=lambda engine, nbytes: 10e-6)


@functools.cache
def real_streams():
    """Three streams for all programs. More would in the end share a hardware queue, where one can hold up another."""
    return [torch.cuda.Stream() for _ in range(3)]


@functools.cache
def load_real_kernels():
    """A kernel is loaded at its first launch, which can make the whole GPU wait and so order what nothing orders."""
    data, other = torch.zeros(2, 1, dtype=torch.int32, device="cuda")
    host = torch.zeros(1, dtype=torch.int32, pin_memory=True)
    for stream in [torch.cuda.default_stream(), *real_streams()]:
        with torch.cuda.stream(stream):
            torch.cuda._sleep(1000)
            data.fill_(1).add_(1).mul_(2).copy_(other)
            data.copy_(host, non_blocking=True)
            host.copy_(data, non_blocking=True)
    torch.cuda.synchronize()


class Machine:
    """What a program runs on: "cuda" is the real GPU; the simulator goes by its policy, "random-3" has seed 3.

    Tensors are made before a program begins: an allocation can make the GPU wait.

    Attributes:
        data: on the device: [0].
        seen: pinned: [-1].
    """

    def __init__(self, name: str):
        self.policy, _, seed = name.partition("-")
        self.real = self.policy == "cuda"
        if self.real:
            load_real_kernels()
        self.device = CudaDevice() if self.real else SimulatedDevice(COSTS, named(self.policy, int(seed or 0)))
        self.cuda = self.device.cuda
        self.data, self.seen = self.device_tensor([0]), self.pinned([-1])

    def streams(self, number: int):
        return real_streams()[:number] if self.real else [self.cuda.Stream() for _ in range(number)]

    def device_tensor(self, values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=self.device.torch_device)

    def pageable(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32)

    def pinned(self, values: list[int]) -> torch.Tensor:
        return self.device.pinned(len(values)).copy_(self.pageable(values))

    def copy(self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = True) -> None:
        self.device.copy(engine, target, source, non_blocking)

    def compute(self, work) -> None:
        """Device work on the current stream."""
        if self.real:
            work()
        else:
            self.device.simulator.submit("compute", "compute", work, lambda: Cost(1e-5))

    def slow(self) -> None:
        """Device work on the current stream that does nothing, for SLOW seconds."""
        if self.real:
            torch.cuda._sleep(CYCLES)
        else:
            self.device.simulator.submit("slow", "compute", lambda: None, lambda: Cost(SLOW))

    def write(self, stream) -> None:
        """In that stream: slow work, and then data is 1."""
        with self.cuda.stream(stream):
            self.slow()
            self.compute(lambda: self.data.fill_(1))

    def read(self, stream) -> list[int]:
        """Copies data to the host in that stream, and waits for it: what has arrived."""
        with self.cuda.stream(stream):
            self.copy("d2h", self.seen, self.data)
        stream.synchronize()
        return self.seen.tolist()

    def capture(self, *works, pool=None):
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph, pool=pool):
            for work in works:
                self.compute(work)
        return graph


SIMULATED = ["timed", "lazy", "eager", *(f"random-{seed}" for seed in range(8))]
EVERYWHERE = [*SIMULATED, pytest.param("cuda", marks=pytest.mark.gpu)]


def in_a_process_of_its_own(run, name: str, *args):
    """What `run` says of a machine: on a GPU in a process of its own, for PyTorch does not put back the stream and the
    memory pool of a capture that failed."""
    if name != "cuda":
        return run(name, *args)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(run, name, *args).result()
