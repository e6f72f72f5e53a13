"""The options of `acb` that say when requests arrive, and what they may wait."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError


def _option(help: str, metavar: str, *names: str):
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel="Arrivals", show_default=False)


Rate = Annotated[float | None, _option("So many requests arrive a second, at random (Poisson).", "R")]
Concurrency = Annotated[int | None, _option("So many clients, each with one request at a time.", "N")]
ArrivalsFile = Annotated[
    Path | None,
    _option('Of lines like {"at": 0.5, "prompt_tokens": 100, "new_tokens": 20}: serve these.', "FILE", "--arrivals"),
]
TtftLimit = Annotated[float | None, _option("Goodput: the first token may take so long.", "MS")]
TpotLimit = Annotated[float | None, _option("Goodput: tokens behind it, on average, so long.", "MS")]


def choose_arrivals(
    rate: float | None, concurrency: int | None, file: Path | None, ttft_ms: float | None, tpot_ms: float | None
):
    """The Arrivals that the command line asks for, and the requests of its file.

    Returns:
        None and an empty list if it asks for none; the list is empty without a file.

    Raises:
        InputError: they make no sense.
    """
    from ..run.arrivals import Arrivals, limits, read_recorded

    given = [
        f"{name} {value}"
        for name, value in (("--rate", rate), ("--concurrency", concurrency), ("--arrivals", file))
        if value is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} do not go together: give one of them")
    if not given:
        for name, value in (("--ttft-ms", ttft_ms), ("--tpot-ms", tpot_ms)):
            if value is not None:
                raise InputError(f"{name} {value:g} needs arrivals: give --rate, --concurrency or --arrivals")
        return None, []
    recorded = read_recorded(file) if file else []
    times = tuple(each.at for each in recorded) if file else None
    return Arrivals(rate, concurrency, times, **limits(ttft_ms, tpot_ms)), recorded


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


def check_no_shape(file: Path | None, **shape) -> None:
    """Whether the requests' number and lengths are left to a file that has them.

    Raises:
        InputError: an option says them as well.
    """
    for name, value in shape.items():
        if file is not None and value is not None:
            raise InputError(f"--{name.replace('_', '-')} {value} does not go with --arrivals: its file says that")
