"""Options that several commands of `acb` have, a dataclass for those that stand together."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated

import typer


@dataclass
class Load:
    """What is served: changes of a workload."""

    model: Annotated[
        str | None,
        typer.Option(help="counter, llama-3.1-8b, llama-3.2-1b, qwen3-8b, qwen3-32b, a folder, or a hub model."),
    ] = None
    requests: Annotated[int | None, typer.Option(help="Requests of the workload.")] = None
    context: Annotated[int | None, typer.Option(help="Tokens of each of the workload's prompts.")] = None
    new_tokens: Annotated[int | None, typer.Option(help="Tokens to generate for each request, at most.")] = None
    max_running: Annotated[int | None, typer.Option(help="Requests in a batch, at most.")] = None


@dataclass
class Host:
    """What the host does in a step."""

    host_work: Annotated[
        float | None, typer.Option(metavar="MS", help="Bookkeeping added to every step, in ms.", show_default="none")
    ] = None
    launching: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Simulated: launching a batch of decodes takes so long, in ms.",
            show_default="as measured",
        ),
    ] = None
    grammar: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Hold the tokens to a grammar: any, twos, three (of the counter), or a file with a JSON schema; "
            "table:NAME follows it on the GPU.",
        ),
    ] = None
    mask_work: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Work added to the masks of every step, in ms.", show_default="none"),
    ] = None


@dataclass
class Engine:
    """How the engine's parts go about it, and on how many GPUs."""

    preempt: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="Give pages on demand; those of a request that gives way are computed again (recompute) or copied to "
            "the host and back (swap). With a mistake: forget.",
            show_default="reserve all",
        ),
    ] = None
    speculate: Annotated[
        int | None, typer.Option(metavar="K", help="Drafts in each decode.", show_default="none")
    ] = None
    reserve: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Positions behind a request's last, for drafts.", show_default="2 K, what it takes"
        ),
    ] = None
    acceptance: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Take so many drafts as right, by chance.", show_default="those that are right"
        ),
    ] = None
    graphs: Annotated[
        bool, typer.Option("--graphs", help="The model launches decodes as CUDA graphs, in any chapter.")
    ] = False
    compile: Annotated[
        bool, typer.Option("--compile", help="Join linears, compile decoder layers for decodes.")
    ] = False
    gpus: Annotated[
        int | None,
        typer.Option(metavar="N", help="Share the model among so many GPUs of this machine.", show_default="1"),
    ] = None
    rank_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="With several GPUs: end if a rank is silent or stands still so long."),
    ] = 120.0


def grouped(command: Callable) -> Callable:
    """A command for typer. Where a parameter is one of the dataclasses above, its fields are options, in its place."""
    parameters = inspect.signature(command).parameters
    groups = {name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)}
    options = [
        option
        for name, parameter in parameters.items()
        for option in (
            [
                inspect.Parameter(field.name, parameter.kind, default=field.default, annotation=field.type)
                for field in fields(groups[name])
            ]
            if name in groups
            else [parameter]
        )
    ]

    @wraps(command)
    def run(**given):
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**given, **made)

    run.__signature__ = inspect.Signature(options)
    return run
