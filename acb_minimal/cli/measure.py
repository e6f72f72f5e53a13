"""The commands of `acb` that measure whole runs, and those that show what was measured."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..run.ranks import is_first, own_file
from .console import check_folder, check_plot, check_writable, console, draw, print_answer
from .groups import Arriving, Asked, Batches, Chapter, Device, Engine, Host, Load, Pages, WorkloadName, grouped, option
from .options import choose_arrivals, choose_options, choose_workload, parse_sampling, start_ranks


@grouped
def profile(
    *,
    chapter: Chapter,
    workload: WorkloadName = "demo",
    load: Load,
    device: Device = "auto",
    host: Host,
    sampling: Asked = None,
    pages: Pages = None,
    engine: Engine,
    batches: Batches = 8,
    trace: option(Path | None, "Write a trace of the run, for Perfetto and acb idle.") = None,
    kernels: option(Path | None, "Write what torch's profiler saw of the batches.") = None,
    plot: option(Path | None, "Draw a few steps: a .png, .svg or .pdf file.") = None,
) -> None:
    """Where the time of one chapter's steps goes: `compare` of one chapter, with its trace and timeline."""
    check_writable(trace, "--trace")
    check_writable(kernels, "--kernels")
    check_plot(plot)
    ranks = start_ranks(engine.gpus, device, engine.rank_timeout)
    import torch

    if kernels and (device == "sim" or not torch.cuda.is_available()):
        raise InputError(f"cannot write {str(kernels)!r}: there are kernels on a CUDA GPU only")
    chosen, checkpoint = choose_workload(workload, load, ranks)
    asked = {"sampling": parse_sampling(sampling, checkpoint), "pages": pages}
    options = choose_options(host, engine, ranks, chosen, device, **asked)
    (done,), _ = _measure(chosen, device, [chapter], checkpoint, options, batches=batches)
    if trace:
        done.trace.save_chrome(own_file(trace))
    if kernels and done.kernel_trace:
        own_file(kernels).write_text(done.kernel_trace)
    if plot and is_first():
        from ..pictures.timeline import timeline

        draw(timeline(done.trace, *done.shown(4), title=f"{done.chapter}, {chosen.name}"), plot)


@grouped
def compare(
    *,
    workload: WorkloadName = "demo",
    chapter: option(list[str] | None, "Only this chapter; repeatable.") = None,
    load: Load,
    device: Device = "auto",
    host: Host,
    sampling: Asked = None,
    pages: Pages = None,
    engine: Engine,
    kernels: option(bool, "On a GPU, run again under torch's profiler to see kernels.") = True,
    runs: option(int, "On a GPU, of each chapter, an odd number: the one in the middle counts.") = 1,
    batches: Batches = 8,
    json_file: option(Path | None, "Put the figures into this file.", "--json") = None,
    traces: option(Path | None, "Write a trace of --batches steps of each chapter into this folder.") = None,
    plot: option(Path | None, "Draw the breakdowns: a .png, .svg or .pdf file.") = None,
    arriving: Arriving,
) -> None:
    """Serve one workload through all chapters and put them side by side."""
    check_writable(json_file, "--json")
    check_folder(traces, "--traces")
    check_plot(plot)
    coming, recorded = choose_arrivals(arriving, load)
    ranks = start_ranks(engine.gpus, device, engine.rank_timeout)
    if ranks and runs > 1:
        raise InputError(f"runs is {runs}; with several GPUs it must be 1: each rank would keep a run of its own")
    with console.status("loading torch and transformers"):  # takes seconds
        from ..measure import metrics

    if json_file and json_file.exists():
        metrics.load(json_file)  # nothing but results may be overwritten, and now is the time to say so
    chosen, checkpoint = choose_workload(workload, load, ranks, recorded)
    asked = {"sampling": parse_sampling(sampling, checkpoint), "pages": pages}
    options = replace(choose_options(host, engine, ranks, chosen, device, **asked), arrivals=coming)
    # Under the profiler, launching is slower, and so other batches would be made of who has arrived.
    method = {"runs": runs, "kernels": kernels and not coming, "batches": batches}
    profiles, entry = _measure(chosen, device, chapter or [], checkpoint, options, **method)
    for done in profiles if traces else []:
        part = done.trace.part(*done.shown(batches))
        facts = metrics.environment(done.device) | {"chapter": done.chapter, "command": metrics.command()}
        part.save_chrome(own_file(traces / f"{chosen.name}-{done.chapter}.json"), **facts)
    if json_file and is_first():
        metrics.save(json_file, chosen.name, entry)
    if plot and is_first():
        _plot_breakdowns(entry, plot)


def _measure(workload, device: str, chapters: list[str], checkpoint, options, **method) -> tuple[list, dict]:
    """Measures chapters and prints it all: the first answers, if they are text; a bar as soon as each is done; tables.

    Args:
        method: fields of a Method.

    Returns:
        Their profiles, and what to store of them.
    """
    from ..measure import compare, result_table

    done = []
    with console.status(f"{workload.name}: the first chapter") as status:
        told = status.update, compare.Method(**method)
        for profile in compare.compare(workload, device, chapters, checkpoint, options, *told):
            done.append(profile)
            entry = compare.entry(workload, done)
            if len(done) == 1:
                if workload.prompt_tokens is None:
                    for prompt, completion in list(zip(workload.prompts(0), profile.completions, strict=True))[:5]:
                        print_answer(prompt, completion.text, whole=False)
                    console.print()
                console.print(result_table.title(entry), highlight=False)
                if profile.breakdown:
                    console.print(result_table.legend())
            if profile.breakdown and done[0].breakdown:
                longest = 1.1 * done[0].breakdown.step
                speedup = None if len(chapters) == 1 else profile.speedup
                console.print(result_table.bar(profile.chapter, profile.breakdown, longest, speedup))
    console.print()
    if done[0].breakdown and done[0].typical.ahead == 0:
        console.print(str(done[0].typical.law), highlight=False)
        console.print()
    _print_comparison(entry)
    if not done[0].device.arithmetic:
        console.print("The simulator only keeps time for this model: its tokens are placeholders.")
    return done, entry


def _print_comparison(entry: dict) -> None:
    """The chapters side by side; and what those waited who asked, if they did so over time."""
    from ..measure import latency, result_table

    console.print(result_table.comparison(entry))
    for table in latency.tables(entry):
        console.print()
        console.print(table)


def _plot_breakdowns(entry: dict, file: Path) -> None:
    from ..measure import result_table
    from ..pictures.breakdown import breakdown

    if rows := result_table.breakdowns(entry):
        draw(breakdown(rows, title=result_table.title(entry)), file)


def results(
    file: Annotated[Path, typer.Argument(help="What `acb compare --json` wrote.")],
    plot: option(Path | None, "Draw the breakdowns, each workload to NAME-WORKLOAD.") = None,
) -> None:
    """Show stored results as they looked when they were measured."""
    check_plot(plot)
    from ..measure import metrics, result_table

    for name, entry in metrics.load(file).items():
        console.print(f"{result_table.title(entry)} ({entry['environment']['date']})", highlight=False)
        _print_comparison(entry)
        if plot:
            _plot_breakdowns(entry, plot.with_stem(f"{plot.stem}-{name}"))
