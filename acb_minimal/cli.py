"""The `acb` command: reads options, prints results. What it prints is computed elsewhere."""

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from .errors import InputError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
bench = typer.Typer(no_args_is_help=True, help="Measure one part on its own.")
app.add_typer(bench, name="bench")

console = Console()

WORKLOADS = "demo, long, wide, small or headline."


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
    chapter: Annotated[str, typer.Argument(help="A chapter (ch1_sync, ch1), or the path of a file with an Engine.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of text; repeatable.")] = None,
    workload: Annotated[str | None, typer.Option(help=WORKLOADS, show_default="demo")] = None,
    model: Annotated[
        str | None, typer.Option(help="counter, llama-3.1-8b, llama-3.2-1b, qwen3-8b, a folder, or a hub model.")
    ] = None,
    requests: Annotated[int | None, typer.Option(help="Requests of the workload.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of each of the workload's prompts.")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="Tokens to generate for each request, at most.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Requests in a batch, at most.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, sim or cpu.")] = "auto",
    page_size: Annotated[int, typer.Option(help="Positions per KV page.")] = 64,
    pages: Annotated[
        int | None, typer.Option(help="KV pages.", show_default="as many as max-running of the longest requests need")
    ] = None,
    gpu_hour_price: Annotated[float, typer.Option(help="USD per hour of this machine.")] = 5.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures and tokens to this file.")] = None,
    trace_file: Annotated[Path | None, typer.Option("--trace", help="Write a trace for Perfetto to this file.")] = None,
    replay: Annotated[str | None, typer.Option(help="Show the schedule of this seed, as check found it.")] = None,
) -> None:
    """Serve prompts, or a workload, through one chapter's engine."""
    if replay is not None:
        _replay(chapter, replay)
        return
    from .load import Checkpoint
    from .run import Session
    from .workload import workload as find_workload

    for file in filter(None, (json_file, trace_file)):
        if file.is_dir() or not file.parent.is_dir():
            raise InputError(f"cannot write {str(file)!r}: give the path of a file in a folder that exists")
    if trace_file and device == "cpu":
        raise InputError("there is no trace of device 'cpu': host and device are one; use cuda or sim")
    if gpu_hour_price <= 0:
        raise InputError(f"gpu hour price is {gpu_hour_price:g}; it must be above 0")
    if prompt:
        for name, value in (("--workload", workload), ("--requests", requests), ("--context", context)):
            if value is not None:
                raise InputError(f"{name} {value} does not go with --prompt: it describes a workload")
        checkpoint = Checkpoint(model or "counter")
        options = {"max_new_tokens": 128 if new_tokens is None else new_tokens}
        options |= {} if max_running is None else {"max_running": max_running}
        prompts = prompt
    else:
        load = find_workload(workload or "demo").override(
            requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
        )
        checkpoint = Checkpoint(load.model)
        options = {
            "max_new_tokens": load.new_tokens,
            "max_running": load.max_running,
            "max_batch_tokens": load.max_batch_tokens,
            "ignore_stop": load.prompt_tokens is not None,
        }
        prompts = load.prompts(checkpoint.vocab_size)
    options |= {"page_size": page_size, "pages": pages, "trace": trace_file is not None}
    session = Session(prompts, chapter, checkpoint, device, **options)
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
            if completion.text is not None and isinstance(prompts[int(completion.id)], str):
                _print_answer(prompts[int(completion.id)], completion.text, whole=bool(prompt))
            progress.advance(task)
    _print_figures(session, chapter, gpu_hour_price)
    if json_file:
        _write_json(json_file, session, chapter, completions, gpu_hour_price)
    if trace_file:
        session.trace.save_chrome(trace_file)
    if session.refused:
        raise typer.Exit(1)


def _print_answer(prompt: str, text: str, whole: bool) -> None:
    """On one line, cut to the width of the terminal unless `whole`."""
    console.print(Text(f"{prompt} -> {text}"), no_wrap=True, overflow="ignore" if whole else "ellipsis", crop=not whole)


def _print_refused(refused: dict[str, str], most: int = 5) -> None:
    for reason in list(refused.values())[:most]:
        print(f"refused: {reason}", file=sys.stderr)
    if len(refused) > most:
        print(f"refused: {len(refused) - most} more", file=sys.stderr)


def _print_figures(session, chapter: str, gpu_hour_price: float) -> None:
    figures = session.figures()
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
    from .results import environment

    figures = session.figures()
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
    chapter: Annotated[str, typer.Argument(help="A chapter (ch1_sync, ch1), or the path of a file with an Engine.")],
    schedules: Annotated[int, typer.Option(help="Different schedules to run one by one.")] = 100,
    deletions: Annotated[bool, typer.Option("--deletions", help="Instead, take away each line that orders.")] = False,
    device: Annotated[str, typer.Option(help="sim; for deletions also cuda.")] = "sim",
) -> None:
    """Look for races in a chapter's engine, under all schedules of a few small cases."""
    from . import verdicts
    from .run import check_device, load_chapter
    from .search import search

    check_device(device)
    if device not in ("sim", "cuda") or (device == "cuda" and not deletions):
        raise InputError(f"device {device!r} does not go with this check: only --deletions runs on cuda, all on sim")
    if schedules < 1:
        raise InputError(f"schedules is {schedules}; it must be at least 1")
    engine_class = load_chapter(chapter)
    with console.status("") as status:
        if deletions:
            console.print(verdicts.deletions(chapter, device, status.update))
            return
        verdict = search(engine_class, schedules, progress=status.update)
    console.print(verdicts.verdict(chapter, verdict))
    if verdict.outcome is not None:
        raise typer.Exit(1)


def _replay(chapter: str, seed: str) -> None:
    """Prints what happened in a schedule, in order."""
    from . import verdicts
    from .run import load_chapter
    from .search import replay

    outcome = replay(load_chapter(chapter), seed)
    console.print(verdicts.timeline(chapter, seed, outcome))
    if not outcome.clean:
        raise typer.Exit(1)


@app.command()
def compare(
    workload: Annotated[str, typer.Option(help=WORKLOADS)] = "demo",
    model: Annotated[str | None, typer.Option(help="Run the workload on this model.")] = None,
    requests: Annotated[int | None, typer.Option(help="Requests of the workload.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of each of the workload's prompts.")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="Tokens to generate for each request, at most.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Requests in a batch, at most.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or sim.")] = "auto",
) -> None:
    """Serve one workload through all chapters and put them side by side."""
    from .compare import compare
    from .workload import workload as find_workload

    load = find_workload(workload).override(
        requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
    )
    table = Table(title_justify="left", caption_justify="left")
    table.caption = (
        "ms/step: mean over all batches; decode: median over batches of decodes only. GPU busy: share of time with a "
        "batch on the GPU, launch gaps inside it included. same: share of tokens that are chapter 1's."
    )
    for column in ("chapter", "ms/step", "decode", "tokens/s", "GPU busy", "speed-up", "same"):
        table.add_column(column, justify="left" if column == "chapter" else "right", no_wrap=True)
    for done in compare(load, device):
        if load.prompt_tokens is None and not table.rows:
            for prompt, completion in list(zip(load.prompts(0), done.completions, strict=True))[:5]:
                _print_answer(prompt, completion.text, whole=False)
            console.print()
        figures = done.figures
        table.title = f"{load.name} ({load.model}) on {done.device}"
        table.add_row(
            done.chapter,
            f"{figures.ms_per_step:.2f}",
            "-" if figures.ms_per_decode_step is None else f"{figures.ms_per_decode_step:.2f}",
            f"{figures.tokens_per_second:,.0f}",
            "-" if figures.gpu_busy is None else f"{figures.gpu_busy:.2%}",
            f"{done.speed_up:.2f}",
            "yes" if done.same_tokens == 1 else f"{done.same_tokens:.1%}",
        )
    console.print(table)
    if load.model != "counter" and done.device.startswith("simulated"):
        console.print("The simulator only keeps time for this model: its tokens are placeholders.")


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A chapter (ch2_streams, ch2), or the path of a file.")],
    new: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """What changes from one chapter to another."""
    from .compare import diff

    console.print(Syntax(diff(old, new), "diff", background_color="default", word_wrap=True))


@app.command()
def calibrate() -> None:
    """Measure what things cost on this GPU and write the simulator's costs.json."""
    from .calibrate import calibrate

    console.print(calibrate())


@bench.command("host")
def bench_host() -> None:
    """Host time of schedule + write + update per step, by rows and context length. Needs no GPU."""
    from .bench import host

    console.print(host())


@bench.command("attention")
def bench_attention() -> None:
    """Decode attention on the GPU: bytes of keys and values read per second."""
    from .bench import attention

    console.print(attention())


@bench.command("memory")
def bench_memory() -> None:
    """Device memory of the second slot and the second set of graphs, beside all the rest."""
    from .bench import memory

    console.print(memory())


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
