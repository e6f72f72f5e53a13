"""What the commands of `acb` share: their options, the console, and the checks that come before any work."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import InputError

console = Console()

CHAPTER = "A chapter (ch1_sync, ch1), or the path of a file with an Engine."
Chapter = Annotated[str, typer.Argument(help=CHAPTER)]
WORKLOADS = "demo, long, wide, small or headline."
WorkloadName = Annotated[str, typer.Option(help=WORKLOADS)]
ModelName = Annotated[
    str | None, typer.Option(help="counter, llama-3.1-8b, llama-3.2-1b, qwen3-8b, qwen3-32b, a folder, or a hub model.")
]
Requests = Annotated[int | None, typer.Option(help="Requests of the workload.")]
Context = Annotated[int | None, typer.Option(help="Tokens of each of the workload's prompts.")]
NewTokens = Annotated[int | None, typer.Option(help="Tokens to generate for each request, at most.")]
MaxRunning = Annotated[int | None, typer.Option(help="Requests in a batch, at most.")]


def check_writable(*files: Path | None) -> None:
    for file in filter(None, files):
        if file.is_dir() or not file.parent.is_dir():
            raise InputError(f"cannot write {str(file)!r}: give the path of a file in a folder that exists")


def print_answer(prompt: str, text: str, whole: bool) -> None:
    """On one line, cut to the width of the terminal unless `whole`."""
    console.print(Text(f"{prompt} -> {text}"), no_wrap=True, overflow="ignore" if whole else "ellipsis", crop=not whole)


def check_plot(file: Path | None) -> None:
    """Raises InputError unless a picture can be written there."""
    check_writable(file)
    if file and file.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot draw {str(file)!r}: its name must end in .png, .svg or .pdf")


def check_figures(file: Path | None) -> None:
    """Raises InputError unless figures can be kept there: nothing but figures may be overwritten."""
    from ..measure import record

    check_writable(file)
    if file and file.exists():
        record.load(file)
