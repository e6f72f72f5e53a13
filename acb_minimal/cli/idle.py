"""The command `acb idle`: whether the engine of a trace overlaps."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import InputError
from .console import check_apart, check_plot, console, draw
from .groups import option

TRACES = (
    "A trace of torch's profiler, or of `acb profile --trace`; .json or .json.gz. Of two, the second is held against "
    "the first; of several ranks of one run, each is shown."
)
EXPOSED = "Exit with status 1 if the GPU waits for the host longer than this share of a steady step, 0 to 1."


def idle(
    traces: Annotated[list[Path], typer.Argument(help=TRACES)],
    begin: option(float, "Seconds from the trace's start: leave out what is earlier.", "--from") = 0,
    end: option(float, "Leave out what is later.", "--to", show_default="all") = float("inf"),
    step_ms: option(float | None, "How long a step takes without the profiler.") = None,
    fail_above: option(float | None, EXPOSED) = None,
    plot: option(Path | None, "Draw a few steady steps: a .png, .svg or .pdf file.") = None,
    annotate: option(Path | None, "Write the trace with steps and gaps added, for Perfetto.") = None,
    json_file: option(Path | None, "Write all of it to this file.", "--json") = None,
) -> None:
    """Does an engine overlap? How long the GPU of a trace waits for the host in a steady step, and why."""
    check_plot(plot)
    for file, name in ((annotate, "--annotate"), (json_file, "--json"), (plot, "--plot")):
        check_apart(file, name, traces)
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise InputError(f"--fail-above is {fail_above:g}; it must be from 0 to 1")
    if step_ms is not None and step_ms <= 0:
        raise InputError(f"--step-ms is {step_ms:g}; it must be above 0")
    if not 0 <= begin < end:
        raise InputError(f"--from {begin:g} --to {end:g} leaves nothing: give seconds, the first less than the second")
    if len(traces) > 1 and (plot or annotate or step_ms):
        raise InputError(f"--plot, --annotate and --step-ms are for one trace, not for {len(traces)}")

    from ..trace import idle, tables, tracks

    recordings = [_read(path) for path in traces]
    if annotate and recordings[0].told:
        raise InputError(f"{str(traces[0])!r} is a trace of ours: it has its batches already")
    found = [idle.analyse(recording, begin, end, step_ms and step_ms / 1e3) for recording in recordings]
    ranks = [recording.rank for recording in recordings]
    many = None not in ranks and len(set(ranks)) == len(ranks) > 1 and len({size for _, size in ranks}) == 1
    if len(traces) > 2 and not many:
        raise InputError(f"{len(traces)} traces, and not of different ranks of one run: give two to compare them")
    if len(traces) == 2 and not many:
        console.print(tables.compare(*map(tables.slowest, found)))
        reports = found[1]
    else:
        both = [(rank, report) for rank, those in zip(ranks, found, strict=True) for report in those]
        reports = [report for _, report in both]
        names = [f"rank {rank[0]}, {report.name}" if many else report.name for rank, report in both]
        for name, report in zip(names, reports, strict=True):
            console.print(tables.render(report, name))
        if len(reports) > 1:
            console.print(tables.side_by_side(names, reports))
    if json_file:
        figures = {str(path): [report.figures() for report in those] for path, those in zip(traces, found, strict=True)}
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    if annotate:
        tracks.annotate(traces[0], annotate, recordings[0], reports)
    if plot:
        from ..pictures.timeline import timeline

        shown, first, last = tracks.timeline(tables.slowest(reports))
        draw(timeline(shown, first, last, title=traces[0].name), plot)
    if fail_above is not None:
        for report in reports:
            if report.refusals:
                raise InputError(f"no verdict from the trace of {report.name}: {report.refusals[0]}")
        if any(report.typical.exposed > fail_above for report in reports):
            raise typer.Exit(1)


def _read(path: Path):
    from ..trace import idle

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"reading {path.name}", total=1.0)
        return idle.read(path, lambda share: progress.update(task, completed=share))
