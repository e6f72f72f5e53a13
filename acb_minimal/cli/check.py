"""`acb check` and `acb diff`: whether an engine is in order, and what sets one apart from another."""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from ..errors import InputError
from .options import Chapter, check_alone, check_record, console


def check(
    command: typer.Context,
    chapter: Chapter,
    schedules: Annotated[int, typer.Option(help="Different schedules to run one by one.")] = 100,
    beside: Annotated[str | None, typer.Option(help="A chapter to time it beside.", show_default="the nearest")] = None,
    replay: Annotated[str | None, typer.Option(help="Instead, show the schedule of this seed, in order.")] = None,
    deletions: Annotated[bool, typer.Option("--deletions", help="Instead, take away each line that orders.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Put the deletions into this file.")] = None,
) -> None:
    """Look for races in a chapter's engine, under all schedules of a few small cases."""
    if replay is not None:
        check_alone(command, "--replay")
        show_schedule(chapter, replay)
        return
    if deletions:
        check_alone(command, "--deletions", "--json")
    from ..check import mutations, tables
    from ..check.judge import load
    from ..check.pace import nearest
    from ..check.schedules import search
    from ..run.engines import chapter_path

    if schedules < 1:
        raise InputError(f"schedules is {schedules}; it must be at least 1")
    if json_file and not deletions:
        raise InputError(f"nothing to put into {str(json_file)!r}: --json goes with --deletions")
    check_record(json_file)
    engine_class, threads = load(chapter), set(threading.enumerate())
    beside = chapter_path(beside or nearest(chapter)).stem
    with console.status("") as status:
        if deletions:
            found = mutations.table(chapter, status.update)
            console.print(found.table())
            if json_file:
                found.save(json_file, chapter_path(chapter).stem)
            return
        verdict = search(engine_class, schedules, progress=status.update)
    console.print(tables.verdict(chapter, verdict))
    if verdict.outcome is None:
        console.print(_time(engine_class, chapter, beside))
    leave(threads, verdict.outcome is None)


def _time(engine_class: type, chapter: str, beside: str) -> RenderableType:
    """How fast an engine is that is in order; or why that cannot be said."""
    from ..check import tables
    from ..check.pace import of_chapter, pace
    from ..run.engines import chapter_path

    try:
        return tables.time(pace(engine_class, chapter_path(chapter).stem), of_chapter(beside))
    except InputError as error:
        return str(error)


def show_schedule(chapter: str, seed: str) -> None:
    """Prints what happened in a schedule, in order; ends with status 1 if anything went wrong in it."""
    from ..check import tables
    from ..check.judge import load
    from ..check.schedules import replay

    engine_class, threads = load(chapter), set(threading.enumerate())
    outcome = replay(engine_class, seed)
    console.print(tables.timeline(chapter, seed, outcome))
    leave(threads, outcome.clean)


def leave(threads: set[threading.Thread], clean: bool) -> None:
    """Ends the command, with status 1 unless all is `clean`: also if a thread that the engine has begun never ends.

    Args:
        threads: those that there were before.
    """
    sys.stdout.flush()
    if any(not thread.daemon for thread in set(threading.enumerate()) - threads):
        os._exit(not clean)  # Python would wait for it
    if not clean:
        raise typer.Exit(1)


def diff(
    old: Annotated[str, typer.Argument(help="A chapter (ch2_streams, ch2), or the path of a file.")],
    new: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """What changes in the code from one chapter to another."""
    from rich.syntax import Syntax

    from ..run.engines import diff

    console.print(Syntax(diff(old, new), "diff", background_color="default", word_wrap=True))
