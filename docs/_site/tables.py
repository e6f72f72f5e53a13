"""Tables that lay two stored files side by side: simulated and measured steps, deletions on the simulator and a GPU."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

from acb_minimal.measure import tables
from acb_minimal.measure.record import Measured

Results = Mapping[str, dict]


def predictions(real: Results, simulated: Results) -> str:
    """The steps of all workloads that both have, in ms: measured, simulated, and the ratio of the two."""
    names = [name for name in real if name in simulated]
    lines = [
        f"| ms per decode step: measured, simulated, ratio | {' | '.join(f'`{name}`' for name in names)} |",
        f"| --- |{' --- |' * len(names)}",
    ]
    cells: dict[str, list[str]] = {}
    for _, chapter, measured, guess in _steps(real, simulated):
        text = f"{1e3 * measured.step:.2f}, {1e3 * guess.step:.2f}, **{guess.step / measured.step:.2f}**"
        cells.setdefault(chapter, []).append(text)
    return "\n".join([*lines, *(f"| {chapter} | {' | '.join(found)} |" for chapter, found in cells.items())])


def ratios(real: Results, simulated: Results) -> dict[tuple[str, str], float]:
    """Simulated step over measured step, by workload and chapter."""
    return {(name, chapter): guess.step / step.step for name, chapter, step, guess in _steps(real, simulated)}


def _steps(real: Results, simulated: Results) -> Iterator[tuple]:
    for name in real:
        if name in simulated:
            guesses = tables.breakdowns(simulated[name])
            for chapter, measured in tables.breakdowns(real[name]).items():
                yield name, chapter, measured, guesses[chapter]


@dataclass(frozen=True)
class Deletion:
    """One line of a chapter taken away: how it is missed on the simulator, and what a GPU showed.

    chapter         its name
    line, text      the line; None and "as it is" for the whole chapter
    hazard, tokens  as the simulator found them: in which batch the first one came; None for none
    bubble          before and after, in us, or "as before"; None where hazard or tokens tell
    bad             runs on the GPU that went wrong
    wrong           in each of them, how many answers were wrong; or the error
    race            what the CUDA sanitizer said; None if nothing
    """

    chapter: str
    line: int | None
    text: str
    hazard: str | None
    tokens: str | None
    bubble: str | None
    bad: int
    wrong: str
    race: str | None

    @property
    def needed(self) -> bool:
        """Whether answers are safe only with the line; otherwise it is there for speed."""
        return self.hazard is not None or self.tokens is not None

    def simulated(self) -> str:
        found = [f"hazard in {self.hazard}"] if self.hazard else []
        found += [f"wrong token in {self.tokens.partition(',')[0]}"] if self.tokens else []
        found += [f"bubble, {self.bubble} us"] if self.bubble not in (None, "as before") else []
        return ", ".join(found) or "nothing"

    def runs(self) -> str:
        counts = [re.fullmatch(r"(\d+) of (\d+)", part) for part in self.wrong.split(", ")]
        if None in counts:  # the first that is no count begins an error
            done = counts.index(None)
            return f"run {done + 1} fails: {_short(', '.join(self.wrong.split(', ')[done:]))}"
        wrong = f": {', '.join(count[1] for count in counts)} of {counts[0][2]} answers wrong" if self.bad else ""
        return f"{self.bad} of {len(counts)} bad{wrong}"

    def sanitizer(self) -> str:
        if self.race is None:
            return "nothing"
        parts = re.findall(r"(?:aten::)?(\S+) (reading|writing) (?:from|to) it", self.race)
        return " after ".join(f"`{name}` {does}" for name, does in parts) or _short(self.race)


def _short(error: str) -> str:
    """Without the place of an assertion, and who reports it."""
    return re.sub(r"^(CUDA|Triton) [Ee]rror.*?: | at \".*", "", error.strip())


def joined(chapter: str, simulated: Measured, real: Measured) -> list[Deletion]:
    """Both tables of a chapter, line by line; "as it is" comes first. Raises ValueError if they are not of the same
    lines."""
    (_, whole, *facts), *rest = real.rows
    lines, there = ([tuple(row[:2]) for row in rows] for rows in (simulated.rows, rest))
    if lines != there:
        raise ValueError(f"{simulated.title!r} and {real.title!r} are not of the same lines: {set(lines) ^ set(there)}")
    found = [Deletion(chapter, None, whole, None, None, None, *facts)]
    return found + [Deletion(chapter, *one, *other[2:]) for one, other in zip(simulated.rows, rest, strict=True)]


def deletions(found: list[Deletion]) -> str:
    """As a table, for a page in Markdown."""
    lines = ["| line | without | simulated GPU | real GPU, 3 runs | sanitizer |", "| ---: | --- | --- | --- | --- |"]
    for each in found:
        line, text = (str(each.line), f"`{each.text}`") if each.line else ("", f"**{each.text}**")
        lines.append(f"| {' | '.join((line, text, each.simulated(), each.runs(), each.sanitizer()))} |")
    return "\n".join(lines)


def counted(found: list[Deletion]) -> SimpleNamespace:
    """How many lines there are, how many of them are needed and how many are for speed; of those that are needed, how
    many the GPU's runs did not show to be missing, how many its sanitizer did not, and how many neither did."""
    needed = [each for each in found if each.line and each.needed]
    quiet = [each for each in needed if not each.bad]
    unseen = [each for each in needed if each.race is None]
    return SimpleNamespace(
        lines=sum(each.line is not None for each in found),
        needed=len(needed),
        speed=sum(each.line is not None and not each.needed for each in found),
        unnoticed_by_runs=len(quiet),
        unnoticed_by_sanitizer=len(unseen),
        unnoticed=sum(each in unseen for each in quiet),
        unseen=unseen,
    )
