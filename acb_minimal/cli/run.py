"""`acb run`: serves prompts, or a workload, and says how fast that was."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ..errors import InputError
from ..run.ranks import is_first
from .arrivals import Arriving, choose_arrivals, with_recorded
from .groups import Engine, Host, Load, grouped
from .options import (
    WORKLOADS,
    Chapter,
    Pages,
    check_writable,
    choose_options,
    choose_workload,
    console,
    print_answer,
    start_ranks,
)
from .sampling import Draws, Mistake, choose_sampling


@grouped
def run(
    *,
    chapter: Chapter,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of text; repeatable.")] = None,
    workload: Annotated[str | None, typer.Option(help=WORKLOADS, show_default="demo")] = None,
    load: Load,
    device: Annotated[str, typer.Option(help="auto, cuda, sim or cpu.")] = "auto",
    host: Host,
    pages: Pages = None,
    page_size: Annotated[
        int | None, typer.Option(metavar="N", help="Positions in a KV page.", show_default="64")
    ] = None,
    engine: Engine,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures and tokens to this file.")] = None,
    draws: Draws,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text; repeatable.")] = None,
    mistake: Mistake = None,
    arriving: Arriving,
) -> None:
    """Serve prompts, or a workload, through one chapter's engine."""
    check_writable(json_file, "--json")
    if prompt:
        of_workload = {"workload": workload, "requests": load.requests, "context": load.context}
        for name, value in (of_workload | {"arrivals": arriving.arrivals}).items():
            if value is not None:
                raise InputError(f"--{name} {value} does not go with --prompt: it describes a workload")
    coming, recorded = choose_arrivals(arriving, load)
    ranks = start_ranks(engine.gpus, device, engine.rank_timeout)
    limits = {"stop": stop or []} | ({} if page_size is None else {"page_size": page_size})
    if prompt:
        from ..run.workload import Job

        own = {"max_new_tokens": load.new_tokens, "max_running": load.max_running}
        job = Job(prompt, **limits, **{name: value for name, value in own.items() if value is not None})
        job.check()
        from ..run.checkpoint import Checkpoint  # takes seconds: torch, transformers

        checkpoint = Checkpoint("counter" if load.model is None else load.model, ranks)
    else:
        chosen, checkpoint = choose_workload("demo" if workload is None else workload, load, ranks)
        job = with_recorded(chosen, checkpoint, recorded).job(checkpoint.vocab_size, **limits)
    from ..run.session import Session

    asked = {"sampling": choose_sampling(checkpoint, **vars(draws)), "pages": pages, "mistake": mistake}
    options = choose_options(host, engine, ranks, arrivals=coming, **asked)
    session = Session(job, chapter, checkpoint, device, options)
    _print_refused(session.refused)
    if not session.requests:
        raise typer.Exit(2)

    completions = []
    with _progress(session) as finished:
        for completion in session.run():
            completions.append(completion)
            asked = job.prompts[int(completion.id)]
            if completion.text is not None and isinstance(asked, str):
                print_answer(asked, completion.text, whole=bool(prompt))
            if completion.logprobs:
                told = " ".join(f"{each:.2f}" for each in completion.logprobs)
                console.print(f"log probabilities: {told}", highlight=False, soft_wrap=True)
            finished()
    _print_figures(session, chapter)
    if json_file and is_first():
        _write_json(json_file, session, chapter, completions)
    if session.refused:
        raise typer.Exit(1)


@contextmanager
def _progress(session) -> Iterator[Callable[[], None]]:
    """A bar, if there is a terminal to show it; what it hands out is to be called when a request has finished."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

    class TokensColumn(ProgressColumn):
        """Tokens generated so far. Requests may all finish at the end, and a bar of them alone would seem to hang."""

        def render(self, task) -> Text:
            return Text(f"{sum(len(request.generated) for request in session.requests):,} tokens")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TokensColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        refresh_per_second=4,
    ) as progress:
        task = progress.add_task("requests finished", total=len(session.requests))
        session.progress = lambda text: progress.reset(task, description=text or "requests finished")
        yield lambda: progress.advance(task)


def _print_refused(refused: dict[str, str], most: int = 5) -> None:
    for reason in list(refused.values())[:most]:
        print(f"refused: {reason}", file=sys.stderr)
    if len(refused) > most:
        print(f"refused: {len(refused) - most} more", file=sys.stderr)


def _print_figures(session, chapter: str) -> None:
    from ..measure import latency
    from ..measure.metrics import Metrics
    from ..trace.formatting import table

    figures = Metrics.of(session)
    decode = figures.ms_per_decode_step
    title = filter(None, (chapter, session.checkpoint.name, session.device.name, str(session.options)))
    console.print(Text(", ".join(title), style="italic"))
    made = table("", "", "")
    made.show_header = False
    made.add_row("requests", f"{figures.requests:,}")
    made.add_row("prompt tokens", f"{figures.prompt_tokens:,}")
    made.add_row("new tokens", f"{figures.new_tokens:,}")
    made.add_row("seconds", f"{figures.seconds:.2f}")
    made.add_row("new tokens/s", f"{figures.tokens_per_second:,.0f}")
    made.add_row(f"ms per step (mean of {figures.steps:,})", f"{figures.ms_per_step:.2f}")
    made.add_row("ms per decode step (median)", "-" if decode is None else f"{decode:.2f}")
    console.print(made)
    if session.parts.drafts and (drafted := session.scheduler.drafted):
        accepted = session.scheduler.accepted
        console.print(f"drafts accepted: {accepted:,} of {drafted:,} ({accepted / drafted:.0%})", highlight=False)
    if waited := latency.stored(latency.of_session(session)):
        console.print()
        console.print(latency.table(waited))


def _write_json(file: Path, session, chapter: str, completions) -> None:
    from ..measure import latency
    from ..measure.metrics import Metrics, command, environment

    record = {
        "command": command(),
        "environment": environment(session.device),
        "chapter": chapter,
        "model": session.checkpoint.name,
        "dials": str(session.options),
        "figures": dataclasses.asdict(Metrics.of(session)),
        **({"latency": latency.stored(waited)} if (waited := latency.of_session(session)) else {}),
        "refused": session.refused,
        "completions": [dataclasses.asdict(completion) for completion in completions],
    }
    file.write_text(json.dumps(record, indent=1) + "\n")
