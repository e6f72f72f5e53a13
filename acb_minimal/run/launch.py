"""Starts the ranks of a run with torch's own launcher, and says on one line how a rank has ended.

A command that is to run on several GPUs starts itself again, once for each of them. The ranks know themselves by what
the launcher puts into their environment, and so does a command that `torchrun` has started. Nothing here needs torch
before there is something to launch.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import InputError, RankError

LAUNCHED = "ACB_LAUNCHED"  # in the environment of ranks that `launch` has started: it tells how they have ended
LAST_WORDS = "TORCHELASTIC_ERROR_FILE"  # where torch's launcher looks for them
GRACE = 1.0  # seconds: who ends because another rank is gone is to leave the last word to that one


def world_size() -> int:
    """How many ranks a launcher has started this process among; 1 if none has."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() else 1


def is_rank() -> bool:
    """Whether this process is one of several ranks, or the only one that `launch` was to start."""
    return world_size() > 1 or {"RANK", LAUNCHED} <= os.environ.keys()


def is_first() -> bool:
    """Whether it is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def own_file(file: Path) -> Path:
    """Where this rank writes what every rank writes: a file beside the others'."""
    return file.with_stem(f"{file.stem}-rank{os.environ['RANK']}") if is_rank() else file


def launch(count: int, arguments: Sequence[str]) -> int:
    """Starts `count` ranks of the `acb` command on this machine, and waits for all of them.

    Args:
        arguments: of the command.

    Returns:
        The command's exit status, which is rank 0's.

    Raises:
        RankError: a rank has ended in an error, and the others were ended for it.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # what the launcher would say, we say in one line
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does: the ranks share the cores
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[LAUNCHED] = "1"
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id="acb",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "acb_minimal.cli", *arguments)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            raise RankError(f"ended by {error.sigval.name}, and the ranks with it", 128 + error.sigval) from error
        except ChildFailedError as error:
            return _status(error.failures)
    return 0


def _status(failures: dict) -> int:
    """The command's exit status, if a rank has ended in order with one other than 0.

    Args:
        failures: torch's ProcessFailure by rank.

    Raises:
        RankError: one has not ended in order.
    """
    # Those that the launcher has ended itself did nothing wrong.
    first = {rank: each for rank, each in failures.items() if each.exitcode != -signal.SIGTERM} or failures
    rank, failure = min(first.items(), key=lambda item: (item[1].timestamp, item[0]))
    if failure.exitcode < 0:
        raise RankError(f"rank {rank} was ended by {signal.Signals(-failure.exitcode).name}")
    if not os.path.isfile(failure.error_file):
        return failure.exitcode
    raise RankError(failure.message, failure.exitcode)


def leave(message: str | None, status: int) -> NoReturn:
    """Ends this rank at once.

    Not by `sys.exit`: NCCL's own end can wait for ever for a rank that is gone, and for graphs with kernels of its.

    Args:
        message: the line to say why; None if it has come to its end in order.
        status: of the process, if a message says why, and else of the command, which is rank 0's to give.
    """
    rank = int(os.environ["RANK"])
    if message is not None and LAUNCHED not in os.environ:
        print(f"error: {message}", file=sys.__stderr__)
    elif message is not None and (file := os.environ.get(LAST_WORDS)) and not os.path.exists(file):
        text = json.dumps({"message": message, "timestamp": int(time.time())})
        part = Path(f"{file}.{os.getpid()}")  # whole or not at all: others of this rank may have last words too
        part.write_text(text)
        part.rename(file)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if message is not None or rank == 0 else 0)


def named(message: str) -> str:
    """A message with the number of this rank, if it is one."""
    return f"rank {os.environ['RANK']}: {message}" if is_rank() else message


def check_count(count: int) -> None:
    """Whether so many GPUs were meant.

    Raises:
        InputError: there are no so many ranks.
    """
    if count < 1:
        raise InputError(f"--gpus is {count}; it must be at least 1")
    if is_rank() and count != world_size():
        raise InputError(f"--gpus is {count}, but {world_size()} ranks were started: leave it out, or give that number")
