"""`acb bench`: measures one part on its own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import (
    Compile,
    JsonFile,
    check_plot,
    check_record,
    check_writable,
    console,
    draw,
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
