"""What launching kernel by kernel does to a forward pass, and what is left of that in a graph: gaps and ramp.

Of a pass whose kernels are all queued, what it takes beyond the kernels' own time are the gaps from one kernel to the
next. A GPU that has nothing queued waits for the first launches as well, until the host is ahead of it: the ramp.
"""

import statistics

import numpy as np
import torch
from torch.profiler import ProfilerActivity

from ..model import Model
from ..slot import IOSlot
from ..trace.stretches import Stretches

ASLEEP = 200_000_000  # GPU cycles, 0.1 s or more: longer than it takes to launch a forward pass
REPEATS = 10


def eager_costs(model: Model, slot: IOSlot, replay: float) -> dict[str, float]:
    """What a forward pass over the batch in `slot` takes when it is launched kernel by kernel, beyond a replay.

    Args:
        slot: holds a batch that takes the GPU longer than the host takes to launch it.
        replay: seconds of the same as a graph.

    Returns:
        Microseconds: "eager_gaps", of a pass that is queued whole, as far as they are longer than a replay's; "ramp",
        what a pass takes longer that finds the GPU idle.
    """
    queued = statistics.median(_window(model, slot, asleep=True) for _ in range(REPEATS))
    alone = statistics.median(_window(model, slot, asleep=False) for _ in range(REPEATS))
    return {"eager_gaps": 1e6 * max(queued - replay, 0.0), "ramp": 1e6 * max(alone - queued, 0.0)}


def _window(model: Model, slot: IOSlot, asleep: bool) -> float:
    """Seconds from a forward pass's first kernel to its last.

    Args:
        asleep: keep the GPU from the first until the host has launched the last, as far as the GPU's queue has room.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    if asleep:
        torch.cuda._sleep(ASLEEP)
    start.record()
    model.forward(slot)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def kernel_time(model: Model, slot: IOSlot) -> float:
    """Microseconds of a replayed forward pass in which a kernel runs: what is left of its time are the gaps between
    kernels. It takes torch's profiler, after which nothing that is launched in this process is to be timed any more."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.forward(slot)
    graph.replay()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        graph.replay()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    times = np.array([(event.time_range.start, event.time_range.end) for event in kernels])
    runs = Stretches.union(*times.T)
    return float((runs.end - runs.start).sum())
