"""What options of `acb` ask for: a workload and its model, Options, Sampling, Arrivals, Ranks. Raises InputError."""

import dataclasses
import math
import os
import sys

import typer

from ..errors import InputError
from .console import console
from .groups import Arriving, Engine, Host, Load


def choose_workload(name: str, load: Load, ranks=None, recorded=()):
    """The Workload of that name with what is to be changed of it, and its Checkpoint, which is not loaded.

    What cannot be served is refused here, before prompts are drawn for it.

    Args:
        recorded: requests of a file, as choose_arrivals returns them, which are served in place of its own.
    """
    from ..run.workload import check_max_running
    from ..run.workload import workload as find_workload

    changes = dict(vars(load))
    workload = find_workload(name).override(prompt_tokens=changes.pop("context"), **changes)
    check_max_running(workload.max_running, workload.max_batch_tokens)
    from ..run.checkpoint import Checkpoint  # takes seconds: torch, transformers

    checkpoint = Checkpoint(workload.model, ranks)
    lengths = {f"request {number} of the arrivals": (each.prompt_tokens, each.new_tokens)
               for number, each in enumerate(recorded)}  # fmt: skip
    if not recorded and workload.prompt_tokens:
        lengths[f"workload {name!r}"] = workload.prompt_tokens, workload.new_tokens
    for what, (prompt, new) in lengths.items():
        if prompt + new - 1 > checkpoint.max_positions:
            raise InputError(f"{what}: {prompt} prompt + {new} new tokens are past the model's "
                             f"{checkpoint.max_positions} positions")  # fmt: skip
    return workload.recorded(list(lengths.values())) if recorded else workload, checkpoint


def choose_options(host: Host, engine: Engine, ranks, workload=None, device: str = "auto", **others):
    """The Options that the command line asks for.

    Args:
        workload: the Workload that is to be timed, if it is. Its own scale and host work hold on the simulated GPU.
        others: of the fields of Options, as they are.
    """
    from ..run.devices import is_simulated
    from ..run.options import Options

    if workload and is_simulated(device) and workload.model == "counter":
        others |= {"scale": workload.scale, "host_work": workload.host_work}
    for name in ("host_work", "launching", "mask_work"):
        if (asked := getattr(host, name)) is not None:
            others[name] = asked / 1e3
    others |= {name: value for name, value in vars(engine).items() if name not in ("gpus", "rank_timeout")}
    return Options(grammar=host.grammar, gpus=ranks.count if ranks else 1, **others)


def choose_arrivals(asked: Arriving, load: Load):
    """The Arrivals that the command line asks for, None if it asks for none, and the requests of its file, if any."""
    from ..run.arrivals import Arrivals, read_recorded

    for name in ("requests", "context", "new_tokens"):
        if asked.arrivals is not None and (value := getattr(load, name)) is not None:
            raise InputError(f"--{name.replace('_', '-')} {value} does not go with --arrivals: its file says that")
    ways = {"--rate": asked.rate, "--concurrency": asked.concurrency, "--arrivals": asked.arrivals}
    given = [f"{name} {value}" for name, value in ways.items() if value is not None]
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


def choose_sampling(checkpoint, **asked):
    """The Sampling that the command line asks for: what the model's generation config says, but for what is given.

    Args:
        asked: fields of a Sampling, None where nothing is said; logit_bias as the command line has it.

    Returns:
        None if nothing is asked for.
    """
    asked = {name: value for name, value in asked.items() if value not in (None, []) and value is not False}
    if not asked:
        return None
    if "logit_bias" in asked:
        pairs = [_pair("--logit-bias", text, "ID=VALUE, as in 9=2.5") for text in asked["logit_bias"]]
        asked["logit_bias"] = {_number("--logit-bias", name, int): value for name, value in pairs}
    return dataclasses.replace(checkpoint.sampling, **asked)


def parse_sampling(texts: list[str] | None, checkpoint):
    """The same from `--sampling NAME=VALUE`, as often as given."""
    from ..sampling import Sampling

    kinds = {field.name: type(field.default) for field in dataclasses.fields(Sampling)}
    known = [name for name, kind in kinds.items() if kind in (int, float)]
    asked = {}
    for text in texts or []:
        name, value = _pair("--sampling", text, "NAME=VALUE, as in temperature=0.8")
        if name not in known:
            raise InputError(f"--sampling {text}: it takes {', '.join(known)}")
        asked[name] = _number("--sampling", text.partition("=")[2], int) if kinds[name] is int else value
    return choose_sampling(checkpoint, **asked)


def _pair(option: str, text: str, form: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{option} {text}: it takes {form}")
    return name, _number(option, value, float)


def _number(option: str, text: str, kind: type):
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{option}: {text!r} is no {'whole ' if kind is int else ''}number") from None


def start_ranks(gpus: int | None, device: str, timeout: float):
    """The Ranks that are to run this command; None if it takes one process.

    Starts them, if they are more than one and nobody has, and then ends this process when they have ended.

    Args:
        timeout: as Ranks has it.

    Raises:
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
