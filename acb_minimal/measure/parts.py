"""Benchmarks of single parts. Each returns the figures of one run; none asserts a speed."""

import statistics
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from .. import attention as _attention  # noqa: F401  (defines torch.ops.acb.paged_attention)
from ..errors import InputError
from ..kv_cache import KVCache, PagePool
from ..model import Model
from ..request import Request
from ..run.checkpoint import Checkpoint
from ..run.fuse import fuse
from ..run.options import Options
from ..run.session import Session
from ..run.timed import Machine, TimedCudaDevice
from ..run.warm_up import warm_up
from ..run.workload import workload as find_workload
from ..scheduler import Scheduler
from ..sim.device import CpuDevice
from ..slot import IOSlot, SlotSize
from .metrics import Metrics, environment
from .result_table import ResultTable

PAGE_SIZE = 64
CROWD = 8  # graphs


def host(steps: int = 200) -> ResultTable:
    """Host microseconds of schedule, write, fill and update in a decode step; medians over `steps` steps."""
    device = TimedCudaDevice() if torch.cuda.is_available() else CpuDevice()
    columns = {"rows": "d", "context": ",d"}
    columns |= dict.fromkeys(("schedule", "write", "fill", "update", "sum"), ".0f") | {"sum/row": ".2f"}
    found = []
    for rows in (32, 128, 512):
        for context in (256, 8192):
            parts = zip(*host_steps(rows, context, steps, device), strict=True)
            times = [1e6 * statistics.median(column) for column in parts]
            found.append([rows, context, *times, sum(times), sum(times) / rows])
    return ResultTable("Host time of a decode step, us", columns, found, "", environment(device))


def host_steps(
    rows: int, context: int, steps: int, device: Machine, between: Callable[[], None] = lambda: None
) -> list[tuple[float, ...]]:
    """What the host does for batches of decodes, after the prompts are through.

    Every batch is scheduled and written before the one before it is updated, as from chapter 4 on.

    Args:
        rows: requests, all of them in every batch.
        context: tokens of each prompt.
        steps: batches of decodes.
        device: whose host buffers to write.
        between: called after each batch, not timed: what else a host does in a step, and fills its caches with.

    Returns:
        For each batch, the seconds of schedule, write, fill and update.
    """
    pages = -(-(context + steps + 1) // PAGE_SIZE)
    prompts = rows * context  # all in one batch, so that every other step is a decode of all rows
    scheduler = Scheduler(PagePool(rows * pages, PAGE_SIZE), rows, prompts, 1, 1 << 20, device)
    slots = [IOSlot(SlotSize(rows, prompts, pages), PAGE_SIZE, 0, device) for _ in range(2)]
    for number in range(rows):
        scheduler.add(Request(str(number), [0] * context, steps + 2))
    tokens = np.zeros(rows, dtype=np.int32)
    before, times = scheduler.schedule(), []
    for _ in range(steps):
        slot = slots.pop(0)
        slots.append(slot)
        start = time.perf_counter()
        batch = scheduler.schedule()
        scheduled = time.perf_counter()
        slot.write(batch)
        written = time.perf_counter()
        scheduler.update(before, tokens)
        updated = time.perf_counter()
        slot.fill()
        filled = time.perf_counter()
        times.append((scheduled - start, written - scheduled, filled - updated, updated - written))
        between()
        before = batch
    return times


def attention(heads: int = 32, kv_heads: int = 8, head_dim: int = 128) -> ResultTable:
    """Time of one layer's decode attention in bf16 and the rate at which it reads keys and values.

    Beside it stands the rate of a plain sum over memory, measured in the same run.

    Args:
        heads: of the queries.
        kv_heads: of keys and values.
        head_dim: size of a head.

    Raises:
        InputError: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("the attention benchmark needs a CUDA GPU; torch finds none")
    device = torch.device("cuda")
    found = []
    ceiling = reading_rate()
    for rows, context in ((32, 4096), (384, 1024), (32, 8192)):
        pages = -(-context // PAGE_SIZE)
        shape = (rows * pages, kv_heads, PAGE_SIZE, head_dim)
        key_cache, value_cache = (torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(2))
        query = torch.randn(rows, heads, head_dim, dtype=torch.bfloat16, device=device)
        key, value = (torch.randn(rows, kv_heads, head_dim, dtype=torch.bfloat16, device=device) for _ in range(2))
        # A random page order, as after hours of serving.
        page_table = torch.randperm(rows * pages, device=device).int().view(rows, pages)
        seq_lens = torch.full((rows,), context, dtype=torch.int32, device=device)
        kv_slots = page_table[:, (context - 1) // PAGE_SIZE] * PAGE_SIZE + (context - 1) % PAGE_SIZE
        starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        arguments = (query, key, value, key_cache, value_cache, kv_slots, page_table, seq_lens, starts)

        def call(arguments=arguments):
            torch.ops.acb.paged_attention(*arguments, 1, head_dim**-0.5, 0)

        seconds = gpu_seconds(call)
        rate = 2 * rows * context * kv_heads * head_dim * key.itemsize / seconds
        found.append([rows, context, 1e6 * seconds, rate / 1e12, rate / ceiling])
    columns = {"rows": "d", "context": ",d", "us": ".1f", "TB/s": ".2f", "of a sum's": ".0%"}
    note = f"A plain sum over 4.3 GB reads {ceiling / 1e12:.2f} TB/s."
    return ResultTable("Decode attention, one layer, bf16", columns, found, note, environment(TimedCudaDevice()))


def reading_rate() -> float:
    """Bytes per second that a plain sum reads from the memory of the GPU: 4.3 GB of it, more than any cache holds."""
    numbers = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    return numbers.nbytes / gpu_seconds(numbers.sum)


def memory(name: str = "llama-3.1-8b", rows: int = 384, context: int = 1152, compile: bool = False) -> ResultTable:
    """Machine bytes of what asynchrony adds, a second slot and a second set of graphs, beside all the rest.

    Args:
        name: of a model.
        rows: requests in a batch at most.
        context: positions of each request at most.
        compile: as Options has it.

    Raises:
        InputError: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("the memory benchmark needs a CUDA GPU; torch finds none")
    device = TimedCudaDevice()
    taken: dict[str, int] = {}

    def took(what: str) -> None:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        taken[what] = total - free - sum(taken.values())

    torch.zeros(1, device="cuda")
    took("CUDA context, others")
    checkpoint = Checkpoint(name)
    network = checkpoint.load(device.torch_device)
    if compile:
        fuse(network)
    took("weights")
    pages = -(-context // PAGE_SIZE)
    cache = KVCache(checkpoint.layers, rows * pages, PAGE_SIZE, checkpoint.dtype, device.torch_device)
    took("KV cache")
    model = Model(network, checkpoint.layers, cache, SlotSize(rows, 8192, pages), device)
    warm_up(model)
    torch.cuda.empty_cache()
    took("kernels, libraries")
    pool, graphs, slots, slot_bytes = torch.cuda.graph_pool_handle(), [], [], {}
    for which in ("first", "second"):
        before = torch.cuda.memory_allocated()  # a slot is too small to make torch ask the driver for memory
        slots.append(model.new_slot())
        slot_bytes[f"{which} slot"] = torch.cuda.memory_allocated() - before
        for size in model.decode_sizes:
            slots[-1].pad(size)
            graphs.append(torch.cuda.CUDAGraph())
            with torch.cuda.graph(graphs[-1], pool=pool):
                model.carry_over(slots[-1], slots[0])
                model.forward(slots[-1])
        took(f"{which} set of {len(model.decode_sizes)} graphs")
    total = sum(taken.values())
    found = [[what, count / 1e6, count / total] for what, count in (taken | slot_bytes).items()]
    title = f"Machine memory, {name}, {rows} rows of {context:,}{', compiled' if compile else ''}"
    columns = {"what": "", "MB": ",.2f", "share": ".4%"}
    return ResultTable(title, columns, found, "", environment(device))


def trace(name: str = "wide", chapter: str = "ch6", repeats: int = 3, compile: bool = False) -> ResultTable:
    """What tracing costs: tokens per second of one workload with a trace and without, in turns.

    Args:
        name: of a workload.
        chapter: whose engine serves it.
        repeats: runs of each kind.
        compile: whether the model is compiled.

    Raises:
        InputError: there is no CUDA GPU; on the simulator a trace costs no virtual time.
    """
    if not torch.cuda.is_available():
        raise InputError("the trace benchmark needs a CUDA GPU; torch finds none")
    workload, rates = find_workload(name), {False: [], True: []}
    checkpoint, options = Checkpoint(workload.model), Options(compile=compile)
    for turn in range(2 * repeats):
        job = workload.job(checkpoint.vocab_size)
        session = Session(job, chapter, checkpoint, "cuda", options, trace=bool(turn % 2))
        session.serve()
        rates[bool(turn % 2)].append(Metrics.of(session).tokens_per_second)
    medians = {traced: statistics.median(found) for traced, found in rates.items()}
    title = f"Cost of a trace: {chapter}, {name}{', compiled' if compile else ''}, new tokens a second"
    columns = {"trace": "", "median": ",.0f"} | {f"run {number}": ",.0f" for number in range(1, repeats + 1)}
    found = [["on" if traced else "off", medians[traced], *rates[traced]] for traced in rates]
    note = f"On / off: {medians[True] / medians[False]:.4f}."
    return ResultTable(title, columns, found, note, environment(TimedCudaDevice()))


@cache
def crowd() -> None:
    """Captures graphs that nobody needs, once in a process: CROWD of them."""
    x = torch.zeros(1, device="cuda")
    x.add_(1)
    for _ in range(CROWD):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            x.add_(1)


def gpu_seconds(call: Callable[[], object], calls: int = 10, repeats: int = 20) -> float:
    """Median GPU seconds of `call`, from replays of a graph of them: there are no launch gaps in between.

    It is timed as in a process that has captured more than a few graphs, as a server has: from the fourth or so on,
    replays of all of them are slower.

    Args:
        call: launches the work.
        calls: of it in the graph.
        repeats: replays.
    """
    crowd()
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
