"""The beliefs of myths.py that only a CUDA GPU can decide: PyTorch's allocator, hidden waits, the launch queue, the
profiler.

A process in which torch's profiler has run is not what it was, so that experiment has processes of its own.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context

import torch
from torch.profiler import ProfilerActivity, profile

from ..run.timed import Machine
from .metrics import environment
from .myths import Sleep, outcome, rows
from .result_table import ResultTable

NUMEL = 4 << 20  # 16 MiB of int32: PyTorch's allocator cuts small tensors out of shared blocks, and large ones not
REPEATS = 3

# What is done between launching the last work that uses x, on stream b, and `del x`; x was allocated on stream a.
CARE = ("pass", "x.record_stream(b)", "a.wait_event(b.record_event())")


def allocator_across_streams(device: Machine) -> ResultTable:
    """What a stream reads of a tensor that is freed, in the stream it was allocated on, while that work is queued."""
    cuda, sleep = device.cuda, Sleep(device)
    a, b = cuda.Stream(), cuda.Stream()
    largest = torch.zeros((), dtype=torch.int32, device=device.torch_device)

    def tensor(value: int) -> torch.Tensor:
        with cuda.stream(a):
            return torch.full((NUMEL,), value, dtype=torch.int32, device=device.torch_device)

    def run(care: str) -> list:
        x = tensor(1)
        address = x.data_ptr()
        b.wait_stream(a)
        with cuda.stream(b):
            sleep()
            torch.amax(x, 0, out=largest)
        exec(care, {"x": x, "a": a, "b": b})
        del x
        reused = tensor(2).data_ptr() == address
        cuda.synchronize()
        return [care, sleep.ms, "yes" if reused else "no", largest.item(), outcome(largest.item() == 1)]

    columns = {"before del x": "", "b's slow work, ms": ".1f", "address reused": "", "b reads": "d", "outcome": ""}
    note = (
        "x is full of 1 and was allocated on stream a. Stream b reads it, behind slow work. After del x, a tensor of "
        "the same size is allocated on stream a and filled with 2."
    )
    title = "del x is safe as soon as the last kernel that uses x is launched."
    return ResultTable(title, columns, rows(run, [(care,) for care in CARE]), note, environment(device))


CALLS = (
    "t + 1",
    "torch.arange(1024, device='cuda')",
    "torch.tensor([1.0], device='cuda')",
    "t.copy_(pinned, non_blocking=True)",
    "t.copy_(pageable, non_blocking=True)",
    "pinned.copy_(t, non_blocking=True)",
    "pageable.copy_(t, non_blocking=True)",
    "t.to('cpu', non_blocking=True)",
    "t.cpu()",
    "t[0].item()",
    "t.tolist()",
    "repr(t)",
    "t.any()",
    "bool(t.any())",
    "if t.any(): pass",
    "torch.where(mask, t, 0)",
    "t[mask]",
    "torch.nonzero(mask)",
    "t.repeat_interleave(counts)",
    "t.repeat_interleave(counts, output_size=1024)",
    "event.query()",
    "event.synchronize()",
)


def hidden_syncs(device: Machine) -> ResultTable:
    """How long each of CALLS holds the host while slow work is queued on the same stream."""
    sleep = Sleep(device)
    t = torch.ones(1024, device=device.torch_device)
    names = {
        "torch": torch,
        "t": t,
        "mask": t > 0,
        "counts": torch.ones(1024, dtype=torch.int64, device=device.torch_device),
        "pinned": torch.ones(1024).pin_memory(),
        "pageable": torch.ones(1024),
        "event": sleep.end,
    }

    def once(code) -> tuple[float, bool, float]:
        sleep()
        start = device.clock()
        exec(code, names)
        held, done = device.clock() - start, sleep.end.query()
        device.cuda.synchronize()
        return 1e3 * held, done, sleep.ms

    def run(call: str) -> list:
        code = compile(call, "a call", "exec")
        held, done, slept = sorted(once(code) for _ in range(REPEATS))[REPEATS // 2]
        return [call, slept, held, "yes" if done else "no"]

    columns = {"call": "", "work queued, ms": ".1f", "host held for, ms": ".3g", "waited": ""}
    note = (
        f"The median of {REPEATS} calls. t has 1,024 floats; mask and counts are on the device too; event is recorded "
        "behind the queued work. waited: that work was done when the call returned."
    )
    title = "Only synchronize() makes the host wait."
    return ResultTable(title, columns, rows(run, [(call,) for call in CALLS]), note, environment(device))


MOST = 4096  # launches
HELD = 0.01  # seconds: longer than an operating system takes a core away for, far shorter than the slow work


def launch_queue(device: Machine) -> ResultTable:
    """How many launches fit behind slow work before one of them holds the host."""
    cuda, sleep = device.cuda, Sleep(device, seconds=1)
    x = torch.zeros(1, device=device.torch_device)

    def graph(kernels: int) -> Callable[[], None]:
        made = cuda.CUDAGraph()
        with cuda.graph(made):
            for _ in range(kernels):
                x.add_(1)
        return made.replay

    x.add_(1)
    launches = {
        "x.add_(1)": lambda: x.add_(1),
        "replay of a graph of 1 kernel": graph(1),
        "replay of a graph of 10 kernels": graph(10),
    }

    def run(name: str) -> list:
        launch, times = launches[name], []
        launch()
        cuda.synchronize()
        sleep()
        while len(times) < MOST and (not times or times[-1] < HELD):
            start = device.clock()
            launch()
            times.append(device.clock() - start)
        cuda.synchronize()
        held = times.pop() if times[-1] >= HELD else None
        return [name, sleep.ms, 1e6 * statistics.median(times), len(times), None if held is None else 1e3 * held]

    columns = {"launch": "", "slow work, ms": ".0f", "median launch, us": ".1f", "launches ahead": ",d"}
    columns |= {"next one held the host for, ms": ".0f"}
    note = (
        f"One launch after another, {MOST:,} at most, is queued behind slow work, until one takes {1e3 * HELD:.0f} ms "
        "or more. A dash means that none did."
    )
    title = "The host can run ahead of the GPU as far as it likes."
    return ResultTable(title, columns, rows(run, [(name,) for name in launches]), note, environment(device))


LAUNCHES, ROUNDS = 2000, 5
PROCESSES = {
    "torch.profiler never runs": (False, False),
    "torch.profiler runs": (True, False),
    "torch.profiler runs, TEARDOWN_CUPTI=1": (True, True),
}


def profiler_leaves_traces(device: Machine) -> ResultTable:
    """Host time of launching a kernel before torch's profiler runs in a process, while it does, and after."""
    found = []
    for name, (profiled, teardown) in PROCESSES.items():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found.append([name, *process.submit(launch_times, profiled, teardown).result()])
    columns = {"process": "", "before, us": ".1f", "while it records, us": ".1f", "after, us": ".1f"}
    note = (
        f"Host time of one x.add_(1), medians of {ROUNDS} rounds of {LAUNCHES:,}. Each row is a process of its own, "
        "measured from left to right; the first has no profiler in any column."
    )
    return ResultTable("A profiler costs only while it runs.", columns, found, note, environment(device))


def launch_times(profiled: bool, teardown: bool) -> list[float]:
    """How long launches take before, in and after a run of torch's profiler.

    Args:
        profiled: False to run nothing in the profiler's place.
        teardown: whether CUPTI, by which the profiler sees the GPU, is to be let go when it ends.

    Returns:
        Microseconds of a launch in each of the three.
    """
    os.environ.pop("TEARDOWN_CUPTI", None)
    if teardown:
        os.environ["TEARDOWN_CUPTI"] = "1"  # looked up when a profile ends
    x = torch.zeros(1, device="cuda")
    before = launch_time(x)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) if profiled else nullcontext():
        during = launch_time(x)
    launch_time(x)  # CUPTI is let go by a thread, from within a launch
    time.sleep(1)
    return [before, during, launch_time(x)]


def launch_time(x: torch.Tensor) -> float:
    """Microseconds of host time to launch a kernel on `x`."""
    times = []
    for _ in range(1 + ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(LAUNCHES):
            x.add_(1)
        times.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return 1e6 * statistics.median(times[1:]) / LAUNCHES


EXPERIMENTS = (allocator_across_streams, hidden_syncs, launch_queue, profiler_leaves_traces)
