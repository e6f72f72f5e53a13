"""The `acb` command: puts its commands together, and says on one line what went wrong.

What the commands print is computed elsewhere. They import torch and transformers, which take seconds, only once their
options have been read: a question for help is answered at once.
"""

import os
import sys
import time
import traceback

import typer

from ..errors import EngineError, InputError, RankError
from ..run import ranks
from . import check, idle, lab, measure, run

INTERNAL = 70  # the status of an error that is ours, as sysexits.h has it: 1 says something of what was looked at

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def acb() -> None:
    """Asynchronous continuous batching, step by step."""


for command in (run.run, check.check, check.diff, measure.profile, measure.compare, measure.results, idle.idle):
    app.command()(command)
app.add_typer(lab.app, name="lab")


def main() -> None:
    """Runs the command. Whatever goes wrong is one line on stderr; ACB_TRACEBACK=1 shows the traceback as well."""
    for library in ("TRANSFORMERS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")  # their warnings would bury our one line
    try:
        app(prog_name="acb")
    except SystemExit as end:
        if ranks.is_rank():
            ranks.leave(None, end.code or 0)
        raise
    except InputError as error:
        _fail(str(error), 2)
    except RankError as error:
        _fail(str(error), error.status)
    except EngineError as error:
        _fail(f"{_rank()}{error}", 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        if os.environ.get("ACB_TRACEBACK"):
            traceback.print_exc()
        if ranks.is_rank():
            time.sleep(ranks.GRACE)
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        _fail(f"{_rank()}{type(error).__name__}: {text} ({where.filename}:{where.lineno})", INTERNAL)


def _fail(message: str, status: int) -> None:
    if ranks.is_rank():
        ranks.leave(message, status)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _rank() -> str:
    """What comes before a message that is not the same on all ranks."""
    return f"rank {os.environ['RANK']}: " if ranks.is_rank() else ""
