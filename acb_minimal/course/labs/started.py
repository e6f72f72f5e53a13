"""A lab that somebody has started: a folder with their engine, and how far they are.

Nothing that a learner wrote is ever lost: no folder is written into that is there already, and what a reset replaces is
kept beside it.
"""

import datetime
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from ...errors import InputError
from .lab import LABS, Lab, find

ENGINE, PROGRESS = "engine.py", "lab.json"


@dataclass
class Progress:
    """How far somebody is. Times are ISO dates and times, empty before there is one."""

    lab: str
    started: str
    checks: int = 0  # how often the engine was judged
    hints: int = 0  # how many have been asked for
    said: str = ""  # what the judge said last, in a few words
    same: int = 0  # how many times in a row it has said so
    checked: str = ""  # when it last did
    solved: str = ""  # when the engine first passed
    copied: bool = False  # whether that was the chapter's text, or the solution's
    bubbles: list[float] = field(default_factory=list)  # shares of a step at each check; of engines that could be timed

    @property
    def last(self) -> str:
        """When anything was done."""
        return self.checked or self.started


class Started:
    """A started lab: its `folder`, its `lab`, the learner's `progress`.

    Raises:
        InputError: the folder holds no lab, or its progress cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder, self.engine, file = folder, folder / ENGINE, folder / PROGRESS
        if not file.is_file():
            raise InputError(f"{str(folder)!r} is not the folder of a lab: it has no {PROGRESS}; start one with "
                             "acb lab start NAME")  # fmt: skip
        try:
            self.progress = Progress(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"cannot read {str(file)!r}: {type(error).__name__}: {error}") from None
        self.lab: Lab = find(self.progress.lab)

    def save(self) -> None:
        """Keeps the progress. A reader finds the old or the new, never half of it."""
        new = self.folder / f"{PROGRESS}.new"
        new.write_text(json.dumps(asdict(self.progress), indent=1) + "\n")
        new.replace(self.folder / PROGRESS)

    def checked(self, said: str, passed: bool, copied: bool = False, bubble: float | None = None) -> None:
        """Notes what the judge has said."""
        progress = self.progress
        progress.checks += 1
        progress.same = progress.same + 1 if said == progress.said else 1
        progress.said, progress.checked = said, _now()
        if bubble is not None:
            progress.bubbles.append(bubble)
        if passed and (not progress.solved or progress.copied):
            progress.solved, progress.copied = progress.checked, copied
        self.save()

    def hint(self) -> list[str]:
        """One hint more than were given before, if there are more; all of them, in order."""
        self.progress.hints = min(self.progress.hints + 1, len(self.lab.hints))
        self.save()
        return list(self.lab.hints[: self.progress.hints])

    def reset(self) -> Path | None:
        """Puts the starter back, and tells where the learner's engine is kept; None if there was none that differs."""
        kept = None
        if self.engine.exists() and self.engine.read_bytes() != self.lab.starter.encode():
            names = (self.folder / f"engine.{number}.py" for number in count(1))
            kept = self.engine.rename(next(name for name in names if not name.exists()))
        self.engine.write_text(self.lab.starter)
        return kept


def start(lab: Lab, folder: Path) -> Started:
    """Makes a folder for a lab.

    Raises:
        InputError: there is something of that name, or it cannot be made.
    """
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{str(folder)!r} is there already: go on with acb lab check {folder}, begin anew with "
                         f"acb lab reset {folder}, or give another folder with --into")  # fmt: skip
    try:
        folder.mkdir(parents=True)
        (folder / ENGINE).write_text(lab.starter)
        (folder / PROGRESS).write_text(json.dumps(asdict(Progress(lab.name, _now())), indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {str(folder)!r}: {error.strerror}") from None
    return Started(folder)


def open_lab(where: str) -> Started:
    """The started lab that somebody means by its folder, or by the engine in it.

    Raises:
        InputError: there is none.
    """
    folder = Path(where)
    if folder.name == ENGINE:
        folder = folder.parent
    if folder.is_dir():
        return Started(folder)
    if where in LABS:
        raise InputError(f"lab {where!r} is not started here: acb lab start {where}, or give its folder")
    raise InputError(f"no lab {where!r}: give the folder of a started lab, or one of {', '.join(LABS)}")


def home() -> Path:
    """The folder with the folders of labs: this one, or the one above if this is a lab's."""
    here = Path()
    return here.absolute().parent if (here / PROGRESS).exists() else here


def furthest(folder: Path) -> dict[str, Started]:
    """The labs started in a folder, or the one that it is itself, by name; of a lab that was started twice, the solved
    or newer one. Those that cannot be read are left out."""
    found = []
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (place / PROGRESS).is_file():
            with suppress(InputError):
                found.append(Started(place))
    found.sort(key=lambda each: (bool(each.progress.solved), each.progress.last))
    return {each.lab.name: each for each in found}


def solved(labs: Mapping[str, Started]) -> set[str]:
    """The names of those that are solved."""
    return {name for name, each in labs.items() if each.progress.solved}


def following(labs: Mapping[str, Started], name: str = "") -> Lab | None:
    """The first lab behind the one of that name that is not solved, or else the first of all; None if all are."""
    names = list(LABS)
    place = names.index(name) + 1 if name else 0
    return next((LABS[each] for each in names[place:] + names[:place] if each not in solved(labs)), None)


def next_after(each: Started) -> Lab | None:
    """The next lab that is not solved in the folder in which this one lies; None if all are."""
    return following(furthest(each.folder.absolute().parent), each.lab.name)


def _now() -> str:
    return datetime.datetime.now().isoformat(timespec="milliseconds")
