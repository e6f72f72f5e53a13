"""How close a decode step comes to the floor that memory sets: what it must read, and how fast it is read.

A step of decodes does so little arithmetic with each weight, and with each key and value, that reading them once is
what it cannot do without. Over the rate of a plain sum, measured in the same run, that makes the floor of a step. What
it reads falls to two groups of kernels; the rest work on activations that have not left the GPU's cache.

    attention   every key and value of every row: rows * positions * 2 * kv_heads * head_dim, in every layer
    GEMMs       every weight and bias of a linear, once
    rest        nothing that counts: norms, rotary embedding, activation function, sampling

Left out is what GEMMs and attention read and write besides: activations, of a size with rows * hidden_size.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from ..errors import InputError
from ..kv_cache import AttentionLayer
from ..run.checkpoint import Checkpoint
from ..run.fuse import fuse
from ..run.timed import TimedCudaDevice
from .calibrate import ready_model, written
from .metrics import environment
from .parts import gpu_seconds, reading_rate
from .result_table import ResultTable

ATTENTION, GEMMS, REST = "attention", "GEMMs", "rest"
ATTENTION_KERNELS = {"write_kernel", "attend_kernel", "merge_kernel"}  # of attention_triton.py
# cuBLAS's and CUTLASS's names, with those of what adds up the parts of a product that was split, and Inductor's own.
GEMM_KERNELS = re.compile(r"nvjet|gemm|gemv|cutlass|splitk|triton_tem_", re.IGNORECASE)
REPLAYS = 5  # under the profiler


class Case(NamedTuple):
    """Batches of decodes to measure.

    Attributes:
        name: a workload's.
        model: its name.
        rows: of the batch.
        contexts: positions of each row, in turn.
    """

    name: str
    model: str
    rows: int
    contexts: tuple[int, ...]


CASES = (
    Case("long", "llama-3.1-8b", 32, (512, 4096, 8000)),
    Case("small", "llama-3.2-1b", 128, (1152,)),  # half of the new tokens are there
    Case("wide", "llama-3.1-8b", 384, (1024,)),
    Case("long", "qwen3-8b", 32, (4096,)),
)


class Kernel(NamedTuple):
    """A kernel that ran.

    Attributes:
        name: as torch's profiler gives it.
        seconds: how long it ran.
    """

    name: str
    seconds: float


class Step(NamedTuple):
    """A decode step, measured.

    Attributes:
        case: what it is of.
        context: positions of each row.
        compiled: whether the model was.
        bytes: by group, those it must read.
        kernels: those of REPLAYS steps.
        seconds: of one step, replayed as a graph without a profiler.
        rate: bytes per second that a plain sum reads.
    """

    case: Case
    context: int
    compiled: bool
    bytes: dict[str, int]
    kernels: list[Kernel]
    seconds: float
    rate: float

    @property
    def floor(self) -> float:
        """Seconds that reading takes at the rate of a plain sum."""
        return sum(self.bytes.values()) / self.rate

    def rows(self) -> list[list]:
        """Its lines of the table: each group of kernels, what is between kernels, and the whole."""
        names = [f"{self.case.name}, {self.case.model}", self.case.rows, self.context, "yes" if self.compiled else "no"]
        found = []
        for group in (ATTENTION, GEMMS, REST):
            mine = [kernel.seconds for kernel in self.kernels if group_of(kernel.name) == group]
            seconds = sum(mine) / REPLAYS
            found.append([*names, group, round(len(mine) / REPLAYS), *self._rate(self.bytes.get(group), seconds)])
        between = self.seconds - sum(kernel.seconds for kernel in self.kernels) / REPLAYS
        found.append([*names, "between kernels", None, *self._rate(None, between)])
        total = self._rate(sum(self.bytes.values()), self.seconds)
        return [*found, [*names, "the step", round(len(self.kernels) / REPLAYS), *total]]

    def _rate(self, count: int | None, seconds: float) -> list[float | None]:
        """GB, ms, the least ms for so many bytes, TB/s, and share of what memory can do."""
        if not count:
            return [None, 1e3 * seconds, None, None, None]
        least = count / self.rate
        return [count / 1e9, 1e3 * seconds, 1e3 * least, count / seconds / 1e12, least / seconds]


COLUMNS = {
    "workload": "", "rows": "d", "context": ",d", "compiled": "", "kernels of": "", "kernels": "d", "GB": ".2f",
    "ms": ".3f", "floor, ms": ".3f", "TB/s": ".2f", "of a sum's": ".0%",
}  # fmt: skip


def group_of(name: str) -> str:
    """The group of a kernel, by its name."""
    if name in ATTENTION_KERNELS:
        return ATTENTION
    return GEMMS if GEMM_KERNELS.search(name) else REST


def bytes_to_read(network: nn.Module, layers: Iterable[AttentionLayer], rows: int, context: int) -> dict[str, int]:
    """What a step of decodes must read, by group.

    Args:
        network: a causal LM; weights of the meta device will do.
        layers: its attention layers, all without a sliding window or with one no shorter than `context`.
        rows: of the batch.
        context: positions of each row in the KV cache, with the one of this step.
    """
    # A matrix is read whole if it belongs to a linear. That of an embedding is not: a row of it for each token. Tied to
    # the last linear, it is that one's, and counts.
    weights: dict[int, int] = {}
    for module in network.modules():
        mine = list(module.parameters(recurse=False))
        if not isinstance(module, nn.Embedding) and any(parameter.ndim > 1 for parameter in mine):
            weights |= {id(parameter): parameter.nbytes for parameter in mine}
    itemsize = next(network.parameters()).itemsize
    positions = sum(2 * layer.kv_heads * layer.head_dim * itemsize for layer in layers)
    return {ATTENTION: rows * context * positions, GEMMS: sum(weights.values())}


def roofline(progress: Callable[[str], None] = lambda text: None) -> ResultTable:
    """Measures all cases, as they are and compiled.

    Args:
        progress: is told what comes next.

    Raises:
        InputError: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("the roofline needs a CUDA GPU; torch finds none")
    steps: list[Step] = []
    for case in CASES:
        progress(f"{case.name}, {case.model}")
        # In a process of its own: one in which torch's profiler has run launches more slowly ever after.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            steps += process.submit(_measure, case).result()
    return table(steps, environment(TimedCudaDevice()))


def table(steps: list[Step], environment: dict[str, str]) -> ResultTable:
    """The steps as a table."""
    rate = statistics.median(step.rate for step in steps)
    note = (
        f"A plain sum reads {rate / 1e12:.2f} TB/s in the same run (median; each model is held to its own). floor: the "
        "bytes a step must read, weights of linears and keys and values, at that rate; activations are left out."
    )
    rows = [row for step in steps for row in step.rows()]
    return ResultTable("Decode steps and the floor memory sets", COLUMNS, rows, note, environment)


def _measure(case: Case) -> list[Step]:
    device, checkpoint = TimedCudaDevice(), Checkpoint(case.model)
    rate = reading_rate()
    positions = case.rows * (max(case.contexts) + 64)
    model = ready_model(checkpoint, device, case.rows, positions)
    bytes_of = {c: bytes_to_read(model.network, checkpoint.layers, case.rows, c) for c in case.contexts}
    slots = {context: written(model, case.rows, 1, context) for context in case.contexts}
    steps = []
    for compiled in (False, True):
        if compiled:
            fuse(model.network)
        seconds = {
            context: gpu_seconds(lambda slot=slot: model.forward(slot), calls=3, repeats=10)
            for context, slot in slots.items()
        }
        for context, slot in slots.items():
            kernels = list(kernels_of(lambda slot=slot: model.forward(slot)))
            steps.append(Step(case, context, compiled, bytes_of[context], kernels, seconds[context], rate))
    return steps


def kernels_of(call: Callable[[], None]) -> Iterator[Kernel]:
    """The kernels of REPLAYS replays of a call, and copies within device memory with them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for _ in range(REPLAYS):
            graph.replay()
        torch.cuda.synchronize()
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            yield Kernel(event.name, event.time_range.elapsed_us() / 1e6)
