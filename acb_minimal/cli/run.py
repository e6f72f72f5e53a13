"""`acb run`: serves prompts, or a workload, and says how fast that was."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.text import Text

from ..errors import InputError
from ..run.ranks import is_first
from .console import check_writable, console, print_answer
from .groups import WORKLOADS, Arriving, Chapter, Draws, Engine, Host, Load, Mistake, Pages, grouped, option
from .options import choose_arrivals, choose_options, choose_sampling, choose_workload, start_ranks


@grouped
def run(
    *,
    chapter: Chapter,
    prompt: option(list[str] | None, "A prompt of text; repeatable.") = None,
    workload: option(str | None, WORKLOADS, show_default="demo") = None,
    load: Load,
    device: option(str, "auto, cuda, sim or cpu.") = "auto",
    host: Host,
    pages: Pages = None,
    page_size: option(int | None, "Positions in a KV page.", metavar="N", show_default="64") = None,
    engine: Engine,
    json_file: option(Path | None, "Write figures and tokens to this file.", "--json") = None,
    draws: Draws,
    stop: option(list[str] | None, "End an answer before this text; repeatable.") = None,
    mistake: Mistake = None,
    arriving: Arriving,
) -> None:
    """Serve prompts, or a workload, through one chapter's engine."""
    check_writable(json_file, "--json")
    of_workload = {"workload": workload, "requests": load.requests, "context": load.context,
                   "arrivals": arriving.arrivals}  # fmt: skip
    for name, value in of_workload.items() if prompt else ():
        if value is not None:
            raise InputError(f"--{name} {value} does not go with --prompt: it describes a workload")
    coming, recorded = choose_arrivals(arriving, load)
    ranks = start_ranks(engine.gpus, device, engine.rank_timeout)
    limits = {"stop": stop or []} | ({} if page_size is None else {"page_size": page_size})
    if prompt:
        from ..run.workload import Job

        own = {"max_new_tokens": load.new_tokens, "max_running": load.max_running}
        job = Job(prompt, **limits, **{name: value for name, value in own.items() if value is not None})
        from ..run.checkpoint import Checkpoint  # takes seconds: torch, transformers

        checkpoint = Checkpoint("counter" if load.model is None else load.model, ranks)
    else:
        chosen, checkpoint = choose_workload(workload or "demo", load, ranks, recorded)
        job = chosen.job(checkpoint.vocab_size, **limits)
    from ..run.session import Session

    asked = {"sampling": choose_sampling(checkpoint, **vars(draws)), "pages": pages, "mistake": mistake}
    options = choose_options(host, engine, ranks, arrivals=coming, **asked)
    session = Session(job, chapter, checkpoint, device, options)
    _print_refused(list(session.refused.values()))
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
    _tell(session, chapter, completions, json_file if is_first() else None)
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

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TokensColumn(), TimeElapsedColumn()
    hidden = not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("requests finished", total=len(session.requests))
        session.progress = lambda text: progress.reset(task, description=text or "requests finished")
        yield lambda: progress.advance(task)


def _print_refused(reasons: list[str], most: int = 5) -> None:
    more = [f"{len(reasons) - most} more"] if len(reasons) > most else []
    for reason in [*reasons[:most], *more]:
        print(f"refused: {reason}", file=sys.stderr)


def _tell(session, chapter: str, completions, file: Path | None) -> None:
    """Prints the figures of a run, and writes them and the tokens to a file, if there is one."""
    from ..measure import latency
    from ..measure.metrics import Metrics, command, environment
    from ..trace.formatting import table

    figures, waited = Metrics.of(session), latency.of_session(session)
    decode = figures.ms_per_decode_step
    title = filter(None, (chapter, session.checkpoint.name, session.device.name, str(session.options)))
    console.print(Text(", ".join(title), style="italic"))
    made = table("", "", "")
    made.show_header = False
    for name, value in {
        "requests": f"{figures.requests:,}",
        "prompt tokens": f"{figures.prompt_tokens:,}",
        "new tokens": f"{figures.new_tokens:,}",
        "seconds": f"{figures.seconds:.2f}",
        "new tokens/s": f"{figures.tokens_per_second:,.0f}",
        f"ms per step (mean of {figures.steps:,})": f"{figures.ms_per_step:.2f}",
        "ms per decode step (median)": "-" if decode is None else f"{decode:.2f}",
    }.items():
        made.add_row(name, value)
    console.print(made)
    if session.parts.drafts and (drafted := session.scheduler.drafted):
        accepted = session.scheduler.accepted
        console.print(f"drafts accepted: {accepted:,} of {drafted:,} ({accepted / drafted:.0%})", highlight=False)
    if kept := latency.stored(waited):
        console.print()
        console.print(latency.table(kept))
    if file:
        record = {
            "command": command(),
            "environment": environment(session.device),
            "chapter": chapter,
            "model": session.checkpoint.name,
            "dials": str(session.options),
            "figures": dataclasses.asdict(figures),
            **({"latency": kept} if waited else {}),
            "refused": session.refused,
            "completions": [dataclasses.asdict(completion) for completion in completions],
        }
        file.write_text(json.dumps(record, indent=1) + "\n")
