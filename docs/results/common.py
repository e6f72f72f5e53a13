"""What the scripts beside it share: a GPU or none, the time of GPU work, and tables that are printed and stored."""

import statistics
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from rich.console import Console

from acb_minimal.measure.metrics import environment
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.run.timed import Machine, TimedCudaDevice
from acb_minimal.sim.device import CpuDevice

RESULTS = Path(__file__).parent
PAGE_SIZE = 64
OTHERS = 8  # graphs


def need_gpu() -> None:
    """Ends the script where there is none."""
    if not torch.cuda.is_available():
        sys.exit(f"{Path(sys.argv[0]).name} needs a CUDA GPU; torch finds none")


def machine() -> TimedCudaDevice | CpuDevice:
    """This machine's GPU; or its CPU, where there is none."""
    return TimedCudaDevice() if torch.cuda.is_available() else CpuDevice()


def store(
    file: str,
    name: str,
    title: str,
    columns: dict[str, str],
    rows: list[list],
    note: str = "",
    on: Machine | None = None,
) -> None:
    """Prints a table. On a GPU it replaces the entry of that name in a file of this folder.

    Args:
        on: where the rows are from, if not from this machine; of the simulated GPU, the name says so.
    """
    found = ResultTable(title, columns, rows, note, environment(on or machine()))
    Console(width=max(Console().width, 100)).print(found.table())
    if on or torch.cuda.is_available():
        found.save(RESULTS / file, f"{name}, simulated" if on and on.kind == "sim" else name)


@cache
def other_graphs() -> None:
    """Captures graphs that nobody needs, once in a process."""
    x = torch.zeros(1, device="cuda")
    x.add_(1)
    for _ in range(OTHERS):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            x.add_(1)


def gpu_seconds(call: Callable[[], object], calls: int = 10, repeats: int = 20) -> float:
    """Median GPU seconds of `call`, from replays of a graph of them: there are no launch gaps in between.

    It is timed as in a process that has captured more than a few graphs, as a server has. Once, replays were faster
    before that (the log in docs/busy.md); why is not known.

    Args:
        call: launches the work.
        calls: of it in the graph.
        repeats: replays.
    """
    other_graphs()
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    graph.replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / calls)
    return statistics.median(times)


def reading_rate() -> float:
    """Bytes per second that a plain sum reads from the memory of the GPU: 4.3 GB of it, more than any cache holds."""
    numbers = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    return numbers.nbytes / gpu_seconds(numbers.sum)


def profiled(call: Callable[[], None], replays: int) -> list:
    """The profiler's events of all kernels of so many replays of a call. It comes last: a process in which torch's
    profiler has run launches more slowly ever after."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(replays):
            graph.replay()
        torch.cuda.synchronize()
    return [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
