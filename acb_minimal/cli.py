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
    from .load import Checkpoint
    from .run import Session
    from .workload import workload as find_workload

    _check_writable(json_file)
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
    options |= {"page_size": page_size, "pages": pages}
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
    if session.refused:
        raise typer.Exit(1)


def _check_writable(*files: Path | None) -> None:
    for file in filter(None, files):
        if file.is_dir() or not file.parent.is_dir():
            raise InputError(f"cannot write {str(file)!r}: give the path of a file in a folder that exists")


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
    chapter: Chapter,
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
def profile(
    chapter: Chapter,
    workload: WorkloadName = "demo",
    model: ModelName = None,
    requests: Requests = None,
    context: Context = None,
    new_tokens: NewTokens = None,
    max_running: MaxRunning = None,
    device: Annotated[str, typer.Option(help="auto, cuda or sim.")] = "auto",
    trace: Annotated[Path | None, typer.Option(help="Write a trace of the run, for Perfetto.")] = None,
    kernels: Annotated[Path | None, typer.Option(help="Write what torch's profiler saw of a few batches.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a few steps: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Where the time of a chapter's steps goes: kernels, launch gaps, bubbles."""
    import torch

    from . import report
    from .compare import Comparison
    from .profile import profile
    from .workload import workload as find_workload

    _check_writable(trace, kernels)
    _check_plot(plot)
    load = find_workload(workload).override(
        requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
    )
    if kernels and (device == "sim" or not torch.cuda.is_available()):
        raise InputError(f"cannot write {str(kernels)!r}: there are kernels on a CUDA GPU only")
    done = profile(chapter, load, device)
    console.print(report.comparison(report.entry(load, [Comparison(done, 1.0, 1.0)])))
    if done.profiled_bubbles is not None:
        console.print(f"bubbles by the kernels' own times, under torch's profiler: {done.profiled_bubbles:.2%}")
    if trace:
        done.trace.save_chrome(trace)
    if kernels and done.kernel_trace:
        kernels.write_text(json.dumps(done.kernel_trace))
    if plot:
        from .plot import timeline

        batches = sorted(done.trace.batches())
        middle = batches[len(batches) // 2]
        timeline(done.trace, middle, min(middle + 3, batches[-1]), title=f"{chapter}, {load.name}").savefig(plot)


def _check_plot(file: Path | None) -> None:
    _check_writable(file)
    if file and file.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot draw {str(file)!r}: its name must end in .png, .svg or .pdf")


@app.command()
def compare(
    workload: WorkloadName = "demo",
    chapter: Annotated[list[str] | None, typer.Option(help="Only this chapter; repeatable.")] = None,
    model: ModelName = None,
    requests: Requests = None,
    context: Context = None,
    new_tokens: NewTokens = None,
    max_running: MaxRunning = None,
    device: Annotated[str, typer.Option(help="auto, cuda or sim.")] = "auto",
    kernels: Annotated[bool, typer.Option(help="On a GPU, run again under torch's profiler to see kernels.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Put the figures into this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the breakdowns: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Serve one workload through all chapters and put them side by side."""
    from . import report, results
    from .compare import compare
    from .workload import workload as find_workload

    _check_writable(json_file)
    _check_plot(plot)
    if json_file and json_file.exists():
        results.load(json_file)  # nothing but results may be overwritten, and now is the time to say so
    load = find_workload(workload).override(
        requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
    )
    done = []
    for comparison in compare(load, device, chapter or (), kernels):
        if load.prompt_tokens is None and not done:
            for prompt, completion in list(zip(load.prompts(0), comparison.profile.completions, strict=True))[:5]:
                _print_answer(prompt, completion.text, whole=False)
            console.print()
        done.append(comparison)
    entry = report.entry(load, done)
    console.print(report.comparison(entry))
    if load.model != "counter" and entry["environment"]["device"].startswith("simulated"):
        console.print("The simulator only keeps time for this model: its tokens are placeholders.")
    if json_file:
        results.save(json_file, load.name, entry)
    if plot and report.breakdowns(entry):
        _plot_breakdowns(entry, plot)


def _plot_breakdowns(entry: dict, file: Path) -> None:
    from . import plot, report

    plot.breakdown(report.breakdowns(entry), title=report.title(entry)).savefig(file)


@app.command()
def results(
    file: Annotated[Path, typer.Argument(help="What `acb compare --json` wrote.")],
    plot: Annotated[Path | None, typer.Option(help="Draw the breakdowns, each workload to NAME-WORKLOAD.")] = None,
) -> None:
    """Show stored results as they looked when they were measured."""
    from . import report
    from .results import load

    _check_plot(plot)
    for name, entry in load(file).items():
        console.print(report.comparison(entry))
        if name == "headline":
            console.print(report.headline(entry))
        if plot and report.breakdowns(entry):
            _plot_breakdowns(entry, plot.with_stem(f"{plot.stem}-{name}"))


@app.command()
def idle(
    trace: Annotated[Path, typer.Argument(help="A trace of torch's profiler, or any Chrome trace; .json or .json.gz.")],
) -> None:
    """How busy the GPU is in a trace, of any engine, and what the host does while it is not."""
    from . import idle

    for report in idle.analyse(idle.read(trace)["traceEvents"]):
        console.print(idle.render(report))


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


@bench.command("trace")
def bench_trace() -> None:
    """Tokens per second with a trace and without."""
    from .bench import trace

    console.print(trace())


@bench.command("regimes")
def bench_regimes(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the points to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the map: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Bubbles of a synchronous engine by model and batch size, on the GPU."""
    import torch

    from . import report
    from .regimes import regimes

    _check_writable(json_file)
    _check_plot(plot)
    if not torch.cuda.is_available():
        raise InputError("the regime map needs a CUDA GPU; torch finds none")
    entry = report.regime_entry(regimes("cuda"))
    console.print(report.regimes(entry))
    if json_file:
        json_file.write_text(json.dumps(entry, indent=1) + "\n")
    if plot:
        from .plot import regimes as draw

        title = f"Bubbles of a synchronous engine with CUDA graphs, {entry['environment']['device']}"
        draw(report.regime_points(entry), title=title).savefig(plot)


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
