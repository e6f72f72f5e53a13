"""`acb check` and `acb diff`: whether an engine is in order, and what sets one apart from another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..errors import EngineError, InputError
from .console import check_writable, console
from .groups import Chapter, option


def check(
    command: typer.Context,
    chapter: Chapter,
    seconds: option(float, "How long to look for schedules, about.") = 15.0,
    beside: option(str | None, "A chapter to time it beside.", show_default="the nearest") = None,
    replay: option(str | None, "Instead, show the schedule of this seed, in order.") = None,
    deletions: option(bool, "Instead, take away each line that orders.", "--deletions") = False,
    json_file: option(Path | None, "Put the deletions into this file.", "--json") = None,
) -> None:
    """Look for races in a chapter's engine, under the schedules of a few small cases, and time it."""
    if replay is not None:
        _check_alone(command, "--replay")
    if deletions:
        _check_alone(command, "--deletions", "--json")
    if not 0 < seconds < float("inf"):
        raise InputError(f"seconds is {seconds:g}; it must be a number above 0")
    if json_file and not deletions:
        raise InputError(f"nothing to put into {str(json_file)!r}: --json goes with --deletions")
    check_writable(json_file, "--json")
    if json_file and json_file.exists():
        from ..measure import result_table

        result_table.load(json_file)  # nothing but such tables may be overwritten
    from ..check import checking, tables
    from ..check.watchdog import Broken, apart
    from ..run.engines import chapter_path

    file = chapter_path(chapter)
    beside = beside and chapter_path(beside).stem
    try:
        if replay is not None:
            outcome = apart(checking.replayed, chapter, replay, file=str(file), shown=_spinner())
            console.print(tables.timeline(chapter, replay, outcome))
            clean = outcome.clean
        elif deletions:
            found = apart(checking.mutated, chapter, file=str(file), shown=_spinner())
            console.print(found.table())
            if json_file:
                found.save(json_file, file.stem)
            clean = True
        else:
            checked = apart(checking.check, chapter, seconds, beside, file=str(file), shown=_spinner())
            console.print(tables.verdict(chapter, checked.found))
            clean = checked.found.outcome is None
            if checked.mine is not None:
                console.print(tables.time(checked.mine, checked.theirs))
            elif checked.untimed:
                console.print(checked.untimed)
    except Broken as error:
        raise EngineError(f"{chapter} is not in order: {error}") from None
    if not clean:
        raise typer.Exit(1)


def _check_alone(command: typer.Context, name: str, *others: str) -> None:
    """Whether an option was given with no other than these."""
    for each in command.command.params:
        given = command.get_parameter_source(each.name).name == "COMMANDLINE"
        if given and each.param_type_name == "option" and each.opts[0] not in (name, *others):
            raise InputError(f"{each.opts[0]} does not go with {name}")


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """Shows what goes on."""
    with console.status("") as status:
        yield status.update


def diff(
    old: Annotated[str, typer.Argument(help="A chapter (ch2_streams, ch2), or the path of a file.")],
    new: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """What changes in the code from one chapter to another."""
    from rich.syntax import Syntax

    from ..run.engines import diff

    console.print(Syntax(diff(old, new), "diff", background_color="default", word_wrap=True))
