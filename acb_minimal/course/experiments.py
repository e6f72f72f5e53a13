"""Experiments of single notebooks: a slower host, asynchrony with and without graphs, streams and copies by themselves.

Like times.py they return what Jupyter shows, and say on which machine it was measured.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from IPython.display import Image
from rich.table import Table

from ..measure.metrics import Breakdown, widest_decodes
from ..measure.profile import Method, profile, serve
from ..pictures import charts
from ..run.checkpoint import Checkpoint
from ..run.engines import synchronous
from ..run.timed import Machine
from ..run.workload import workload as find_workload
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..sim.operations import Cost
from .notebook import machine, milliseconds, picture, plain_table
from .tokens import counted


def slower_host(chapter: str, name: str, factor: float) -> Breakdown:
    """Where the time of a decode step goes on the simulated GPU, with a host that takes longer.

    Args:
        name: of the workload.
        factor: how many times as long it takes to schedule, write, fill and update.
    """
    workload = find_workload(name)
    checkpoint = Checkpoint(workload.model)
    costs = Costs.of(workload.model)
    slow = {
        what: {part: factor * value for part, value in costs.figures[what].items()}
        for what in ("schedule", "write", "fill", "update")
    }
    device = SimulatedDevice(replace(costs, figures=costs.figures | slow), arithmetic=False, trace=True)
    return profile(chapter, workload, device, checkpoint).breakdown


def slower_hosts(chapter: str, name: str, factors: Iterable[float]) -> Image:
    """The same for several factors, as bars."""
    rows = {f"host work x {factor:g}": slower_host(chapter, name, factor) for factor in factors}
    title = f"{name}, {chapter} on {Costs.of(find_workload(name).model).gpu}"
    return picture(charts.breakdown(rows, title=title), f"Bars: {title}")


def two_by_two(name: str, new_tokens: int, runs: int = 1) -> Table:
    """A workload in all four: synchronous or asynchronous, launched kernel by kernel or as graphs.

    Steps are on the host's clock; of a run, they and its bubbles are medians.

    Args:
        name: of the workload.
        new_tokens: for each request, to keep it short; there must be steps in which all requests decode.
        runs: of each on a GPU, in turns, an odd number: the one whose step is in the middle counts. A host can be slow
            for as long as one of them takes.

    Raises:
        InputError: there is no such workload, or it cannot be served here; or the number of runs is not odd.
    """
    method, device = Method(runs), machine()
    workload = find_workload(name).override(new_tokens=new_tokens)
    checkpoint = Checkpoint(workload.model)
    runs = method.runs if device.kind == "cuda" else 1  # on the simulator a second would be as the first
    engines = {
        "synchronous, eager": synchronous("ch5"),
        "asynchronous, eager (ch5)": "ch5",
        "synchronous, graphs": synchronous("ch6"),
        "asynchronous, graphs (ch6)": "ch6",
    }
    measured = {label: [] for label in engines}
    for _ in range(runs):
        for label, engine in engines.items():
            run = serve(workload, engine, device.kind, checkpoint, None, lambda text: None)
            decodes, bubbles = widest_decodes(run.steps), run.trace.bubbles()
            step = statistics.median(run.steps[number].time - run.steps[number - 1].time for number in decodes)
            measured[label].append((step, statistics.median(bubbles[number] for number in decodes)))
    title = f"{name} ({workload.model}) on {device.name}"
    made = plain_table(title, "engine", "ms per decode step", "bubbles", "time saved")
    if runs > 1:
        made.caption = f"Of {runs} runs each, in turns, the one in the middle."
        made.caption_justify = "left"
    middle = {label: sorted(times)[runs // 2] for label, times in measured.items()}
    base, _ = middle["synchronous, eager"]
    for label, (step, bubble) in middle.items():
        made.add_row(label, f"{1e3 * step:.2f}", f"{bubble / step:.2%}", f"{1 - step / base:.1%}")
    return made


def decode_rows(max_running: int) -> list[int]:
    """The rows of every batch of decodes, padding left out, when chapter 6 serves the counter prompts."""
    session = counted("ch6", machine(), max_running=max_running, max_batch_tokens=max_running)
    return [step.rows for step in session.done if step.decodes]


def default_stream() -> Table:
    """How long a small copy takes to arrive while the compute engine is busy, in the same stream and in another."""
    device = machine()
    made = plain_table(f"streams on {device.name}", "slow kernel in", "copy in", "copy arrives after")
    streams = {"the default stream": device.cuda.default_stream(), "a side stream": device.cuda.Stream()}
    target, origin = torch.zeros(1, dtype=torch.int32, device=device.torch_device), device.pinned(1)
    default, side = streams
    for busy, copying in (default, default), (side, side), (default, side), (side, default):

        def sleep(stream=streams[busy]) -> None:
            with device.cuda.stream(stream):
                if isinstance(device, SimulatedDevice):
                    device.cuda.submit("sleep", "compute", lambda: None, lambda: Cost(0.05))
                else:
                    torch.cuda._sleep(90_000_000)  # cycles: some 50 ms

        def copy(stream=streams[copying]) -> None:
            with device.cuda.stream(stream):
                device.copy("h2d", target, origin, True)

        made.add_row(busy, copying, milliseconds(_times(device, copy, streams[copying], before=sleep)[1]))
    return made


def pageable_copies(megabytes: int = 64) -> Table:
    """How long a "non-blocking" upload holds the host, from pinned memory and from ordinary, pageable memory.

    Args:
        megabytes: to copy, of 1,000,000 bytes.
    """
    device = machine()
    made = plain_table(f"copies of {megabytes} MB on {device.name}", "from", "host held for", "copy done after")
    numel = megabytes * 250_000
    target = torch.zeros(numel, dtype=torch.int32, device=device.torch_device)
    origins = {"pinned": device.pinned(numel), "pageable": torch.zeros(numel, dtype=torch.int32)}
    for name, origin in origins.items():

        def copy(origin=origin) -> None:
            device.copy("h2d", target, origin, True)

        times = _times(device, copy, device.cuda.current_stream())
        made.add_row(f"{name} memory", *map(milliseconds, times))
    return made


def _times(
    device: Machine, copy: Callable[[], None], stream, before: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Seconds that a copy holds the host for, and until it is done: of the second, since the first time a GPU loads
    what it runs.

    Args:
        stream: of the copy.
        before: what to launch in front of it.
    """
    for _ in range(2):
        device.cuda.synchronize()
        before()
        start = device.clock()
        copy()
        held = device.clock() - start
        stream.synchronize()
        done = device.clock() - start
    device.cuda.synchronize()
    return held, done
