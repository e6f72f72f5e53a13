"""The commands of `acb` that measure, and those that show what was measured."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import (
    Chapter,
    Context,
    MaxRunning,
    ModelName,
    NewTokens,
    Requests,
    WorkloadName,
    check_figures,
    check_plot,
    check_writable,
    console,
    print_answer,
)

bench = typer.Typer(no_args_is_help=True, help="Measure one part on its own.")


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

    from ..measure import tables
    from ..measure.compare import Comparison
    from ..measure.profile import profile
    from ..run.workload import workload as find_workload

    check_writable(trace, kernels)
    check_plot(plot)
    load = find_workload(workload).override(
        requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
    )
    if kernels and (device == "sim" or not torch.cuda.is_available()):
        raise InputError(f"cannot write {str(kernels)!r}: there are kernels on a CUDA GPU only")
    done = profile(chapter, load, device)
    console.print(tables.comparison(tables.entry(load, [Comparison(done, 1.0, 1.0)])))
    if done.profiled_bubbles is not None:
        console.print(f"bubbles by the kernels' own times, under torch's profiler: {done.profiled_bubbles:.2%}")
    if trace:
        done.trace.save_chrome(trace)
    if kernels and done.kernel_trace:
        kernels.write_text(json.dumps(done.kernel_trace))
    if plot:
        from ..pictures.timeline import timeline

        timeline(done.trace, *done.trace.middle(4), title=f"{chapter}, {load.name}").savefig(plot)


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
    traces: Annotated[Path | None, typer.Option(help="Write a trace of a few steps of each into this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the breakdowns: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Serve one workload through all chapters and put them side by side."""
    from ..measure import figures, tables
    from ..measure.compare import compare
    from ..run.workload import workload as find_workload

    check_writable(json_file)
    check_plot(plot)
    if traces and not traces.is_dir():
        raise InputError(f"cannot write traces into {str(traces)!r}: give a folder that exists")
    if json_file and json_file.exists():
        figures.load(json_file)  # nothing but results may be overwritten, and now is the time to say so
    load = find_workload(workload).override(
        requests=requests, prompt_tokens=context, new_tokens=new_tokens, max_running=max_running, model=model
    )
    done = []
    for comparison in compare(load, device, chapter or (), kernels):
        if load.prompt_tokens is None and not done:
            for prompt, completion in list(zip(load.prompts(0), comparison.profile.completions, strict=True))[:5]:
                print_answer(prompt, completion.text, whole=False)
            console.print()
        done.append(comparison)
        if traces:
            _save_middle(comparison.profile, traces / f"{load.name}-{comparison.profile.chapter}.json")
    entry = tables.entry(load, done)
    console.print(tables.comparison(entry))
    if load.model != "counter" and entry["environment"]["device"].startswith("simulated"):
        console.print("The simulator only keeps time for this model: its tokens are placeholders.")
    if json_file:
        figures.save(json_file, load.name, entry)
    if plot and tables.breakdowns(entry):
        _plot_breakdowns(entry, plot)


def _save_middle(profile, file: Path) -> None:
    """A trace of a few steps from the middle of a run, with all that says where it is from."""
    from ..measure.figures import command, environment

    part = profile.trace.part(*profile.trace.middle(6))
    part.save_chrome(file, chapter=profile.chapter, command=command(), **environment(profile.device))


def _plot_breakdowns(entry: dict, file: Path) -> None:
    from ..measure import tables
    from ..pictures import charts

    charts.breakdown(tables.breakdowns(entry), title=tables.title(entry)).savefig(file)


def results(
    file: Annotated[Path, typer.Argument(help="What `acb compare --json` wrote.")],
    plot: Annotated[Path | None, typer.Option(help="Draw the breakdowns, each workload to NAME-WORKLOAD.")] = None,
) -> None:
    """Show stored results as they looked when they were measured."""
    from ..measure import tables
    from ..measure.figures import load

    check_plot(plot)
    for name, entry in load(file).items():
        console.print(tables.comparison(entry))
        if name == "headline":
            console.print(tables.headline(entry))
        if plot and tables.breakdowns(entry):
            _plot_breakdowns(entry, plot.with_stem(f"{plot.stem}-{name}"))


def idle(
    trace: Annotated[Path, typer.Argument(help="A trace of torch's profiler, or any Chrome trace; .json or .json.gz.")],
) -> None:
    """How busy the GPU is in a trace, of any engine, and what the host does while it is not."""
    from ..trace import idle

    for report in idle.analyse(idle.read(trace)["traceEvents"]):
        console.print(idle.render(report))


def calibrate() -> None:
    """Measure what things cost on this GPU and write the simulator's costs.json."""
    from ..measure.calibrate import calibrate

    console.print(calibrate())


BenchJson = Annotated[Path | None, typer.Option("--json", help="Put the figures into this file.")]


def _bench(name: str, json_file: Path | None) -> None:
    """Runs a benchmark of bench.py, shows what it measured, and keeps it if there is a file for it."""

    check_figures(json_file)
    found = getattr(bench, name)()
    console.print(found.table())
    if json_file:
        found.save(json_file, name)


@bench.command("host")
def bench_host(json_file: BenchJson = None) -> None:
    """Host time of schedule + write + update per step, by rows and context length. Needs no GPU."""
    _bench("host", json_file)


@bench.command("attention")
def bench_attention(json_file: BenchJson = None) -> None:
    """Decode attention on the GPU: bytes of keys and values read per second."""
    _bench("attention", json_file)


@bench.command("memory")
def bench_memory(json_file: BenchJson = None) -> None:
    """Device memory of the second slot and the second set of graphs, beside all the rest."""
    _bench("memory", json_file)


@bench.command("trace")
def bench_trace(json_file: BenchJson = None) -> None:
    """Tokens per second with a trace and without."""
    _bench("trace", json_file)


@bench.command("myths")
def bench_myths(json_file: BenchJson = None) -> None:
    """Beliefs about streams, copies and graphs, each put to the test. Some of them need a GPU."""
    from ..measure import myths, myths_cuda
    from ..run.checkpoint import Checkpoint
    from ..run.devices import open_device

    check_figures(json_file)
    device = open_device("auto", Checkpoint("counter"))
    on_gpu = device.torch_device.type == "cuda"
    for experiment in myths.EXPERIMENTS + (myths_cuda.EXPERIMENTS if on_gpu else ()):
        found = experiment(device)
        console.print(found.table())
        if json_file:
            found.save(json_file, experiment.__name__)
    if not on_gpu:
        names = ", ".join(experiment.__name__ for experiment in myths_cuda.EXPERIMENTS)
        console.print(f"Left out, since torch finds no CUDA GPU: {names}.")


@bench.command("regimes")
def bench_regimes(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the points to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the map: a .png, .svg or .pdf file.")] = None,
) -> None:
    """Bubbles of a synchronous engine by model and batch size, on the GPU."""
    import torch

    from ..measure import tables
    from ..measure.regimes import regimes

    check_writable(json_file)
    check_plot(plot)
    if not torch.cuda.is_available():
        raise InputError("the regime map needs a CUDA GPU; torch finds none")
    entry = tables.regime_entry(regimes("cuda"))
    console.print(tables.regimes(entry))
    if json_file:
        json_file.write_text(json.dumps(entry, indent=1) + "\n")
    if plot:
        from ..pictures.charts import regimes as draw

        title = f"Bubbles of a synchronous engine with CUDA graphs, {entry['environment']['device']}"
        draw(tables.regime_points(entry), title=title).savefig(plot)
