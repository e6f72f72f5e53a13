"""`acb bench`: measures one part on its own."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..run.launch import is_first
from .options import (
    RANK_TIMEOUT,
    Compile,
    Context,
    JsonFile,
    MaxRunning,
    RankTimeout,
    check_plot,
    check_record,
    check_writable,
    console,
    draw,
    start_ranks,
)

app = typer.Typer(no_args_is_help=True, help="Measure one part on its own.")


def _part(name: str, json_file: Path | None, **options) -> None:
    """Runs a benchmark of measure/parts.py, shows what it measured, and keeps it if there is a file for it."""
    from ..measure import parts

    check_record(json_file)
    _show({name: getattr(parts, name)(**options)}, json_file)


def _show(made: dict, json_file: Path | None) -> None:
    """Prints tables, and keeps each under its name if there is a file for them."""
    for name, found in made.items():
        console.print(found.table())
        if json_file:
            found.save(json_file, name)


@app.command()
def host(json_file: JsonFile = None) -> None:
    """Host time of schedule + write + update per step, by rows and context length. Needs no GPU."""
    _part("host", json_file)


@app.command()
def attention(json_file: JsonFile = None) -> None:
    """Decode attention on the GPU: bytes of keys and values read per second."""
    _part("attention", json_file)


@app.command()
def memory(json_file: JsonFile = None, compile: Compile = False) -> None:
    """Device memory of the second slot and the second set of graphs, beside all the rest."""
    _part("memory", json_file, compile=compile)


@app.command()
def trace(json_file: JsonFile = None, compile: Compile = False) -> None:
    """Tokens per second with a trace and without."""
    _part("trace", json_file, compile=compile)


@app.command()
def roofline(json_file: JsonFile = None) -> None:
    """A decode step on the GPU beside the floor that memory sets, by group of kernels, as it is and compiled."""
    from ..measure.roofline import roofline

    check_record(json_file)
    with console.status("") as status:
        found = roofline(status.update)
    _show({"roofline": found}, json_file)


@app.command()
def peer(
    json_file: JsonFile = None,
    context: Annotated[
        list[int] | None, typer.Option(help="Tokens of each prompt; repeatable.", show_default="128, 4,096, 8,000")
    ] = None,
    traces: Annotated[Path | None, typer.Option(help="Write traces of some tens of steps into this folder.")] = None,
) -> None:
    """transformers' own continuous batching on the GPU, synchronous and asynchronous: its steps, its host's time."""
    from ..measure.peer import CONTEXTS, peer

    check_record(json_file)
    _show(peer(context or CONTEXTS, traces, console.print), json_file)  # it takes minutes


@app.command()
def law(
    device: Annotated[str, typer.Option(help="auto, cuda or sim.")] = "auto",
    json_file: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(help="Draw gain against H / K: a .png, .svg or .pdf file.")] = None,
) -> None:
    """The law of overlap: steps with more and more host work, beside what the law says of them."""
    check_record(json_file)
    check_plot(plot)
    from ..measure.law import law
    from ..run.devices import check_device

    check_device(device)
    with console.status("") as status:
        found = law(device, status.update)
    _show({"law": found}, json_file)
    if plot:
        from ..pictures.law import gains

        draw(gains(found), plot)


@app.command()
def ranks(
    gpus: Annotated[list[int] | None, typer.Option(help="So many GPUs; repeatable.", show_default="1 2 4")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Repeatable.", show_default="the 8B and Qwen3-32B")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Repeatable.", show_default="long wide")] = None,
    context: Context = None,
    max_running: MaxRunning = None,
    device: Annotated[str, typer.Option(help="cuda; or cpu, for the length of a step alone.")] = "cuda",
    rank_timeout: RankTimeout = RANK_TIMEOUT,
    json_file: JsonFile = None,
    part: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """A decode step on one GPU and on several: kernels, communication, launch gaps, bubbles."""
    check_record(json_file)
    if device not in ("cuda", "cpu"):
        raise InputError(f"device is {device!r}; it must be cuda or cpu: the simulated GPU is alone")
    shared = start_ranks(gpus[0], device, rank_timeout) if part else None
    import torch

    from ..measure import ranks as bench
    from ..run.checkpoint import Checkpoint
    from ..run.devices import check_device
    from ..run.workload import workload as find_workload

    check_device(device)
    loads = [find_workload(name) for name in workload or bench.LOADS]
    loads = [load.override(prompt_tokens=context, max_running=max_running) for load in loads]
    loads = [load.override(requests=load.max_running, new_tokens=bench.STEPS) for load in loads]
    if part:
        for points in bench.measure(loads, Checkpoint(model[0], shared), device):
            if is_first():
                part.write_text(json.dumps([dataclasses.asdict(point) for point in points]))
        return
    given = [("--workload", load.name) for load in loads] + [("--device", device), ("--rank-timeout", rank_timeout)]
    given += [(name, value) for name, value in (("--context", context), ("--max-running", max_running)) if value]
    arguments = ["bench", "ranks", *(str(word) for option in given for word in option)]
    counts = gpus or [count for count in bench.GPUS if device == "cpu" or count <= torch.cuda.device_count()]
    points = []
    with console.status("") as status:
        for point in bench.gather(counts, model or bench.MODELS, arguments, status.update):
            points.append(point)
            if json_file:  # it takes minutes, and what is measured is measured
                bench.table(points, device).save(json_file, "ranks")
    console.print(bench.table(points, device).table())


@app.command()
def regimes(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the points to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the map: a .png, .svg or .pdf file.")] = None,
    compile: Compile = False,
) -> None:
    """Bubbles of a synchronous engine by model and batch size, on the GPU."""
    import torch

    from ..measure import tables
    from ..measure.regimes import regimes

    check_writable(json_file, "--json")
    check_plot(plot)
    if not torch.cuda.is_available():
        raise InputError("the regime map needs a CUDA GPU; torch finds none")
    entry = tables.regime_entry(regimes("cuda", compile=compile))
    console.print(tables.regimes(entry))
    if json_file:
        json_file.write_text(json.dumps(entry, indent=1) + "\n")
    if plot:
        from ..pictures.charts import regimes as chart

        title = f"Bubbles of a synchronous engine with CUDA graphs, {entry['environment']['device']}"
        draw(chart(tables.regime_points(entry), title=title), plot)
