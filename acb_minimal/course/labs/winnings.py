"""What somebody has won with an engine that passed: its step before and after beside the chapter's, and the diff."""

import shlex
from collections.abc import Callable

from rich.text import Text

from ...check.pace import SETTING, Pace, of_chapter
from ...measure import compare, tables
from ...run.engines import chapter_path, source_diff
from ...run.options import Options
from ...run.workload import workload
from . import judging
from .folder import Started
from .lab import Lab

ON_GPU, HOST_WORK = "small", 4e-3  # a workload that most GPUs hold, and seconds of host work that it can hide


def bars(lab: Lab, mine: Pace) -> list[Text]:
    """A decode step of the starter, if it was in order, of the learner's engine and of the chapter's, simulated."""
    paces = [each for each in (judging.before(lab), mine, of_chapter(lab.goal)) if each]
    longest = 1.1 * max(each.parts.step for each in paces)
    waits = ", ".join(f"{each.name} {each.host_waits:.0f}" for each in paces)
    return [
        Text(f"Time of a decode step, {SETTING}"),
        tables.legend(),
        *(tables.bar(each.name, each.parts, longest) for each in paces),
        Text(f"The host waits in a step: {waits}"),
    ]


def beside_the_chapter(each: Started) -> str:
    """The diff from the learner's engine to the chapter's; empty if there is none but in comments at the top."""
    chapter = chapter_path(each.lab.goal)
    return source_diff(each.engine.read_text(), chapter.read_text(), str(each.engine), chapter.name, context=2)


def command(each: Started) -> str:
    """The command that measures what `measured` does."""
    engines = [*_beside(each.lab), shlex.quote(str(each.engine))]
    options = _options(each.lab)
    said = [*(f"--chapter {name}" for name in engines), f"--host-work {1e3 * options.host_work:g}"]
    return " ".join([f"acb compare --workload {ON_GPU}", *said, *(["--graphs"] if options.graphs else [])])


def measured(each: Started, progress: Callable[[str], None]) -> dict:
    """The engine and the chapter on a real GPU.

    Args:
        progress: is told what goes on.

    Returns:
        An entry as tables.entry makes it.

    Raises:
        InputError: there is no GPU, or too small a one.
    """
    chosen, chapters = workload(ON_GPU), [*_beside(each.lab), str(each.engine)]
    found = compare.compare(chosen, "cuda", chapters, options=_options(each.lab), progress=progress)
    return tables.entry(chosen, found)


def _beside(lab: Lab) -> list[str]:
    return list(dict.fromkeys([lab.start, lab.goal]))


def _options(lab: Lab) -> Options:
    """Decodes are launched as graphs, or launching would hide what there is to win; unless the lab is about that."""
    return Options(HOST_WORK, graphs=lab.goal != "ch6")
