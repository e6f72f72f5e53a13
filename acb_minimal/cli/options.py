"""What the commands of `acb` share: their options, the console, and the checks that come before any work."""

import math
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import InputError
from .groups import Engine, Host, Load

console = Console()

Chapter = Annotated[str, typer.Argument(help="A chapter (ch1_sync, ch1), or the path of a file with an Engine.")]
WORKLOADS = "demo, long, wide, small or headline."
WorkloadName = Annotated[str, typer.Option(help=WORKLOADS)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Put the figures into this file.")]
Pages = Annotated[
    int | None, typer.Option(metavar="N", help="KV pages.", show_default="as many as --max-running requests need")
]


def print_answer(prompt: str, text: str, whole: bool) -> None:
    """On one line, cut to the width of the terminal unless `whole`."""
    console.print(Text(f"{prompt} -> {text}"), no_wrap=True, overflow="ignore" if whole else "ellipsis", crop=not whole)


def draw(figure, file: Path) -> None:
    """Writes a matplotlib figure to where `--plot` wants it, and says so."""
    figure.savefig(file)
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def check_alone(command: typer.Context, option: str, *others: str) -> None:
    """Whether an option was given by itself, or with no more than `others`.

    Raises:
        InputError: there is another option on the command line.
    """
    for parameter in command.command.params:
        name = parameter.opts[0]
        given = command.get_parameter_source(parameter.name).name == "COMMANDLINE"
        if given and parameter.param_type_name == "option" and name not in (option, *others):
            raise InputError(f"{name} does not go with {option}")


def check_writable(file: Path | None, option: str) -> None:
    """Whether a file can be written; None is none to write.

    Raises:
        InputError: it cannot.
    """
    if file is None:
        return
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"cannot write {str(file)!r}: {option} takes the path of a file in a folder that exists")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"cannot write {str(file)!r}: it is not permitted; give another file with {option}")


def check_apart(file: Path | None, option: str, sources: list[Path]) -> None:
    """Whether a file that is to be written is none of those that are read, and no pipe or device.

    Raises:
        InputError: it is, under whatever name.
    """
    if file is None or not file.exists():
        return
    if any(source.exists() and file.samefile(source) for source in sources):
        raise InputError(f"{option} {str(file)!r} is a trace that is read: give another file")
    if not file.is_file():
        raise InputError(f"cannot write {str(file)!r}: {option} takes the path of a file, not of a pipe or a device")


def check_folder(folder: Path | None, option: str) -> None:
    """Whether files can be written into a folder; None is none to write into.

    Raises:
        InputError: they cannot.
    """
    if folder and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"cannot write into {str(folder)!r}: {option} takes a folder that can be written to")


def check_plot(file: Path | None) -> None:
    """Whether a picture can be written there.

    Raises:
        InputError: it cannot.
    """
    check_writable(file, "--plot")
    if file and file.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot draw {str(file)!r}: its name must end in .png, .svg or .pdf")


def check_record(file: Path | None) -> None:
    """Whether tables of figures can be kept there: nothing but such tables may be overwritten.

    Raises:
        InputError: they cannot.
    """
    from ..measure import result_table

    check_writable(file, "--json")
    if file and file.exists():
        result_table.load(file)


def choose_options(host: Host, engine: Engine, ranks, workload=None, device: str = "auto", **others):
    """The Options that the command line asks for.

    Args:
        ranks: as Checkpoint takes them.
        workload: the Workload that is to be timed, if it is. Its own scale and host work hold on the simulated GPU.
        device: as Session takes it.
        others: of the fields of Options, as they are.

    Raises:
        InputError: they make no sense.
    """
    from ..run.devices import is_simulated
    from ..run.options import Options

    timed = workload if workload is not None and is_simulated(device) and workload.model == "counter" else None
    if host.host_work is not None:
        others["host_work"] = host.host_work / 1e3
    elif timed:
        others["host_work"] = timed.host_work
    others |= vars(engine)
    del others["gpus"], others["rank_timeout"]
    return Options(
        scale=timed.scale if timed else None,
        gpus=ranks.count if ranks else 1,
        launching=None if host.launching is None else host.launching / 1e3,
        grammar=host.grammar,
        mask_work=(host.mask_work or 0.0) / 1e3,
        **others,
    )


def start_ranks(gpus: int | None, device: str, timeout: float):
    """The Ranks that are to run this command; None if it takes one process.

    Starts them, if they are more than one and nobody has, and then ends this process when they have ended.

    Args:
        gpus: how many, as asked for.
        device: as Session takes it.
        timeout: as Ranks has it.

    Raises:
        InputError: there are no so many GPUs, or the device is not one that ranks can have.
        RankError: a rank has ended in an error.
    """
    from ..run.ranks import Ranks, is_first, is_rank, launch, world_size

    count = world_size() if gpus is None else gpus
    if count < 1:
        raise InputError(f"--gpus is {count}; it must be at least 1")
    if is_rank() and count != world_size():
        raise InputError(f"--gpus is {count}, but {world_size()} ranks were started: leave it out, or give that number")
    if count == 1:
        return None
    if not 0 < timeout < math.inf:
        raise InputError(f"--rank-timeout is {timeout:g}; it must be a number of seconds above 0")
    if is_rank() and not is_first():
        console.quiet = True
        if not os.environ.get("ACB_TRACEBACK"):
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    import torch

    from ..run.devices import check_device, is_simulated

    check_device(device)
    if is_simulated(device):
        raise InputError(f"{count} GPUs go with device cuda or cpu, not with {device!r}: the simulated GPU is alone")
    kind = "cpu" if device == "cpu" else "cuda"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if kind == "cuda" and torch.cuda.device_count() < here:
        raise InputError(f"{here} GPUs are asked for, and torch finds {torch.cuda.device_count()} on this machine")
    if not is_rank():
        raise typer.Exit(launch(count, sys.argv[1:]))
    return Ranks.here(timeout).join(kind)


def choose_workload(name: str, load: Load, ranks=None):
    """The workload of that name with what is to be changed of it, and its model, which is not loaded.

    What cannot be served is refused here, before prompts are drawn for it.

    Args:
        name: of the workload.
        ranks: as Checkpoint takes them.

    Returns:
        A Workload and a Checkpoint.

    Raises:
        InputError: there is no such workload or model, or a change makes no sense.
    """
    from ..run.workload import check_max_running
    from ..run.workload import workload as find_workload

    changes = dict(vars(load))
    workload = find_workload(name).override(prompt_tokens=changes.pop("context"), **changes)
    check_max_running(workload.max_running, workload.max_batch_tokens)
    from ..run.checkpoint import Checkpoint  # takes seconds: torch, transformers

    checkpoint = Checkpoint(workload.model, ranks)
    if workload.prompt_tokens and workload.prompt_tokens + workload.new_tokens - 1 > checkpoint.max_positions:
        raise InputError(
            f"workload {name!r}: {workload.prompt_tokens} prompt + {workload.new_tokens} new tokens are past the "
            f"model's {checkpoint.max_positions} positions"
        )
    return workload, checkpoint
