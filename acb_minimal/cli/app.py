"""The `acb` command: reads options, prints results. What it prints is computed elsewhere."""

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from . import measure
from .options import (
    WORKLOADS,
    Chapter,
    Context,
    MaxRunning,
    ModelName,
    NewTokens,
    Requests,
    check_figures,
    check_writable,
    console,
    print_answer,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class TokensColumn(ProgressColumn):
    """Tokens generated so far. Requests may all finish at the end, and a bar of them alone would seem to hang."""

    def __init__(self, session):
        super().__init__()
        self.session = session

    def render(self, task) -> Text:
        return Text(f"{sum(len(request.generated) for request in self.session.requests):,} tokens")


@app.callback()
def acb() -> None:
    """Asynchronous continuous batching, step by step."""


@app.command()
def run(
    chapter: Chapter,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of text; repeatable.")] = None,
    workload: Annotated[str | None, typer.Option(help=WORKLOADS, show_default="demo")] = None,
    model: ModelName = None,
    requests: Requests = None,
    context: Context = None,
    new_tokens: NewTokens = None,
    max_running: MaxRunning = None,
    device: Annotated[str, typer.Option(help="auto, cuda, sim or cpu.")] = "auto",
    page_size: Annotated[int, typer.Option(help="Positions per KV page.")] = 64,
    pages: Annotated[
        int | None, typer.Option(help="KV pages.", show_default="as many as max-running of the longest requests need")
    ] = None,
    gpu_hour_price: Annotated[float, typer.Option(help="USD per hour of this machine.")] = 5.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures and tokens to this file.")] = None,
    replay: Annotated[str | None, typer.Option(help="Show the schedule of this seed, as check found it.")] = None,
) -> None:
    """Serve prompts, or a workload, through one chapter's engine."""
    if replay is not None:
        _replay(chapter, replay)
        return
    from ..run.checkpoint import Checkpoint
    from ..run.session import Session
    from ..run.workload import Job
    from ..run.workload import workload as find_workload

    check_writable(json_file)
    if gpu_hour_price <= 0:
        raise InputError(f"gpu hour price is {gpu_hour_price:g}; it must be above 0")
    if prompt:
        for name, value in (("--workload", workload), ("--requests", requests), ("--context", context)):
            if value is not None:
                raise InputError(f"{name} {value} does not go with --prompt: it describes a workload")
        checkpoint = Checkpoint(model or "counter")
        given = {"max_new_tokens": new_tokens, "max_running": max_running}
        given = {name: value for name, value in given.items() if value is not None}
        job = Job(prompt, page_size=page_size, pages=pages, **given)
    else:
        load = find_workload(workload or "demo").override(
            requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
        )
        checkpoint = Checkpoint(load.model)
        job = load.job(checkpoint.vocab_size, page_size=page_size, pages=pages)
    session = Session(job, chapter, checkpoint, device)
    _print_refused(session.refused)
    if not session.requests:
        raise typer.Exit(2)

    completions = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TokensColumn(session),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        refresh_per_second=4,
    ) as progress:
        task = progress.add_task("requests finished", total=len(session.requests))
        for completion in session.run():
            completions.append(completion)
            asked = job.prompts[int(completion.id)]
            if completion.text is not None and isinstance(asked, str):
                print_answer(asked, completion.text, whole=bool(prompt))
            progress.advance(task)
    _print_figures(session, chapter, gpu_hour_price)
    if json_file:
        _write_json(json_file, session, chapter, completions, gpu_hour_price)
    if session.refused:
        raise typer.Exit(1)


def _print_refused(refused: dict[str, str], most: int = 5) -> None:
    for reason in list(refused.values())[:most]:
        print(f"refused: {reason}", file=sys.stderr)
    if len(refused) > most:
        print(f"refused: {len(refused) - most} more", file=sys.stderr)


def _print_figures(session, chapter: str, gpu_hour_price: float) -> None:
    from ..measure.figures import Figures

    figures = Figures.of(session)
    decode = figures.ms_per_decode_step
    table = Table(title=f"{chapter}, {session.checkpoint.name}, {session.device.name}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests", f"{figures.requests:,}")
    table.add_row("prompt tokens", f"{figures.prompt_tokens:,}")
    table.add_row("new tokens", f"{figures.new_tokens:,}")
    table.add_row("seconds", f"{figures.seconds:.2f}")
    table.add_row("new tokens/s", f"{figures.tokens_per_second:,.0f}")
    table.add_row(f"ms per step (mean of {figures.steps:,})", f"{figures.ms_per_step:.2f}")
    table.add_row("ms per decode step (median)", "-" if decode is None else f"{decode:.2f}")
    cost = figures.usd_per_million_tokens(gpu_hour_price)
    table.add_row(f"$ per million new tokens (${gpu_hour_price:g} an hour)", f"{cost:.2f}")
    console.print(table)


def _write_json(path: Path, session, chapter: str, completions, gpu_hour_price: float) -> None:
    from ..measure.figures import Figures, environment

    figures = Figures.of(session)
    record = {
        "command": " ".join(["acb", *sys.argv[1:]]),
        "environment": environment(session.device),
        "chapter": chapter,
        "model": session.checkpoint.name,
        "figures": dataclasses.asdict(figures)
        | {"gpu_hour_price": gpu_hour_price, "usd_per_million": figures.usd_per_million_tokens(gpu_hour_price)},
        "refused": session.refused,
        "completions": [dataclasses.asdict(completion) for completion in completions],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


@app.command()
def check(
    chapter: Chapter,
    schedules: Annotated[int, typer.Option(help="Different schedules to run one by one.")] = 100,
    deletions: Annotated[bool, typer.Option("--deletions", help="Instead, take away each line that orders.")] = False,
    device: Annotated[str, typer.Option(help="sim; for deletions also cuda.")] = "sim",
    json_file: Annotated[Path | None, typer.Option("--json", help="Put the deletions into this file.")] = None,
) -> None:
    """Look for races in a chapter's engine, under all schedules of a few small cases."""
    from ..check import tables
    from ..check.schedules import search
    from ..run.devices import check_device
    from ..run.engines import chapter_path, load_chapter

    check_device(device)
    if device not in ("sim", "cuda") or (device == "cuda" and not deletions):
        raise InputError(f"device {device!r} does not go with this check: only --deletions runs on cuda, all on sim")
    if schedules < 1:
        raise InputError(f"schedules is {schedules}; it must be at least 1")
    if json_file and not deletions:
        raise InputError(f"nothing to put into {str(json_file)!r}: --json goes with --deletions")
    check_figures(json_file)
    engine_class = load_chapter(chapter)
    with console.status("") as status:
        if deletions:
            found = tables.deletions(chapter, device, status.update)
            console.print(found.table())
            if json_file:
                found.save(json_file, chapter_path(chapter).stem)
            return
        verdict = search(engine_class, schedules, progress=status.update)
    console.print(tables.verdict(chapter, verdict))
    if verdict.outcome is not None:
        raise typer.Exit(1)


def _replay(chapter: str, seed: str) -> None:
    """Prints what happened in a schedule, in order."""
    from ..check import tables
    from ..check.schedules import replay
    from ..run.engines import load_chapter

    outcome = replay(load_chapter(chapter), seed)
    console.print(tables.timeline(chapter, seed, outcome))
    if not outcome.clean:
        raise typer.Exit(1)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A chapter (ch2_streams, ch2), or the path of a file.")],
    new: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """What changes from one chapter to another."""
    from ..measure.compare import diff

    console.print(Syntax(diff(old, new), "diff", background_color="default", word_wrap=True))


for command in (measure.profile, measure.compare, measure.results, measure.idle, measure.calibrate):
    app.command()(command)
app.add_typer(measure.bench, name="bench")


def main() -> None:
    """Runs the command. Whatever goes wrong is one line on stderr; ACB_TRACEBACK=1 shows the traceback as well."""
    for library in ("TRANSFORMERS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")  # their warnings would bury our one line
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        if os.environ.get("ACB_TRACEBACK"):
            traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        _fail(f"{type(error).__name__}: {text} ({where.filename}:{where.lineno})", 1)


def _fail(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
