"""`acb bench`: measures one part on its own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import JsonFile, check_plot, check_record, check_writable, console, draw

app = typer.Typer(no_args_is_help=True, help="Measure one part on its own.")


def _part(name: str, json_file: Path | None) -> None:
    """Runs a benchmark of measure/parts.py, shows what it measured, and keeps it if there is a file for it."""
    from ..measure import parts

    check_record(json_file)
    found = getattr(parts, name)()
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
def memory(json_file: JsonFile = None) -> None:
    """Device memory of the second slot and the second set of graphs, beside all the rest."""
    _part("memory", json_file)


@app.command()
def trace(json_file: JsonFile = None) -> None:
    """Tokens per second with a trace and without."""
    _part("trace", json_file)


@app.command()
def roofline(json_file: JsonFile = None) -> None:
    """A decode step on the GPU beside the floor that memory sets, by group of kernels, as it is and compiled."""
    from ..measure.roofline import roofline

    check_record(json_file)
    with console.status("") as status:
        found = roofline(status.update)
    console.print(found.table())
    if json_file:
        found.save(json_file, "roofline")


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
    console.print(found.table())
    if json_file:
        found.save(json_file, "law")
    if plot:
        from ..pictures.law import gains

        draw(gains(found), plot)


@app.command()
def myths(json_file: JsonFile = None) -> None:
    """Beliefs about streams, copies and graphs, each put to the test. Some of them need a GPU."""
    from ..measure import myths, myths_cuda
    from ..measure.verdicts import verdict
    from ..run.checkpoint import Checkpoint
    from ..run.devices import open_device

    check_record(json_file)
    device = open_device("auto", Checkpoint("counter"))
    on_gpu = device.kind == "cuda"
    for experiment in myths.EXPERIMENTS + (myths_cuda.EXPERIMENTS if on_gpu else ()):
        found = experiment(device)
        console.print(found.table())
        console.print(verdict(experiment.__name__, found), highlight=False)
        if json_file:
            found.save(json_file, experiment.__name__)
    if not on_gpu:
        names = ", ".join(experiment.__name__ for experiment in myths_cuda.EXPERIMENTS)
        console.print(f"Left out, since torch finds no CUDA GPU: {names}.")


@app.command()
def regimes(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the points to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the map: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Bubbles of a synchronous engine by model and batch size, on the GPU."""
    import torch

    from ..measure import tables
    from ..measure.regimes import regimes

    check_writable(json_file, "--json")
    check_plot(plot)
    if not torch.cuda.is_available():
        raise InputError("the regime map needs a CUDA GPU; torch finds none")
    entry = tables.regime_entry(regimes("cuda"))
    console.print(tables.regimes(entry))
    if json_file:
        json_file.write_text(json.dumps(entry, indent=1) + "\n")
    if plot:
        from ..pictures.charts import regimes as chart

        title = f"Bubbles of a synchronous engine with CUDA graphs, {entry['environment']['device']}"
        draw(chart(tables.regime_points(entry), title=title), plot)
