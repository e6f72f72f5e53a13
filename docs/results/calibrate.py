"""Measures what the simulator needs to know, and writes acb_minimal/sim/costs.json.

    python docs/results/calibrate.py    # on a GPU

Device work is timed from replays of captured graphs, which have no launch gaps; launching is timed on the host while
the GPU has nothing to do. Batches of decodes are kept as they were measured, for they make up most of a run and lie on
no one line: how many rows there are decides which kernels run. All else is fitted with straight lines (costs.py says in
what), each point weighted so that relative errors count.
"""

import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from common import PAGE_SIZE, gpu_seconds, machine, need_gpu, profiled
from host import PARTS, host_work

from acb_minimal.device import CudaDevice
from acb_minimal.kv_cache import KVCache
from acb_minimal.measure.metrics import command, environment
from acb_minimal.model import Model
from acb_minimal.request import Batch, Request, Row
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.compile import compile_decodes, run_plain
from acb_minimal.run.warm_up import warm_up
from acb_minimal.sim.costs import COMPILED, FILE, Shape, decode_time
from acb_minimal.slot import IOSlot, SlotSize

MODELS = ("llama-3.1-8b", "llama-3.2-1b", "counter")
POSITIONS = 420_000  # KV cache positions to measure with: 55 GB for the 8B
# Batches of decodes: rows, and the positions that each has. What a model or its KV cache is too small for is left out.
ROWS, CONTEXTS = (1, 32, 128, 256, 384), (64, 256, 1024, 4096, 8192)
BESIDES = [(16, 160), (64, 640), (200, 900), (32, 6000), (128, 3000)]  # to see how far lines through those are off
SHORT = (32, 64)  # launching more than the GPU has room to queue would be waiting for it
GRAPH = (32, 256)  # whose gaps as a graph are measured
# (rows, tokens of each row, positions each row has once they are written)
MIXED = [(16, 4, 4), (32, 64, 64), (16, 128, 256), (1, 2048, 2048), (2, 4096, 4096), (8, 1024, 1024), (2, 4096, 8192)]
ASLEEP = 200_000_000  # GPU cycles, 0.1 s or more: longer than it takes to launch a forward pass


def calibrate() -> None:
    models = {}
    for name in MODELS:
        checkpoint = Checkpoint(name)
        model = ready_model(checkpoint, CudaDevice())
        models[name] = {"weight_bytes": checkpoint.weight_bytes}
        for what, costs in both_ways(model, models[name]):
            print(f"{name}, {what}")
            costs |= model_costs(model, checkpoint.max_positions)
    run_plain(model.network)
    common = common_costs(model)
    for name in MODELS:  # last, since it takes the profiler
        model = ready_model(Checkpoint(name), CudaDevice())
        for _, costs in both_ways(model, models[name]):
            slot = written(model, GRAPH[0], 1, GRAPH[1])
            kernels = sum(kernel.time_range.elapsed_us() for kernel in profiled(partial(model.forward, slot), 1))
            costs["graph_gaps"] = max(decode_time(costs["decode"], *GRAPH) - kernels, 0.0)
            costs["eager_gaps"] += costs["graph_gaps"]
    record = {"command": command(), "environment": environment(machine()), "figures": common, "models": models}
    FILE.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {FILE}")


def both_ways(model: Model, entry: dict) -> Iterator[tuple[str, dict]]:
    """The entry for the costs of the model, first as it is, then compiled."""
    run_plain(model.network)
    yield "as it is", entry
    compile_decodes(model.network)
    warm_up(model)
    yield "compiled", entry.setdefault(COMPILED, {})


def ready_model(checkpoint: Checkpoint, device: CudaDevice, rows: int = 384, positions: int | None = None) -> Model:
    """A model to measure forward passes with.

    Args:
        checkpoint: what to load.
        device: where.
        rows: of a batch, at most.
        positions: in the KV cache; by default POSITIONS, and fewer for a small model.
    """
    gc.collect()  # a compiled network that nobody has any more refers to itself, and its memory is needed
    positions = positions or (POSITIONS if checkpoint.random else 100_000)
    cache = KVCache(checkpoint.layers, positions // PAGE_SIZE, PAGE_SIZE, checkpoint.dtype, device.torch_device)
    for tensor in (*cache.keys, *cache.values):
        tensor.normal_()  # zeros would draw less power, and so run at a higher clock, than what serving reads
    size = SlotSize(rows, 8192, 8192 // PAGE_SIZE)
    return Model(checkpoint.load(device.torch_device), checkpoint.layers, cache, size, device)


def written(model: Model, rows: int, length: int, context: int) -> IOSlot:
    """A slot with such a batch on the device; its rows own pages of their own, as far as there are enough."""
    rng = random.Random(0)
    slot, count = model.new_slot(), -(-context // PAGE_SIZE)
    made = []
    for row in range(rows):
        request = Request(str(row), rng.choices(range(1000), k=context), 1)
        request.pages = [(row * count + page) % model.cache.scratch_page for page in range(count)]
        made.append(Row(request, context - length, length))
    slot.write(Batch(made))
    slot.upload()
    return slot


def model_costs(model: Model, max_positions: int) -> dict:
    """The model's entry in costs.json; how far off it is, is printed."""
    limit = 1.2 * model.cache.scratch_page * PAGE_SIZE

    def fits(rows: int, positions: int) -> bool:
        return rows * positions <= limit and positions <= max_positions

    def seconds(slot: IOSlot) -> float:
        return gpu_seconds(lambda: model.forward(slot), calls=2, repeats=5)

    def decode(rows: int, positions: int) -> float:
        return 1e6 * seconds(written(model, rows, 1, positions))

    short, launches = written(model, SHORT[0], 1, SHORT[1]), []
    costs = {"decode": {}}
    for rows in ROWS:
        costs["decode"][rows] = {count: decode(rows, count) for count in CONTEXTS if fits(rows, count)}
        # A host is not always as fast, and not for a moment only: so launching is timed in between.
        launches += launch_times(lambda: model.forward(short), short)
    besides = [(decode_time(costs["decode"], *point), decode(*point)) for point in BESIDES if fits(*point)]
    off = max((abs(line / us - 1) for line, us in besides), default=0.0)
    print(f"  {len(besides)} decodes besides those measured: at most {off:.1%} off")
    costs["decode_launch"] = statistics.median(launches)
    us, rows, positions = max(
        (us, rows, positions) for rows, batches in costs["decode"].items() for positions, us in batches.items()
    )
    costs |= eager_costs(model, written(model, rows, 1, positions), us / 1e6)
    if costs["decode_launch"] > us:
        costs["ramp"] = 0.0  # the host is never ahead: what was taken for a ramp is the launching itself
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.forward(short)
    costs["replay_launch"] = launch_time(graph.replay, short)

    mixed = [written(model, *point) for point in MIXED if fits(point[0], point[2])]
    shapes = [Shape.of(slot.batch) for slot in mixed]
    features = [(shape.tokens, shape.pairs) for shape in shapes]
    costs["mixed"] = fit(("token", "pair"), features, [seconds(slot) for slot in mixed])
    costs["mixed_launch"] = launch_time(lambda: model.forward(mixed[0]), mixed[0])
    return costs


def eager_costs(model: Model, slot: IOSlot, replay: float) -> dict[str, float]:
    """What launching kernel by kernel does to a forward pass, in microseconds beyond a replay.

    Of a pass whose kernels are all queued, what it takes longer than as a graph are "eager_gaps", from one kernel to
    the next. A GPU that has nothing queued waits for the first launches as well, until the host is ahead of it: "ramp".

    Args:
        slot: holds a batch that takes the GPU longer than the host takes to launch it.
        replay: seconds of the same as a graph.
    """

    def window(cycles: int) -> float:
        """Seconds from the first kernel to the last; so long, the GPU is kept from the first, if its queue has room."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        if cycles:
            torch.cuda._sleep(cycles)
        start.record()
        model.forward(slot)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    queued, alone = (statistics.median(window(cycles) for _ in range(10)) for cycles in (ASLEEP, 0))
    return {"eager_gaps": 1e6 * max(queued - replay, 0.0), "ramp": 1e6 * max(alone - queued, 0.0)}


def fit(names: tuple[str, ...], features: list, seconds: list[float]) -> dict[str, float]:
    """A straight line through measured times, by least squares of relative errors; how far off it is, is printed.

    Args:
        names: of what the time depends on.
        features: for each measurement, how many there were of each name.
        seconds: for each measurement, how long it took.

    Returns:
        Microseconds of a base and of one of each name, none negative.
    """
    y = np.array(seconds) * 1e6
    x = np.column_stack([np.ones(len(y)), np.array(features, dtype=float)])
    used = list(range(x.shape[1]))
    while True:
        found = np.linalg.lstsq(x[:, used] / y[:, None], np.ones(len(y)), rcond=None)[0]
        if (found >= 0).all():
            break
        used.remove(used[int(found.argmin())])  # a negative price: this one does not matter
    prices = np.zeros(x.shape[1])
    prices[used] = found
    print(f"  a line by {', '.join(names)} through {len(y)} points: at most {np.abs(x @ prices / y - 1).max():.1%} off")
    return dict(zip(("base", *names), prices.tolist(), strict=True))


def launch_times(call: Callable[[], object], slot: IOSlot) -> list[float]:
    """Host microseconds of a call that launches device work, the device having nothing else to do; 30 times.

    Around each, the host uploads and downloads as a serving loop does: called back to back, the same code finds all it
    needs in the processor's caches and is faster than it ever is in use.
    """
    times = []
    for _ in range(30):
        slot.upload()
        start = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - start))
        slot.download()
    return times


def launch_time(call: Callable[[], object], slot: IOSlot) -> float:
    return statistics.median(launch_times(call, slot))


def common_costs(model: Model) -> dict:
    """What does not depend on the model; measured on a small one."""
    slot, other = written(model, 32, 1, 64), written(model, 32, 1, 64)
    stream, event = torch.cuda.Stream(), torch.cuda.Event()

    def bus(engine: str) -> dict[str, float]:
        seconds, sizes = [], [1 << power for power in range(10, 22, 2)]
        for size in sizes:
            host = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
            device = torch.zeros_like(host, device="cuda")
            target, origin = (device, host) if engine == "h2d" else (host, device)
            seconds.append(gpu_seconds(lambda target=target, origin=origin: target.copy_(origin, non_blocking=True)))
        return fit(("byte",), [[size] for size in sizes], seconds)

    def serve() -> None:
        """The rest of a step: called back to back, the host's own work would find all it needs in its caches."""
        slot.upload()
        model.forward(slot)
        slot.download()

    rows = (8, 32, 128, 384)
    parts = zip(*(host_work(count, 1024, model.device, 100, serve) for count in rows), strict=True)
    host = {name: fit(("row",), [[count] for count in rows], times) for name, times in zip(PARTS, parts, strict=True)}
    return {
        "call": launch_time(lambda: (event.record(stream), stream.wait_event(event)), slot) / 2,
        "copy_launch": launch_time(lambda: slot.upload(non_blocking=True), slot),
        "carry_over_launch": launch_time(lambda: model.carry_over(slot, other), slot),
        "carry_over": 1e6 * gpu_seconds(lambda: model.carry_over(slot, other)),
        "h2d": bus("h2d"),
        "d2h": bus("d2h"),
    } | host


if __name__ == "__main__":
    need_gpu()
    calibrate()
