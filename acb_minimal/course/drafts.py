"""Chapters with drafts: how many are right, and how many batches that saves."""

from rich.table import Table

from ..models import counter
from ..run.options import Options
from ..run.workload import workload
from ..trace.formatting import table
from .counting import ask
from .notebook import machine, timed

LOAD = workload("small").override(new_tokens=64)
# What is asked, and the answer: three that are in the prompt, and one that is not.
ASKED = {f"{counter.prompt(a, b)} {counter.answer(a + 1, b)} {a}": counter.answer(a + 1, b)
         for a, b in ((20, 30), (3, 9), (100, 112))} | {counter.prompt(500, 506): counter.answer(500, 506)}  # fmt: skip


def answered(*chapters: tuple[str, int | None], mistake: str | None = None) -> Table:
    """What four prompts are answered on this machine, and how many drafts were right.

    Args:
        chapters: each with the number of drafts in a decode, or None.
        mistake: by name, as `acb run --mistake` takes it.
    """
    named = f"with the mistake {mistake}, " if mistake else ""
    made = table(f"{named}on {machine().name}", "chapter", "drafts", "batches", "right", "all right", left=1)
    for chapter, drafts in chapters:
        session, done = ask(list(ASKED), chapter, 20, Options(speculate=drafts, mistake=mistake), max_running=4)
        right = f"{session.scheduler.accepted} of {session.scheduler.drafted}" if drafts else "-"
        told = "yes" if [one.text for one in done] == list(ASKED.values()) else "WRONG"
        made.add_row(chapter, f"{drafts or 0}", f"{len(session.done)}", right, told)
    return made


def steps(*shares: float | None) -> Table:
    """A decode step and tokens a second by the share of three drafts that are right: a dial, since weights are random.

    Args:
        shares: 0 to 1 each; None: no drafts, and chapter 5.
    """
    made = table("", "drafts right", "ms a decode step", "tokens/s")
    for share in shares:
        chapter, drafts = ("ch5", {}) if share is None else ("ch10", {"speculate": 3, "acceptance": share})
        run = timed(LOAD, chapter, graphs=True, **drafts)
        figures, made.title = run.metrics, f"{LOAD.model} on {run.device.name}"
        name = "no drafts" if share is None else f"{share:.0%}"
        made.add_row(name, f"{figures.ms_per_decode_step:.2f}", f"{figures.tokens_per_second:,.0f}")
    return made
