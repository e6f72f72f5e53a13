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
from .arrivals import (
    ArrivalsFile,
    Concurrency,
    Rate,
    TpotLimit,
    TtftLimit,
    check_no_shape,
    choose_arrivals,
    with_recorded,
)
from .options import (
    RANK_TIMEOUT,
    WORKLOADS,
    Acceptance,
    Chapter,
    Compile,
    Context,
    Gpus,
    GrammarName,
    Graphs,
    HostWork,
    Launching,
    MaskWork,
    MaxRunning,
    ModelName,
    NewTokens,
    Pages,
    PageSize,
    Preempt,
    RankTimeout,
    Requests,
    Reserve,
    Speculate,
    check_writable,
    choose_options,
    choose_workload,
    console,
    print_answer,
    start_ranks,
)
from .sampling import (
    FrequencyPenalty,
    LogitBias,
    Logprobs,
    MinTokens,
    Mistake,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    choose_sampling,
)


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
    host_work: HostWork = None,
    launching: Launching = None,
    grammar: GrammarName = None,
    mask_work: MaskWork = None,
    pages: Pages = None,
    page_size: PageSize = None,
    preempt: Preempt = None,
    speculate: Speculate = None,
    reserve: Reserve = None,
    acceptance: Acceptance = None,
    graphs: Graphs = False,
    compile: Compile = False,
    gpus: Gpus = None,
    rank_timeout: RankTimeout = RANK_TIMEOUT,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures and tokens to this file.")] = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    logit_bias: LogitBias = None,
    min_tokens: MinTokens = None,
    logprobs: Logprobs = False,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text; repeatable.")] = None,
    mistake: Mistake = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    arrivals: ArrivalsFile = None,
    ttft_ms: TtftLimit = None,
    tpot_ms: TpotLimit = None,
) -> None:
    """Serve prompts, or a workload, through one chapter's engine."""
    check_writable(json_file, "--json")
    if prompt:
        of_workload = {"workload": workload, "requests": requests, "context": context, "arrivals": arrivals}
        for name, value in of_workload.items():
            if value is not None:
                raise InputError(f"--{name} {value} does not go with --prompt: it describes a workload")
    check_no_shape(arrivals, requests=requests, context=context, new_tokens=new_tokens)
    coming, recorded = choose_arrivals(rate, concurrency, arrivals, ttft_ms, tpot_ms)
    ranks = start_ranks(gpus, device, rank_timeout)
    if prompt:
        limits = {"max_new_tokens": new_tokens, "max_running": max_running, "page_size": page_size}
        job, checkpoint = _job(prompt, "counter" if model is None else model, ranks, limits | {"stop": stop or []})
    else:
        paged = {} if page_size is None else {"page_size": page_size}
        chosen, checkpoint = choose_workload(
            "demo" if workload is None else workload,
            ranks,
            requests=requests,
            prompt_tokens=context,
            new_tokens=new_tokens,
            max_running=max_running,
            model=model,
        )
        job = with_recorded(chosen, checkpoint, recorded).job(checkpoint.vocab_size, stop=stop or [], **paged)
    from ..run.session import Session

    sampling = choose_sampling(
        checkpoint, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, logit_bias=logit_bias,
        min_tokens=min_tokens, logprobs=logprobs,
    )  # fmt: skip
    asked = {"grammar": grammar, "mask_work": mask_work, "sampling": sampling, "pages": pages, "preempt": preempt}
    asked |= {"speculate": speculate, "reserve": reserve, "acceptance": acceptance}
    options = choose_options(host_work, launching, graphs, compile, ranks=ranks, mistake=mistake, **asked)
    session = Session(job, chapter, checkpoint, device, dataclasses.replace(options, arrivals=coming))
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


def _job(prompts: list[str], model: str, ranks, limits: dict):
    """A Job of these prompts, with the limits that are not None, and the model as a Checkpoint that the ranks share."""
    from ..run.workload import Job

    job = Job(prompts, **{name: value for name, value in limits.items() if value is not None})
    job.check()
    from ..run.checkpoint import Checkpoint  # takes seconds: torch, transformers

    return job, Checkpoint(model, ranks)


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
