"""Mutation testing of an engine: takes away, one at a time, every statement that orders, and sees what it was good for.

A statement is missed in one of three ways: by a hazard or a wrong token, or, if it is there for speed alone, by a
bubble. Of several streams or slots, or an event for each slot, what is taken away is that they are several: one serves
for all.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from ..measure.metrics import environment
from ..measure.result_table import ResultTable
from ..run.checkpoint import Checkpoint
from ..run.engines import chapter_path, engine, read_source, replaced, verifies
from ..run.options import Options
from ..run.session import Session
from ..run.workload import workload
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from .actions import Hazard
from .judge import Outcome
from .schedules import replay

ORDERING = ("record", "record_event", "wait", "wait_event", "wait_stream", "synchronize", "fill", "carry_over", "count",
            "correct", "draft", "write_masks")  # fmt: skip
SEEDS = 20  # that a mutant is tried with
WORKLOAD = workload("wide").override(new_tokens=12)  # GPU-bound, so that a bubble shows
COLUMNS = {"line": "d", "without": "", "hazard in batch": "d", "wrong token in batch": "d", "error": "", "seed": "d",
           "bubble with it (us)": ".1f", "bubble without it (us)": ".1f"}  # fmt: skip
NOTE = (
    "Hazard, wrong token: in which batch the first one came, and the seed of the schedule that gave the token. "
    "Bubble: before a batch, on average, with the line and without it; simulated."
)


class Mutant(NamedTuple):
    """An engine without one statement; every other line keeps its number."""

    chapter: str  # as it was asked for: a name, or the path of a file
    line: int
    text: str  # the statement
    source: str  # the chapter's text without it

    def engine(self) -> type:
        """The Engine without the statement."""
        return engine(self.source, f"{self.chapter} without line {self.line}")


class Finding(NamedTuple):
    """How a mutant was missed."""

    hazard: Hazard | None  # the first
    outcome: Outcome | None  # the first in which a token was wrong or the engine ended in an error
    seed: int | None  # of that schedule
    bubbles: tuple[float, float] | None = None  # `bubble` with the statement and without it; if all else is well

    @property
    def caught(self) -> str | None:
        """ "hazard", "tokens", "bubble", or None if nothing noticed."""
        if self.bubbles is None:
            return "hazard" if self.hazard else "tokens"
        return "bubble" if self.bubbles[1] - self.bubbles[0] > 1e-6 else None


def mutants(chapter: str) -> Iterator[Mutant]:
    """Every statement of a chapter that orders anything, in order, taken away.

    Raises:
        InputError: there is no such chapter.
    """
    source = read_source(chapter_path(chapter))
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    for node in sorted(statements, key=lambda node: node.lineno):
        if change := _change(node):
            line = source.splitlines()[node.lineno - 1]
            yield Mutant(chapter, node.lineno, line.split("#")[0].strip(), replaced(source, *change))


def _change(node: ast.AST) -> tuple[ast.AST, str] | None:
    """What to put in which node's place so that `node` no longer orders anything; None if it does not."""
    match node:
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Attribute(attr="stream"), args=[stream]))]):
            return stream, "None"  # what cuda.stream takes for "leave it"
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))) if name in ORDERING:
            return node, "pass"
        case ast.Assign(targets=[ast.Tuple() as targets], value=ast.Tuple() as values):
            old, new = ([ast.unparse(part) for part in parts.elts] for parts in (targets, values))
            if old != new and sorted(old) == sorted(new):
                return node, "pass"
            if _several(values.elts, "Stream", "new_slot"):
                return values, f"[{new[0]}] * {len(new)}"
        case ast.Assign(value=ast.Dict(keys=keys, values=values)) if _several(values, "Event"):
            return node.value, f"dict.fromkeys([{', '.join(map(ast.unparse, keys))}], {ast.unparse(values[0])})"
    return None


def _several(values: list[ast.expr], *makers: str) -> bool:
    """Whether these are calls of the same one of `makers`, more than one."""
    names = {getattr(getattr(value, "func", None), "attr", None) for value in values}
    return len(values) > 1 and len(names) == 1 and names <= set(makers)


def find(mutant: Mutant) -> Finding:
    """Runs the cases without the statement until it has been missed; if it never is, measures the bubbles."""
    engine_class = mutant.engine()
    hazard = failed = seed = None
    for number in range(SEEDS):
        outcome = replay(engine_class, str(number))
        if outcome.hazards:
            hazard = hazard or outcome.hazards[0]
        if outcome.failure and not failed:
            failed, seed = outcome, number
        if hazard and failed:
            break
    bubbles = None if hazard or failed else (_bubble_of(mutant.chapter), bubble(engine_class))
    return Finding(hazard, failed, seed, bubbles)


def bubble(engine_class: type) -> float:
    """Seconds of bubble before a batch, on average, in a run on the simulator, by its costs."""
    checkpoint = Checkpoint(WORKLOAD.model)
    # Nothing is computed, so that somebody has to say how many drafts are right, if there are any.
    options = Options(acceptance=0.5 if verifies(engine_class) else None)
    session = Session(WORKLOAD.job(checkpoint.vocab_size), engine_class, checkpoint, "sim", options, trace=True)
    session.serve()
    bubbles = session.trace.bubbles()
    return sum(bubbles.values()) / len(bubbles)


@cache
def _bubble_of(chapter: str) -> float:
    return bubble(engine(read_source(chapter_path(chapter)), chapter))


def table(chapter: str, progress: Callable[[str], None]) -> ResultTable:
    """Takes away each line that orders, by itself, and tells how it is missed: a row for each. `progress` is told what
    goes on.

    Raises:
        InputError: there is no such chapter.
    """
    rows = []
    for mutant in mutants(chapter):
        progress(f"without line {mutant.line}")
        hazard, outcome, seed, bubbles = find(mutant)
        wrong = outcome and outcome.wrong_batch_number
        error = outcome.failure if outcome and wrong is None else None
        us = (1e6 * seconds for seconds in bubbles) if bubbles else (None, None)
        rows.append([mutant.line, mutant.text, hazard and hazard.second.batch_number, wrong, error, seed, *us])
    machine = environment(SimulatedDevice(Costs.of(WORKLOAD.model)))
    return ResultTable(f"{chapter}, each line taken away by itself", COLUMNS, rows, NOTE, machine)
