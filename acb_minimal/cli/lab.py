"""`acb lab`: labs to do alone or in a class. What they are is in course/labs."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .console import console

app = typer.Typer(invoke_without_command=True)

Where = Annotated[str, typer.Argument(metavar="LAB", help="A started lab: its folder, its engine, or its name.")]


@app.callback()
def lab(command: typer.Context) -> None:
    """Build the engines yourself, find bugs, and be judged. Alone: the labs, and how far you are."""
    if command.invoked_subcommand is None:
        from ..course.labs import started, telling

        console.print(telling.listing(started.furthest(started.home())))


@app.command()
def watch(
    name: Annotated[str | None, typer.Argument(help="The lab to begin with.", show_default="the next")] = None,
) -> None:
    """Judge on every save, and go on to the next lab by itself; with keys for hints, a list and more."""
    from ..course.labs import lab, started, watching

    home = started.home()
    watching.watch(home, lab.find(name) if name else started.following(started.furthest(home)), console)


@app.command()
def start(
    name: Annotated[str, typer.Argument(help="The lab: one of those that acb lab lists.")],
    into: Annotated[Path | None, typer.Option(help="The folder to make.", show_default="the lab's name, here")] = None,
) -> None:
    """Make a folder with an engine to change, and a task."""
    from ..course.labs import lab, started, telling

    each = started.start(lab.find(name), Path(name) if into is None else into)
    console.print(telling.beginning(each), highlight=False)


@app.command()
def check(where: Where = ".") -> None:
    """Judge a lab's engine once: what can be said at once, then the last word."""
    from ..course.labs import started, telling

    each = started.open_lab(where)
    with console.status("loading torch and transformers") as status:
        from ..course.labs import answering, judging  # noqa: F401

        status.update("the quick cases")
        for answer in answering.answers(each.lab, each.engine, each.progress.bubbles, status.update):
            console.print(answer.shown, highlight=False)
            status.update(answer.said)
    each.checked(answer.said, answer.passed, answer.copied, answer.bubble)
    if answer.passed:
        console.print(telling.ending(each), highlight=False)
        if after := started.next_after(each):
            console.print(f"Next: acb lab watch {after.name}", highlight=False)
    elif advice := telling.stuck(each):
        console.print(f"{advice} acb lab hint {where}", highlight=False)
    if not answer.passed:
        raise typer.Exit(1)


@app.command()
def hint(where: Where = ".") -> None:
    """Give the next hint: from a question to nearly the line."""
    from ..course.labs import started, telling

    console.print(telling.hints(started.open_lab(where)), highlight=False)


@app.command()
def diff(where: Where = ".") -> None:
    """Show what sets a solved engine apart from the one it leads to, names and comments left out."""
    from ..course.labs import started, telling

    console.print(telling.diff(started.open_lab(where)), highlight=False)


@app.command()
def reset(where: Where = ".") -> None:
    """Put the starter back. What was there is kept beside it."""
    from ..course.labs import started, telling

    each = started.open_lab(where)
    console.print(telling.was_reset(each, each.reset()), highlight=False)


@app.command()
def report(folders: Annotated[list[Path], typer.Argument(help="A folder for each learner, with labs in it.")]) -> None:
    """Show a class: who is where, and who is stuck at what."""
    from ..course.labs import started, telling

    for path in folders:
        if not path.is_dir():
            raise InputError(f"no folder {str(path)!r}: give one for each learner, with their labs in it")
    console.print(telling.report({str(path): started.furthest(path) for path in folders}))
