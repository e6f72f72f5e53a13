"""What can be set for any chapter without changing it: how much the host has to do, how decodes are launched."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:  # importing it takes seconds: torch
    from ..grammar import Grammar
    from ..sampling import Sampling
    from .arrivals import Arrivals


@dataclass(frozen=True)
class Scale:
    """How a small workload is timed on the simulated GPU: as if it were a large one.

    Attributes:
        model: whose costs to go by, a name in costs.json.
        rows: how many of its rows each row of a batch stands for.
        positions: that each of those has in the KV cache besides the row's own.
    """

    model: str
    rows: int
    positions: int

    def __str__(self) -> str:
        return f"each request timed as {self.rows} of {self.model} with {self.positions:,} tokens before them"


LONGEST = 10.0  # seconds a step: more than any engine has reported by far


def _told(default, tell: Callable) -> Any:
    """A field of Options: what it is if nothing is said, and what is told of it if it is turned."""
    return field(default=default, metadata={"tell": tell})


def _in_ms(text: str) -> Callable[[float], str]:
    return lambda seconds: text.format(f"{1e3 * seconds:g} ms")


@dataclass(frozen=True)
class Options:
    """Settings that hold for a whole run. As text they are what a figure that was measured with them has to name.

    Attributes:
        host_work: seconds of bookkeeping added to every step, while the batch is prepared: spent busily on a real
            machine, in virtual time on the simulated one.
        graphs: whether the model launches a batch of decodes as a CUDA graph, whatever the chapter does.
        scale: as what to time it on the simulated GPU; None: as what it is.
        compile: whether linears are joined, on one GPU alone, and decoder layers compiled for batches of decodes
            (compile.py). The simulator compiles nothing: its work then costs what compiled work was measured to.
        gpus: that share the model.
        launching: seconds that launching a batch of decodes takes on the simulated GPU, kernel by kernel; None: what
            was measured for the model.
        grammar: what the tokens of all requests are held to: a Grammar, or its name (grammars.py).
        mask_work: seconds added to the writing of a batch's masks, as host_work is: for a grammar that takes longer.
        sampling: how the tokens of all requests are chosen; None: as the model's generation config says.
        pages: KV pages; None: as many as max_running of the longest request need.
        preempt: "recompute" or "swap": requests are given pages as they fill them, and this becomes of one that gives
            way (preemption.py); None: they have all from the start.
        arrivals: when requests arrive; None: all are there from the start.
        mistake: that is made in sampling or with drafts, by name (mistakes.py); None: none.
        speculate: drafts in each decode; None: none, or as many as an engine that verifies them needs.
        reserve: positions behind its last that a request has pages for; None: as many as its drafts may need.
        acceptance: so many of the drafts count as right, by chance, 0 to 1; None: those that are. For models whose
            weights mean nothing: the time is right, the tokens are not.

    Raises:
        InputError: a time or a share is none, or launching is given together with graphs.
    """

    scale: Scale | None = _told(None, str)
    host_work: float = _told(0.0, _in_ms("{} of host work added to every step"))
    grammar: "str | Grammar | None" = _told(
        None, lambda asked: f"held to grammar {asked!r}" if isinstance(asked, str) else "held to a grammar"
    )
    mask_work: float = _told(0.0, _in_ms("{} of work for the masks of every step"))
    sampling: "Sampling | None" = _told(None, "sampled with {}".format)
    pages: int | None = _told(None, "{:,} KV pages".format)
    preempt: str | None = _told(None, "pages on demand ({})".format)
    speculate: int | None = _told(None, "{} drafts in each decode".format)
    reserve: int | None = _told(None, "{} positions reserved for drafts".format)
    acceptance: float | None = _told(None, "{:.0%} of drafts taken as right".format)
    mistake: str | None = _told(None, "with the mistake {}".format)
    arrivals: "Arrivals | None" = _told(None, str)
    launching: float | None = _told(None, _in_ms("decodes launched in {}"))
    graphs: bool = _told(False, lambda _: "decodes launched as graphs by the model")
    compile: bool = _told(False, lambda _: "compiled")
    gpus: int = _told(1, "shared by {} ranks".format)

    def __post_init__(self):
        for name in ("host_work", "launching", "mask_work"):
            seconds = getattr(self, name) or 0.0
            if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST):
                what, most = name.replace("_", " "), f"{1e3 * LONGEST:,.0f} ms"
                raise InputError(f"{what} is {1e3 * seconds:g} ms a step; it must be from 0 to {most}")
        if self.acceptance is not None and not 0 <= self.acceptance <= 1:
            raise InputError(f"acceptance is {self.acceptance:g}; it must be from 0 to 1")
        if self.graphs and self.launching is not None:
            raise InputError(f"launching is {1e3 * self.launching:g} ms, kernel by kernel; graphs take no such time")

    def __str__(self) -> str:
        turned = [(each, value) for each in fields(self) if (value := getattr(self, each.name)) != each.default]
        return ", ".join(each.metadata["tell"](value) for each, value in turned)
