"""The options of `acb` that say when requests arrive, and what they may wait."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .groups import Load


def _option(help: str, metavar: str):
    return typer.Option(help=help, metavar=metavar, rich_help_panel="Arrivals", show_default=False)


@dataclass
class Arriving:
    """When requests arrive, and what they may wait."""

    rate: Annotated[float | None, _option("So many requests arrive a second, at random (Poisson).", "R")] = None
    concurrency: Annotated[int | None, _option("So many clients, each with one request at a time.", "N")] = None
    arrivals: Annotated[
        Path | None, _option('Of lines like {"at": 0.5, "prompt_tokens": 100, "new_tokens": 20}: serve these.', "FILE")
    ] = None
    ttft_ms: Annotated[float | None, _option("Goodput: the first token may take so long.", "MS")] = None
    tpot_ms: Annotated[float | None, _option("Goodput: tokens behind it, on average, so long.", "MS")] = None


def choose_arrivals(asked: Arriving, load: Load):
    """The Arrivals that the command line asks for, and the requests of its file.

    Returns:
        None and an empty list if it asks for none; the list is empty without a file.

    Raises:
        InputError: they make no sense; or an option says what the file of arrivals does, too.
    """
    from ..run.arrivals import Arrivals, read_recorded

    for name in ("requests", "context", "new_tokens"):
        if asked.arrivals is not None and (value := getattr(load, name)) is not None:
            raise InputError(f"--{name.replace('_', '-')} {value} does not go with --arrivals: its file says that")
    given = [f"--{name} {value}" for name, value in list(vars(asked).items())[:3] if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} do not go together: give one of them")
    if not given:
        for name, value in (("--ttft-ms", asked.ttft_ms), ("--tpot-ms", asked.tpot_ms)):
            if value is not None:
                raise InputError(f"{name} {value:g} needs arrivals: give --rate, --concurrency or --arrivals")
        return None, []
    recorded = read_recorded(asked.arrivals) if asked.arrivals else []
    times = tuple(each.at for each in recorded) if asked.arrivals else None
    ttft, tpot = (ms and ms / 1e3 for ms in (asked.ttft_ms, asked.tpot_ms))
    return Arrivals(asked.rate, asked.concurrency, times, ttft=ttft, tpot=tpot), recorded


def with_recorded(workload, checkpoint, recorded):
    """A workload's model and limits with the requests of a file, if there are any.

    Raises:
        InputError: one is past the model's positions.
    """
    if not recorded:
        return workload
    for number, each in enumerate(recorded):
        if each.prompt_tokens + each.new_tokens - 1 > checkpoint.max_positions:
            raise InputError(
                f"request {number} of the arrivals: {each.prompt_tokens} prompt + {each.new_tokens} new tokens are "
                f"past the model's {checkpoint.max_positions} positions"
            )
    return workload.recorded([(each.prompt_tokens, each.new_tokens) for each in recorded])
