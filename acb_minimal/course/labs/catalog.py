"""All labs, in the order in which to do them."""

from ...errors import InputError
from .builders import BUILDERS
from .hunts import HUNTS
from .lab import Lab

LABS = {lab.name: lab for lab in (*BUILDERS, *HUNTS)}


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
