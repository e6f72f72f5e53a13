"""`acb lab`: labs to do alone or in a class. What they are is in course/labs."""

import datetime
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .check import leave
from .options import console

app = typer.Typer(invoke_without_command=True)

Where = Annotated[str, typer.Argument(metavar="FOLDER", help="A started lab: its folder, or its name.")]


@app.callback()
def lab(command: typer.Context) -> None:
    """Build the engines yourself, find bugs, and be judged. Alone: the labs, and how far you are."""
    if command.invoked_subcommand is None:
        from ..course.labs import folder, screens

        here = Path()
        above = here.absolute().parent if (here / folder.PROGRESS).exists() else here
        console.print(screens.listing(folder.furthest(folder.inside(above))))


@app.command()
def start(
    name: Annotated[str, typer.Argument(help="The lab: one of those that acb lab lists.")],
    into: Annotated[Path | None, typer.Option(help="The folder to make.", show_default="the lab's name, here")] = None,
) -> None:
    """Make a folder with an engine to change, and a task."""
    from ..course.labs import catalog, folder, screens

    found = catalog.find(name)
    console.print(screens.started(folder.start(found, Path(name) if into is None else into)), highlight=False)


@app.command()
def check(
    where: Where = ".",
    watch: Annotated[bool, typer.Option("--watch", help="Judge on every save, until it is solved.")] = False,
    device: Annotated[str, typer.Option(help="sim; or cuda, to measure it on a GPU as well.")] = "sim",
) -> None:
    """Judge a lab's engine: what can be said at once, then the last word."""
    from ..course.labs import folder, watching

    each = folder.open_lab(where)
    if device not in ("sim", "cuda"):
        raise InputError(f"unknown device {device!r}: labs are judged on sim, and measured on cuda as well")
    if device == "cuda":
        from ..run.devices import check_device

        check_device(device)
    with console.status("loading torch and transformers"):  # takes seconds; a save meanwhile is no other version
        from ..course.labs import judging  # noqa: F401

    threads = set(threading.enumerate())
    if not watch:
        passed = _judge(each, device)
        leave(threads, passed)
        return
    watched = watching.Watch(each.engine)
    try:
        for _ in watched.versions():
            console.rule(f"{each.engine}, {datetime.datetime.now():%H:%M:%S}", style="dim")
            try:
                if _judge(each, device, watched.check):
                    break
            except watching.Saved:
                continue
    except KeyboardInterrupt:
        console.print()
    leave(threads, True)


@app.command()
def hint(where: Where = ".") -> None:
    """Give the next hint: from a question to nearly the line."""
    from ..course.labs import folder, screens

    each = folder.open_lab(where)
    console.print(screens.hints(each, each.hint()), highlight=False)


@app.command()
def reset(where: Where = ".") -> None:
    """Put the starter back. What was there is kept beside it."""
    from ..course.labs import folder

    each = folder.open_lab(where)
    kept = each.reset()
    console.print(f"{each.engine} is the starter again." + (f" What it was is {kept} now." if kept else ""),
                  highlight=False)  # fmt: skip


@app.command()
def report(folders: Annotated[list[Path], typer.Argument(help="A folder for each learner, with labs in it.")]) -> None:
    """Show a class: who is where, and who is stuck at what."""
    from ..course.labs import folder, screens

    for path in folders:
        if not path.is_dir():
            raise InputError(f"no folder {str(path)!r}: give one for each learner, with their labs in it")
    console.print(screens.report({str(path): folder.furthest(folder.inside(path)) for path in folders}))


def _judge(each, device: str, look: Callable[[], None] = lambda: None) -> bool:
    """Judges an engine, prints what there is to say, and keeps it; whether it has passed.

    Args:
        each: the started lab.
        look: is called now and then; what it raises ends the judging.
    """
    from ..course.labs import judging, screens

    with console.status("the quick cases"):
        ruling = judging.quick(each.lab, each.engine)
    if ruling.passed:
        console.print("Nothing found by the quick cases. More schedules:", highlight=False)
        with console.status("") as status:

            def told(text: str) -> None:
                status.update(text)
                look()

            ruling = judging.thorough(each.lab, each.engine, ruling, told)
    each.checked(ruling.said, ruling.passed)
    console.print(ruling.shown, highlight=False)
    if ruling.fault is not None:
        with console.status("looking for a wrong token"):
            shown = judging.again(each.engine, ruling)
        console.print(shown, highlight=False)
    if ruling.passed:
        _print_winnings(each, ruling, device)
    elif text := screens.stuck(each):
        console.print(text, highlight=False)
    return ruling.passed


def _print_winnings(each, ruling, device: str) -> None:
    from rich.syntax import Syntax

    from ..course.labs import screens, winnings
    from ..measure import tables

    console.print()
    for line in winnings.bars(each.lab, ruling.pace):
        console.print(line, highlight=False)
    console.print()
    if text := winnings.beside_the_chapter(each):
        console.print("From your engine to the chapter's:")
        console.print(Syntax(text, "diff", background_color="default", word_wrap=True))
    else:
        console.print("Your engine is the chapter's, line by line.")
    console.print(screens.solved(each, each.engine.read_text()), highlight=False)
    if device == "cuda":
        with console.status("") as status:
            entry = winnings.measured(each, status.update)
        console.print(tables.comparison(entry))
        console.print(f"The same once more: {winnings.command(each)}", highlight=False)
