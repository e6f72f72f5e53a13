"""Right or wrong: a few prompts for the counter, served by a chapter or by one with something taken away."""

import linecache
import multiprocessing
import os
from collections.abc import Mapping, Sequence

from rich.table import Table

from ..models import counter
from ..run import engines
from ..run.checkpoint import Checkpoint
from ..run.options import Options
from ..run.session import Completion, Session
from ..run.timed import Machine
from ..run.workload import Job
from ..sim import policies
from ..sim.costs import Costs
from ..sim.device import SimulatedDevice
from ..trace.formatting import table
from .notebook import machine

# What the counter is asked. So few run at once, in batches so small, that requests join and leave all the time.
PAIRS = [(3, 7), (98, 104), (10, 12), (500, 511), (41, 41), (250, 259), (7, 15), (990, 999), (60, 66), (123, 128)]
SERVING = {"max_new_tokens": 16, "max_running": 4, "max_batch_tokens": 8, "page_size": 8}
SCHEDULES = {name: [(name, 0)] for name in ("timed", "eager", "lazy")} | {"random": [("random", 0), ("random", 1)]}
PATIENCE = 120  # seconds given to a broken engine on the machine's own device


def serve(chapter: str) -> Table:
    """A few counter prompts, served on this machine."""
    device = machine()
    made = table(f"{chapter} on {device.name}", "prompt", "answer", "", left=3)
    for pair, text in zip(PAIRS, answers(chapter, device), strict=True):
        made.add_row(counter.prompt(*pair), text, "right" if text == counter.answer(*pair) else "WRONG")
    return made


def ask(
    prompts: Sequence[str], engine: str | type, new_tokens: int, options: Options | None = None, **limits
) -> tuple[Session, list[Completion]]:
    """What the counter answers on this machine, in so many tokens each at most, and the session that has served it;
    `limits` are the other fields of a Job."""
    session = Session(Job(prompts, new_tokens, **limits), engine, device=machine(), options=options)
    return session, session.serve()


def answers(engine: str | type, device: Machine, model: str | Checkpoint = "counter") -> list[str] | str:
    """What an engine answers to "count a to b" for each of PAIRS; its error, on one line, if it raises one."""
    try:
        session = Session(Job([counter.prompt(*pair) for pair in PAIRS], **SERVING), engine, model, device)
        session.serve()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return [session.checkpoint.decode(request.generated) for request in session.requests]


def judged(said: list[str] | str) -> tuple[int, str]:
    """How many of the answers are right; one that is not, or the error that was raised instead, cut short."""
    if isinstance(said, str):
        right, wrong = 0, [said]
    else:
        both = zip(PAIRS, said, strict=True)
        wrong = [f"{counter.prompt(*pair)}: {text}" for pair, text in both if text != counter.answer(*pair)]
        right = len(PAIRS) - len(wrong)
    example = wrong[0] if wrong else ""
    return right, f"{example[:35]}…" if len(example) > 36 else example


def simulate(variants: Mapping[str, str | type]) -> Table:
    """How many answers each engine gets right on a simulated GPU, under every schedule, and one that is wrong.

    Args:
        variants: chapters or engines, by what to call them.
    """
    checkpoint = Checkpoint("counter")
    heads = "engine", *SCHEDULES, "for example"
    made = table("right answers on a simulated GPU, by schedule", *heads, left=len(heads))
    for name, engine in variants.items():
        cells, wrong = [], ""
        for schedules in SCHEDULES.values():
            found = [judged(answers(engine, simulated(*schedule), checkpoint)) for schedule in schedules]
            cells.append(f"{sum(right for right, _ in found)} of {len(PAIRS) * len(found)}")
            wrong = next(filter(None, (wrong, *(example for _, example in found))), "")
        made.add_row(name, *cells, wrong)
    return made


def simulated(policy: str, seed: int = 0) -> SimulatedDevice:
    """A simulated GPU for the counter model."""
    return SimulatedDevice(Costs.of("counter"), policies.named(policy, seed))


def try_here(name: str, engine: type) -> Table:
    """How many answers an engine gets right on this machine's own device, and one that is wrong.

    Args:
        name: what to call the engine.
        engine: made by `run.engines`, so that another process can make it too.
    """
    device = machine()
    right, wrong = judged(answers_apart(engine) if device.kind == "cuda" else answers(engine, device))
    made = table(f"right answers on {device.name}", "engine", "right", "for example", left=3)
    made.add_row(name, f"{right} of {len(PAIRS)}", wrong)
    return made


def answers_apart(engine: type) -> list[str] | str:
    """`answers` on this machine's own device, in a process of its own: an error on a GPU ends the process it is in."""
    source = "".join(linecache.getlines(engine.run.__code__.co_filename))
    with multiprocessing.get_context("spawn").Pool(1, _silent) as pool:
        try:
            return pool.apply_async(_answers_here, (source,)).get(PATIENCE)
        except multiprocessing.TimeoutError:
            return f"nothing for {PATIENCE} s: it hung, or took its process down"


def _answers_here(source: str) -> list[str] | str:
    return answers(engines.engine(source, "a variant"), machine())


def _silent() -> None:
    """What a GPU prints about an error, once for every thread, is not part of the answer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
