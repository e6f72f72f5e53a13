"""`acb bench`: measures one part on its own."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    JsonFile,
    check_plot,
    check_record,
    console,
    draw,
)

app = typer.Typer(no_args_is_help=True, help="Measure one part on its own.")


def _show(made: dict, json_file: Path | None) -> None:
    """Prints tables, and keeps each under its name if there is a file for them."""
    for name, found in made.items():
        console.print(found.table())
        if json_file:
            found.save(json_file, name)


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
