"""Profiles in a folder: what was measured once is the same number wherever it is shown.

`acb compare --keep FOLDER` saves them, and notebooks that find the folder's name in ACB_KEPT show them instead of
measuring again. A host can be slow for seconds on end, so two runs of the same code, minutes apart on one machine, give
two numbers.
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..device import Device
from ..errors import InputError
from ..run.checkpoint import Checkpoint
from ..run.devices import open_device
from ..run.dials import Dials
from ..run.engines import chapter_path, chapter_paths
from ..run.session import Completion
from ..run.workload import WORKLOADS, Workload
from ..trace.spans import Trace
from .compare import Comparison, beside
from .figures import Breakdown, Figures, command, environment
from .profile import Profile

FOLDER = "ACB_KEPT"  # the environment variable with the folder's name
STARTED = datetime.datetime.now().isoformat()  # of this process: what it measures belongs together


def check(workload: Workload, dials: Dials, chapters: Sequence[str], kernels: bool) -> None:
    """Whether profiles of this would be of any use to a notebook.

    Args:
        workload: to be served.
        dials: that are turned.
        chapters: names or paths.
        kernels: whether there will be breakdowns.

    Raises:
        InputError: they would not.
    """
    named = dataclasses.asdict(WORKLOADS[workload.name])
    for what, value in dataclasses.asdict(workload).items():
        if value != named[what]:
            raise InputError(f"--keep keeps {workload.name} as it is: {what} is {value}; it must be {named[what]}")
    if str(dials):
        raise InputError(f"--keep keeps what nothing was turned for, as notebooks measure; here: {dials}")
    if not kernels:
        raise InputError("--keep does not go with --no-kernels: notebooks show what kernels take")
    for name in chapters:
        _stem(name)


def save(folder: Path, workload: Workload, done: Profile) -> None:
    """Writes the profile of a chapter, all but the kernel trace, to a file of the folder."""
    entry = {
        "facts": _facts(workload, done.chapter, done.device, done.dials) | {"command": command(), "started": STARTED},
        "figures": dataclasses.asdict(done.figures),
        "trace": done.trace.chrome(),
        "breakdown": done.breakdown and dataclasses.asdict(done.breakdown),
        "profiled_bubbles": done.profiled_bubbles,
        "completions": [dataclasses.asdict(completion) for completion in done.completions],
        "run_steps": done.run_steps,
    }
    _file(folder, workload, done.chapter).write_text(json.dumps(entry) + "\n")


def load(folder: Path, workload: Workload, chapters: Sequence[str]) -> tuple[str, list[Comparison]]:
    """What `compare` would yield, from the profiles in the folder.

    Args:
        folder: with the profiles.
        workload: that they served.
        chapters: names, at least one.

    Returns:
        The command that measured them, and the comparisons.

    Raises:
        InputError: the folder has no profile of a chapter; or it was not measured together with the others, or of
            another workload, with other dials, of a chapter that has changed since, or not today, on a machine and with
            versions like these.
    """
    device = open_device("auto", Checkpoint(workload.model))
    together, profiles = {}, []
    for name in chapters:
        chapter = _stem(name)
        file = _file(folder, workload, chapter)
        try:
            entry = json.loads(file.read_text())
            facts = entry["facts"]
            together = together or {what: facts[what] for what in ("command", "started")}
            for what, wanted in (_facts(workload, chapter, device, Dials()) | together).items():
                if facts[what] != wanted:
                    raise InputError(f"{str(file)!r}: {what} is {facts[what]!r}; it must be {wanted!r} here")
            profiles.append(_profile(chapter, device, entry))
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(
                f"{FOLDER} is {str(folder)!r}, which has no profile of {chapter} on {workload.name}: make it with "
                f"acb compare --workload {workload.name} --keep {folder}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{str(file)!r} holds no profile that acb compare --keep wrote ({type(error).__name__}: {error})"
            ) from error
    return together["command"], [beside(profiles[0], done) for done in profiles]


def _profile(chapter: str, device: Device, entry: dict) -> Profile:
    return Profile(
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


def _facts(workload: Workload, chapter: str, device: Device, dials: Dials) -> dict:
    """What must be the same where a profile is measured and where it is shown."""
    engine = hashlib.sha256(chapter_path(chapter).read_bytes()).hexdigest()
    return environment(device) | dataclasses.asdict(workload) | {"dials": str(dials), "engine": engine}


def _stem(name: str) -> str:
    """A chapter's whole name.

    Raises:
        InputError: it is none of the course's.
    """
    path, paths = chapter_path(name).resolve(), chapter_paths()
    if path not in [each.resolve() for each in paths.values()]:
        raise InputError(f"{name!r} is no chapter of the course, and only those are kept: {', '.join(paths)}")
    return path.stem


def _file(folder: Path, workload: Workload, chapter: str) -> Path:
    """Called otherwise than a trace, which may lie in the same folder."""
    return folder / f"{workload.name}-{chapter}.profile.json"
