"""The options that several commands of `acb` have; a dataclass for those that stand together."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated

import typer


def option(kind, help: str, *names: str, **more):
    """An annotation that makes a parameter an option of this kind; `names` where they do not follow from its own."""
    return Annotated[kind, typer.Option(*names, help=help, **more)]


arrival, draw = (partial(option, rich_help_panel=panel) for panel in ("Arrivals", "Sampling"))

Chapter = Annotated[str, typer.Argument(help="A chapter (ch1_sync, ch1), or the path of a file with an Engine.")]
WORKLOADS = "demo, long, wide, small or headline."
WorkloadName = option(str, WORKLOADS)
Device = option(str, "auto, cuda or sim.")
Batches = option(int, "On a GPU, so many typical batches run under torch's profiler.", min=1)
Pages = option(int | None, "KV pages.", metavar="N", show_default="as many as --max-running requests need")
Asked = option(
    list[str] | None, "Sample: temperature=0.8, top_p=0.9, ...; repeatable.", "--sampling", metavar="NAME=VALUE"
)
Mistake = draw(
    str | None,
    "Sample with a mistake: host-counts, batch-generator, kept-rows; drafts: stale-drafts.",
    metavar="NAME",
)


@dataclass
class Load:
    """What is served: changes of a workload."""

    model: option(str | None, "counter, llama-3.1-8b, llama-3.2-1b, qwen3-8b, qwen3-32b, a folder, or a hub model.") = (
        None
    )
    requests: option(int | None, "Requests of the workload.") = None
    context: option(int | None, "Tokens of each of the workload's prompts.") = None
    new_tokens: option(int | None, "Tokens to generate for each request, at most.") = None
    max_running: option(int | None, "Requests in a batch, at most.") = None


@dataclass
class Host:
    """What the host does in a step."""

    host_work: option(float | None, "Bookkeeping added to every step, in ms.", metavar="MS", show_default="none") = None
    launching: option(
        float | None,
        "Simulated: launching a batch of decodes takes so long, in ms.",
        metavar="MS",
        show_default="as measured",
    ) = None
    grammar: option(
        str | None,
        "Hold the tokens to a grammar: any, twos, three (of the counter), or a file with a JSON schema; table:NAME "
        "follows it on the GPU.",
        metavar="NAME",
    ) = None
    mask_work: option(
        float | None, "Work added to the masks of every step, in ms.", metavar="MS", show_default="none"
    ) = None


@dataclass
class Engine:
    """How the engine's parts go about it, and on how many GPUs."""

    preempt: option(
        str | None,
        "Give pages on demand; those of a request that gives way are computed again (recompute) or copied to the host "
        "and back (swap). With a mistake: forget.",
        metavar="MODE",
        show_default="reserve all",
    ) = None
    speculate: option(int | None, "Drafts in each decode.", metavar="K", show_default="none") = None
    reserve: option(
        int | None, "Positions behind a request's last, for drafts.", metavar="N", show_default="2 K, what it takes"
    ) = None
    acceptance: option(
        float | None,
        "Take so many drafts as right, by chance.",
        metavar="SHARE",
        show_default="those that are right",
    ) = None
    graphs: option(bool, "The model launches decodes as CUDA graphs, in any chapter.", "--graphs") = False
    compile: option(bool, "Join linears, compile decoder layers for decodes.", "--compile") = False
    gpus: option(int | None, "Share the model among so many GPUs of this machine.", metavar="N", show_default="1") = (
        None
    )
    rank_timeout: option(
        float, "With several GPUs: end if a rank is silent or stands still so long.", metavar="SECONDS"
    ) = 120.0


@dataclass
class Arriving:
    """When requests arrive, and what they may wait."""

    rate: arrival(float | None, "So many requests arrive a second, at random (Poisson).", metavar="R") = None
    concurrency: arrival(int | None, "So many clients, each with one request at a time.", metavar="N") = None
    arrivals: arrival(
        Path | None, 'Of lines like {"at": 0.5, "prompt_tokens": 100, "new_tokens": 20}: serve these.', metavar="FILE"
    ) = None
    ttft_ms: arrival(float | None, "Goodput: the first token may take so long.", metavar="MS") = None
    tpot_ms: arrival(float | None, "Goodput: tokens behind it, on average, so long.", metavar="MS") = None


@dataclass
class Draws:
    """How tokens are chosen: fields of a Sampling."""

    temperature: draw(float | None, "Draw tokens, scores divided by this; 0: take the likeliest.") = None
    top_k: draw(int | None, "Draw from so many of the likeliest; 0: from all.") = None
    top_p: draw(float | None, "Draw from the fewest with so much of the probability.") = None
    seed: draw(int | None, "Of the noise; the same for every prompt.") = None
    repetition_penalty: draw(float | None, "Divides scores of tokens that were in prompt or answer.") = None
    presence_penalty: draw(float | None, "Taken off scores of tokens that were in the answer.") = None
    frequency_penalty: draw(float | None, "The same for each time they were.") = None
    logit_bias: draw(list[str] | None, "Added to a token's score; repeatable.", metavar="ID=VALUE") = None
    min_tokens: draw(int | None, "No stop token before there are so many.") = None
    logprobs: draw(bool, "Tell how likely tokens were.", "--logprobs") = False


def grouped(command: Callable) -> Callable:
    """A command for typer. Where a parameter is one of the dataclasses above, its fields are options, in its place."""
    parameters = inspect.signature(command).parameters
    groups = {name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)}
    options = []
    for name, each in parameters.items():
        inside = fields(groups[name]) if name in groups else ()
        made = [each.replace(name=field.name, default=field.default, annotation=field.type) for field in inside]
        options += made or [each]

    @wraps(command)
    def run(**given):
        made = {name: group(**{each.name: given.pop(each.name) for each in fields(group)})
                for name, group in groups.items()}  # fmt: skip
        return command(**given, **made)

    run.__signature__ = inspect.Signature(options)
    return run
