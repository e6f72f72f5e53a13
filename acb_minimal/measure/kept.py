"""Profiles in a folder: what was measured once is the same number wherever it is shown.

`acb compare --keep FOLDER` writes them, and notebooks that find the folder's name in ACB_KEPT show them instead of
measuring again. A host can be slow for seconds on end, so two runs of the same code, minutes apart on one machine, give
two numbers.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..device import Device
from ..errors import InputError
from ..run.checkpoint import Checkpoint
from ..run.devices import open_device
from ..run.dials import Dials
from ..run.engines import chapter_path
from ..run.session import Completion
from ..run.workload import Workload
from ..trace.spans import Trace
from .compare import Comparison, beside
from .figures import Breakdown, Figures, command, environment
from .profile import Profile

FOLDER = "ACB_KEPT"  # the environment variable with the folder's name
KEYS = {"facts", "figures", "trace", "breakdown", "profiled_bubbles", "completions", "run_steps"}  # of a file


def check_folder(folder: Path, option: str) -> None:
    """Whether it is a folder.

    Raises:
        InputError: it is not.
    """
    if not folder.is_dir():
        raise InputError(f"{option} is {str(folder)!r}; it must be a folder that exists")


def keep(folder: Path, workload: Workload, done: Profile) -> None:
    """Writes a profile into the folder, all but the kernel trace; an older one of the same chapter is replaced."""
    entry = {
        "facts": _facts(workload, done.device, done.dials) | {"command": command()},
        "figures": dataclasses.asdict(done.figures),
        "trace": done.trace.chrome(),
        "breakdown": dataclasses.asdict(done.breakdown) if done.breakdown else None,
        "profiled_bubbles": done.profiled_bubbles,
        "completions": [dataclasses.asdict(completion) for completion in done.completions],
        "run_steps": done.run_steps,
    }
    _file(folder, workload, done.chapter).write_text(json.dumps(entry) + "\n")


def kept(folder: Path, workload: Workload, chapters: Sequence[str]) -> tuple[str, Iterator[Comparison]]:
    """What `compare` would yield, from the profiles in the folder.

    Args:
        folder: with the profiles.
        workload: that they served.
        chapters: names.

    Returns:
        The command that measured them, and the comparisons.

    Raises:
        InputError: the folder has no profile of a chapter; or it was measured by another command than the others, of
            another workload or with other dials, or not today, on a machine and with versions like these.
    """
    check_folder(folder, FOLDER)
    entries = {(stem := chapter_path(name).stem): _read(folder, workload, stem) for name in chapters}
    device = open_device("auto", Checkpoint(workload.model))
    first = next(iter(entries.values()))["facts"]["command"]
    wanted = _facts(workload, device, Dials()) | {"command": first}
    for chapter, entry in entries.items():
        for what, value in wanted.items():
            if entry["facts"].get(what) != value:
                file = str(_file(folder, workload, chapter))
                raise InputError(f"{file!r}: {what} is {entry['facts'].get(what)!r}; it must be {value!r} here")
    profiles = [
        Profile(
            chapter,
            device,
            Figures(**entry["figures"]),
            Trace.of_chrome(entry["trace"]),
            Breakdown(**entry["breakdown"]) if entry["breakdown"] else None,
            entry["profiled_bubbles"],
            None,
            [Completion(**completion) for completion in entry["completions"]],
            Dials(),
            entry["run_steps"],
        )
        for chapter, entry in entries.items()
    ]
    return first, (beside(profiles[0], done) for done in profiles)


def _facts(workload: Workload, device: Device, dials: Dials) -> dict:
    """What two profiles must have in common to be shown in one notebook."""
    return environment(device) | dataclasses.asdict(workload) | {"dials": str(dials)}


def _read(folder: Path, workload: Workload, chapter: str) -> dict:
    file = _file(folder, workload, chapter)
    try:
        entry = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{FOLDER} is {str(folder)!r}, which has no profile of {chapter} on {workload.name}: make it with "
            f"acb compare --workload {workload.name} --keep {folder}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read a profile from {str(file)!r}: {error}") from error
    if not (isinstance(entry, dict) and entry.keys() == KEYS):
        raise InputError(f"{str(file)!r} holds no profile that acb compare --keep wrote: let it write that again")
    return entry


def _file(folder: Path, workload: Workload, chapter: str) -> Path:
    """Called otherwise than a trace, which may lie in the same folder."""
    return folder / f"{workload.name}-{chapter}.profile.json"
