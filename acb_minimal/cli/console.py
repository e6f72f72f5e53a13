"""What the commands of `acb` print with, and the checks of files that come before any work."""

import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..errors import InputError

console = Console()


def print_answer(prompt: str, text: str, whole: bool) -> None:
    """On one line, cut to the width of the terminal unless `whole`."""
    console.print(Text(f"{prompt} -> {text}"), no_wrap=True, overflow="ignore" if whole else "ellipsis", crop=not whole)


def draw(figure, file: Path) -> None:
    """Writes a matplotlib figure to where `--plot` wants it, and says so."""
    figure.savefig(file)
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


# Each raises an InputError that names the file and the option; None is no file.


def check_writable(file: Path | None, option: str) -> None:
    """Whether a file can be written."""
    if file is None:
        return
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"cannot write {str(file)!r}: {option} takes the path of a file in a folder that exists")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"cannot write {str(file)!r}: it is not permitted; give another file with {option}")


def check_plot(file: Path | None) -> None:
    """Whether a picture can be written there."""
    check_writable(file, "--plot")
    if file and file.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot draw {str(file)!r}: its name must end in .png, .svg or .pdf")


def check_apart(file: Path | None, option: str, sources: list[Path]) -> None:
    """Whether a file to write is none of those that are read, under whatever name, and no pipe or device."""
    check_writable(file, option)
    if file is None or not file.exists():
        return
    if any(source.exists() and file.samefile(source) for source in sources):
        raise InputError(f"{option} {str(file)!r} is a trace that is read: give another file")
    if not file.is_file():
        raise InputError(f"cannot write {str(file)!r}: {option} takes the path of a file, not of a pipe or a device")


def check_folder(folder: Path | None, option: str) -> None:
    """Whether files can be written into a folder."""
    if folder and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"cannot write into {str(folder)!r}: {option} takes a folder that can be written to")
