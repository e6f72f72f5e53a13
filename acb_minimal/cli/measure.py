"""The commands of `acb` that measure whole runs, and those that show what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..run.ranks import is_first, own_file
from .options import (
    RANK_TIMEOUT,
    Chapter,
    Compile,
    Context,
    Gpus,
    Graphs,
    HostWork,
    JsonFile,
    Launching,
    MaxRunning,
    ModelName,
    NewTokens,
    RankTimeout,
    Requests,
    WorkloadName,
    check_folder,
    check_plot,
    check_writable,
    choose_options,
    choose_workload,
    console,
    draw,
    print_answer,
    start_ranks,
)

Batches = Annotated[int, typer.Option(min=1, help="On a GPU, so many typical batches run under torch's profiler.")]
SYNCHRONOUS = ("ch1_sync", "ch2_streams", "ch3_events")


def profile(
    chapter: Chapter,
    workload: WorkloadName = "demo",
    model: ModelName = None,
    requests: Requests = None,
    context: Context = None,
    new_tokens: NewTokens = None,
    max_running: MaxRunning = None,
    device: Annotated[str, typer.Option(help="auto, cuda or sim.")] = "auto",
    host_work: HostWork = None,
    launching: Launching = None,
    graphs: Graphs = False,
    compile: Compile = False,
    gpus: Gpus = None,
    rank_timeout: RankTimeout = RANK_TIMEOUT,
    trace: Annotated[Path | None, typer.Option(help="Write a trace of the run, for Perfetto.")] = None,
    kernels: Annotated[Path | None, typer.Option(help="Write what torch's profiler saw of a few batches.")] = None,
    operations: Annotated[
        bool,
        typer.Option(help="With --kernels, record PyTorch's operations as well. Without, there is no breakdown."),
    ] = True,
    batches: Batches = 8,
    plot: Annotated[Path | None, typer.Option(help="Draw a few steps: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Where the time of a chapter's steps goes: kernels, launch gaps, bubbles."""
    check_writable(trace, "--trace")
    check_writable(kernels, "--kernels")
    check_plot(plot)
    if not (operations or kernels):
        raise InputError("--no-operations needs --kernels: without operations there is no breakdown to show")
    ranks = start_ranks(gpus, device, rank_timeout)
    import torch

    from ..measure import tables
    from ..measure.compare import Comparison
    from ..measure.profile import Method, profile

    if kernels and (device == "sim" or not torch.cuda.is_available()):
        raise InputError(f"cannot write {str(kernels)!r}: there are kernels on a CUDA GPU only")
    chosen, checkpoint = choose_workload(
        workload,
        ranks,
        requests=requests,
        prompt_tokens=context,
        new_tokens=new_tokens,
        max_running=max_running,
        model=model,
    )
    options = choose_options(host_work, launching, graphs, compile, chosen, device, ranks)
    with console.status("") as status:
        method = Method(batches=batches, operations=operations)
        done = profile(chapter, chosen, device, checkpoint, options=options, progress=status.update, method=method)
    console.print(tables.comparison(tables.entry(chosen, [Comparison(done, 1.0, 1.0)])))
    if done.profiled_bubbles is not None:
        console.print(f"bubbles by the kernels' own times, under torch's profiler: {done.profiled_bubbles:.2%}")
    if trace:
        done.trace.save_chrome(own_file(trace))
    if kernels and done.kernel_trace:
        own_file(kernels).write_text(done.kernel_trace)
    if plot and is_first():
        from ..pictures.timeline import timeline

        draw(timeline(done.trace, *done.shown(4), title=f"{chapter}, {chosen.name}"), plot)


def compare(
    workload: WorkloadName = "demo",
    chapter: Annotated[list[str] | None, typer.Option(help="Only this chapter; repeatable.")] = None,
    model: ModelName = None,
    requests: Requests = None,
    context: Context = None,
    new_tokens: NewTokens = None,
    max_running: MaxRunning = None,
    device: Annotated[str, typer.Option(help="auto, cuda or sim.")] = "auto",
    host_work: HostWork = None,
    launching: Launching = None,
    graphs: Graphs = False,
    compile: Compile = False,
    gpus: Gpus = None,
    rank_timeout: RankTimeout = RANK_TIMEOUT,
    kernels: Annotated[bool, typer.Option(help="On a GPU, run again under torch's profiler to see kernels.")] = True,
    runs: Annotated[
        int, typer.Option(help="On a GPU, of each chapter, an odd number: the one in the middle counts.")
    ] = 1,
    batches: Batches = 8,
    json_file: JsonFile = None,
    traces: Annotated[
        Path | None, typer.Option(help="Write a trace of --batches steps of each chapter into this folder.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the breakdowns: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Serve one workload through all chapters and put them side by side."""
    check_writable(json_file, "--json")
    check_folder(traces, "--traces")
    check_plot(plot)
    ranks = start_ranks(gpus, device, rank_timeout)
    with console.status("loading torch and transformers"):  # takes seconds
        from ..measure import metrics, tables
        from ..measure.compare import compare
        from ..measure.law import law_of
        from ..measure.profile import Method

    method = Method(runs, kernels, batches)
    if ranks and runs > 1:
        raise InputError(f"runs is {runs}; with several GPUs it must be 1: each rank would keep a run of its own")
    if json_file and json_file.exists():
        metrics.load(json_file)  # nothing but results may be overwritten, and now is the time to say so
    chosen, checkpoint = choose_workload(
        workload,
        ranks,
        requests=requests,
        prompt_tokens=context,
        new_tokens=new_tokens,
        max_running=max_running,
        model=model,
    )
    options = choose_options(host_work, launching, graphs, compile, chosen, device, ranks)
    done = []
    with console.status(f"{chosen.name}: the first chapter") as status:
        for comparison in compare(chosen, device, chapter or (), checkpoint, options, status.update, method):
            if not done:
                _print_beginning(chosen, comparison.profile)
            done.append(comparison)
            parts, first = comparison.profile.breakdown, done[0].profile.breakdown
            if parts and first:
                console.print(tables.bar(comparison.profile.chapter, parts, 1.1 * first.step))
            if traces:
                file = own_file(traces / f"{chosen.name}-{comparison.profile.chapter}.json")
                _save_part(comparison.profile, batches, file)
    entry = tables.entry(chosen, done)
    console.print(tables.comparison(entry))
    if done[0].profile.breakdown and done[0].profile.chapter in SYNCHRONOUS:
        console.print(str(law_of(done[0].profile.breakdown)), highlight=False)
    if not done[0].profile.device.arithmetic:
        console.print("The simulator only keeps time for this model: its tokens are placeholders.")
    if json_file and is_first():
        metrics.save(json_file, chosen.name, entry)
    if plot and is_first() and tables.breakdowns(entry):
        _plot_breakdowns(entry, plot)


def _print_beginning(workload, profile) -> None:
    """What is compared and, of text, the first answers."""
    from ..measure import tables

    if workload.prompt_tokens is None:
        for prompt, completion in list(zip(workload.prompts(0), profile.completions, strict=True))[:5]:
            print_answer(prompt, completion.text, whole=False)
        console.print()
    if profile.breakdown:
        told = filter(None, (workload.name, profile.device.name, str(profile.options)))
        console.print(", ".join(told), highlight=False)
        console.print(tables.legend())


def _save_part(profile, steps: int, file: Path) -> None:
    """A trace of so many steps of a run, with all that says where it is from."""
    from ..measure.metrics import command, environment

    part = profile.trace.part(*profile.shown(steps))
    part.save_chrome(file, chapter=profile.chapter, command=command(), **environment(profile.device))


def _plot_breakdowns(entry: dict, file: Path) -> None:
    from ..measure import tables
    from ..pictures.breakdown import breakdown

    draw(breakdown(tables.breakdowns(entry), title=tables.title(entry)), file)


def results(
    file: Annotated[Path, typer.Argument(help="What `acb compare --json` wrote.")],
    plot: Annotated[Path | None, typer.Option(help="Draw the breakdowns, each workload to NAME-WORKLOAD.")] = None,
) -> None:
    """Show stored results as they looked when they were measured."""
    check_plot(plot)
    from ..measure import tables
    from ..measure.metrics import load

    for name, entry in load(file).items():
        console.print(tables.comparison(entry))
        if name == "headline":
            console.print(tables.headline(entry))
        if plot and tables.breakdowns(entry):
            _plot_breakdowns(entry, plot.with_stem(f"{plot.stem}-{name}"))
