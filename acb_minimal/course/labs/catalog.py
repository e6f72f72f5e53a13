"""All labs, in the order in which to do them."""

from ...errors import InputError
from .lab import Lab

BUILDERS = ("batch", "streams", "events", "slots", "carry", "graphs")
HUNTS = ("haste", "idle", "late", "lucky", "scramble", "scarce", "stutter", "loop")
LABS = {name: Lab.read("build", name) for name in BUILDERS} | {name: Lab.read("hunt", name) for name in HUNTS}


def find(name: str) -> Lab:
    """The lab of that name.

    Raises:
        InputError: there is none.
    """
    if name not in LABS:
        raise InputError(f"unknown lab {name!r}: the labs are {', '.join(LABS)}")
    return LABS[name]


def following(lab: Lab) -> Lab | None:
    """The lab to do after this one; None after the last."""
    names = list(LABS)
    rest = names[names.index(lab.name) + 1 :]
    return LABS[rest[0]] if rest else None
