"""Measures on a CUDA GPU what the simulator needs to know, and writes costs.json.

Machine work is timed from replays of captured graphs, which have no launch gaps; launching is timed on the host while
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
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from ..errors import InputError
from ..kv_cache import KVCache
from ..model import Model
from ..request import Batch, Request, Row
from ..run.checkpoint import Checkpoint
from ..run.fuse import fuse, plain
from ..run.timed import TimedCudaDevice
from ..run.warm_up import warm_up
from ..sim.costs import COMPILED, FILE, Shape, decode_time
from ..slot import IOSlot, SlotSize
from .launching import eager_costs, kernel_time
from .metrics import command, environment
from .parts import gpu_seconds, host_steps

MODELS = ("llama-3.1-8b", "llama-3.2-1b", "counter")
PAGE_SIZE = 64
POSITIONS = 420_000  # KV cache positions to measure with: 55 GB for the 8B
# Batches of decodes: rows, and the positions that each has. What a model or its KV cache is too small for is left out.
ROWS, CONTEXTS = (1, 32, 128, 256, 384), (64, 256, 1024, 4096, 8192)
BESIDES = [(16, 160), (64, 640), (200, 900), (32, 6000), (128, 3000)]  # to see how far lines through those are off
SHORT = (32, 64)  # launching more than the GPU has room to queue would be waiting for it
GRAPH = (32, 256)  # whose gaps as a graph are measured
# (rows, tokens of each row, positions each row has once they are written)
MIXED = [(16, 4, 4), (32, 64, 64), (16, 128, 256), (1, 2048, 2048), (2, 4096, 4096), (8, 1024, 1024), (2, 4096, 8192)]


def calibrate(file: Path = FILE) -> Table:
    """Measures everything and writes it to `file`, by default where the simulator reads it.

    Returns:
        A table of the largest error of each fit, and of lines through decodes at others than those.

    Raises:
        InputError: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("calibration needs a CUDA GPU; torch finds none")
    device = TimedCudaDevice()
    table = Table(title=f"Fits for {device.name}", caption="largest relative error over so many points")
    for column in ("model", "fit", "points", "largest error"):
        table.add_column(column)
    models, model = {}, None
    for name in MODELS:
        checkpoint = Checkpoint(name)
        model = ready_model(checkpoint, device)
        models[name] = {"weight_bytes": checkpoint.weight_bytes}
        for title, costs in _both_ways(model, name, models[name]):
            found, errors = _model_costs(model, checkpoint.max_positions)
            costs |= found
            for fit, (points, error) in errors.items():
                table.add_row(title, fit, str(points), f"{error:.1%}")
    plain(model.network)
    common = _common_costs(model)
    for name in MODELS:  # last, since it takes the profiler
        model = ready_model(Checkpoint(name), device)
        for _, costs in _both_ways(model, name, models[name]):
            replay = decode_time(costs["decode"], *GRAPH)
            costs["graph_gaps"] = max(replay - kernel_time(model, decodes(model, *GRAPH)), 0.0)
            costs["eager_gaps"] += costs["graph_gaps"]
    record = {
        "command": command(),
        "environment": environment(device),
        "figures": common,
        "models": models,
    }
    file.write_text(json.dumps(record, indent=2) + "\n")
    return table


def _both_ways(model: Model, name: str, entry: dict) -> Iterator[tuple[str, dict]]:
    """What to call the model and the entry for its costs, first as it is, then with the model compiled."""
    plain(model.network)
    yield name, entry
    fuse(model.network)
    warm_up(model)
    yield f"{name}, compiled", entry.setdefault(COMPILED, {})


def ready_model(
    checkpoint: Checkpoint, device: TimedCudaDevice, rows: int = 384, positions: int | None = None
) -> Model:
    """A model to measure forward passes with.

    Args:
        checkpoint: what to load.
        device: where.
        rows: of a batch, at most.
        positions: in the KV cache; by default POSITIONS, and fewer for a small model.
    """
    gc.collect()  # a compiled network that nobody has any more refers to itself, and its memory is needed
    positions = positions or (POSITIONS if checkpoint.random else 100_000)
    pages = positions // PAGE_SIZE
    cache = KVCache(checkpoint.layers, pages, PAGE_SIZE, checkpoint.dtype, device.torch_device)
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


def decodes(model: Model, rows: int, positions: int) -> IOSlot:
    """A slot with a batch of so many decodes, each with so many positions."""
    return written(model, rows, 1, positions)


def _model_costs(model: Model, max_positions: int) -> tuple[dict, dict[str, tuple[int, float]]]:
    """What the model's operations cost.

    Returns:
        Its entry in costs.json, and for each fit the number of its points and its largest relative error.
    """
    costs, errors = {}, {}
    limit = 1.2 * model.cache.scratch_page * PAGE_SIZE

    def fits(rows: int, positions: int) -> bool:
        return rows * positions <= limit and positions <= max_positions

    def seconds(slot: IOSlot) -> float:
        return gpu_seconds(lambda: model.forward(slot), calls=2, repeats=5)

    def decode(rows: int, positions: int) -> float:
        return 1e6 * seconds(decodes(model, rows, positions))

    short, launches = decodes(model, *SHORT), []
    costs["decode"] = {}
    for rows in ROWS:
        costs["decode"][rows] = {count: decode(rows, count) for count in CONTEXTS if fits(rows, count)}
        # A host is not always as fast, and not for a moment only: so launching is timed in between.
        launches += _launches(lambda: model.forward(short), short, repeats=30)
    besides = [(decode_time(costs["decode"], *point), decode(*point)) for point in BESIDES if fits(*point)]
    off = max((abs(line / us - 1) for line, us in besides), default=0.0)
    errors["decodes besides those measured"] = len(besides), off
    costs["decode_launch"] = statistics.median(launches)
    us, *slowest = max(
        (us, rows, positions) for rows, batches in costs["decode"].items() for positions, us in batches.items()
    )
    costs |= eager_costs(model, decodes(model, *slowest), us / 1e6)
    if costs["decode_launch"] > us:
        costs["ramp"] = 0.0  # the host is never ahead: what was taken for a ramp is the launching itself
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.forward(short)
    costs["replay_launch"] = _launch(graph.replay, short)

    mixed = [written(model, *point) for point in MIXED if fits(point[0], point[2])]
    shapes = [Shape.of(slot.batch) for slot in mixed]
    features = [(shape.tokens, shape.pairs) for shape in shapes]
    costs["mixed"], error = _fit(("token", "pair"), features, [seconds(slot) for slot in mixed])
    errors["mixed"] = len(mixed), error
    costs["mixed_launch"] = _launch(lambda: model.forward(mixed[0]), mixed[0])
    return costs, errors


def _fit(names: tuple[str, ...], features: list, seconds: list[float]) -> tuple[dict[str, float], float]:
    """A straight line through measured times, by least squares of relative errors.

    Args:
        names: of what the time depends on.
        features: for each measurement, how many there were of each name.
        seconds: for each measurement, how long it took.

    Returns:
        Microseconds of a base and of one of each name, none negative, and the largest relative error.
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
    return dict(zip(("base", *names), prices.tolist(), strict=True)), float(np.abs(x @ prices / y - 1).max())


def _launch(call: Callable[[], None], slot: IOSlot) -> float:
    """The median of 30 `_launches`."""
    return statistics.median(_launches(call, slot, 30))


def _launches(call: Callable[[], None], slot: IOSlot, repeats: int) -> list[float]:
    """Host microseconds of a call that launches device work, the device having nothing else to do.

    Around each, the host uploads and downloads as a serving loop does: called back to back, the same code finds all it
    needs in the processor's caches and is faster than it ever is in use.
    """
    times = []
    for _ in range(repeats):
        slot.upload()
        start = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - start))
        slot.download()
    return times


def _common_costs(model: Model) -> dict:
    """What does not depend on the model; measured on a small one."""
    slot, other = written(model, 32, 1, 64), written(model, 32, 1, 64)
    stream, event = torch.cuda.Stream(), torch.cuda.Event()
    sizes = [1 << power for power in range(10, 22, 2)]

    def bus(engine: str) -> dict[str, float]:
        seconds = []
        for size in sizes:
            host = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
            device = torch.zeros_like(host, device="cuda")
            target, origin = (device, host) if engine == "h2d" else (host, device)
            call = lambda target=target, origin=origin: target.copy_(origin, non_blocking=True)  # noqa: E731
            seconds.append(gpu_seconds(call))
        return _fit(("byte",), [[size] for size in sizes], seconds)[0]

    def host(part: int) -> dict[str, float]:
        return _fit(("row",), [[rows] for rows in measured], [steps[part] for steps in measured.values()])[0]

    def serve() -> None:
        """The rest of a step: called back to back, the host's own work would find all it needs in its caches."""
        slot.upload()
        model.forward(slot)
        slot.download()

    def parts(rows: int) -> list[float]:
        steps = host_steps(rows, 1024, 100, model.device, serve)
        return [statistics.median(column) for column in zip(*steps, strict=True)]

    measured = {rows: parts(rows) for rows in (8, 32, 128, 384)}
    return {
        "call": _launch(lambda: (event.record(stream), stream.wait_event(event)), slot) / 2,
        "copy_launch": _launch(lambda: slot.upload(non_blocking=True), slot),
        "carry_over_launch": _launch(lambda: model.carry_over(slot, other), slot),
        "carry_over": 1e6 * gpu_seconds(lambda: model.carry_over(slot, other)),
        "h2d": bus("h2d"),
        "d2h": bus("d2h"),
        "schedule": host(0),
        "write": host(1),
        "fill": host(2),
        "update": host(3),
    }
