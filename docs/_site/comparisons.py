"""Two stored files laid side by side: simulated and measured steps, deletions on the simulator and on a GPU."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from acb_minimal.measure import result_table
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.trace.breakdown import PARTS

Results = Mapping[str, dict]
NEEDED = ("hazard in batch", "wrong token in batch", "error")  # columns: what makes a line a needed one


def rows(table: ResultTable) -> list[dict]:
    """The rows of a stored table, each value by the name of its column."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def predictions(real: Results, simulated: Results) -> str:
    """The steps of all workloads that both have and their parts, in ms: measured, then simulated."""
    heads = ["step", *PARTS, "furthest off"]
    lines = [
        f"| ms | | {' | '.join(head.replace('_', ' ') for head in heads)} |",
        f"| --- | --- |{' ---: |' * len(heads)}",
    ]
    last = None
    for name, chapter, measured, guess in _steps(real, simulated):
        both = (result_table.parts_in_ms(parts) for parts in (measured, guess))
        cells = map(",&nbsp;".join, zip(*both, strict=True))
        what = "" if name == last else f"`{name}`"
        lines.append(f"| {what} | {chapter} | {' | '.join(cells)} | {100 * guess.distance(measured):.1f} % |")
        last = name
    return "\n".join(lines)


def distances(real: Results, simulated: Results) -> dict[tuple[str, str], float]:
    """How far the furthest part of each step is off, by workload and chapter."""
    return {(name, chapter): guess.distance(step) for name, chapter, step, guess in _steps(real, simulated)}


def _steps(real: Results, simulated: Results) -> Iterator[tuple]:
    for name in real:
        if name in simulated:
            guesses = result_table.breakdowns(simulated[name])
            for chapter, measured in result_table.breakdowns(real[name]).items():
                yield name, chapter, measured, guesses[chapter]


class Deletion(NamedTuple):
    """A line of a chapter taken away: what the simulator found without it, and what a GPU showed.

    Attributes:
        chapter: its name.
        line: its number; None for the chapter as it is.
        text: the line.
        simulated: a row of deletions.json, by column; empty for the chapter as it is.
        real: a row of deletions_cuda.json, by column.
    """

    chapter: str
    line: int | None
    text: str
    simulated: dict
    real: dict

    @property
    def needed(self) -> bool:
        """Whether answers are safe only with the line; otherwise it is there for speed."""
        return any(self.simulated.get(name) is not None for name in NEEDED)

    @property
    def wrong(self) -> list[int]:
        """How many answers were wrong on the GPU, in each run that came to its end."""
        return [count for name, count in self.real.items() if name.startswith("wrong in run") and count is not None]

    @property
    def noticed(self) -> bool:
        """Whether a run on the GPU went wrong."""
        return any(self.wrong) or self.real["error"] is not None

    @property
    def race(self) -> bool:
        """Whether the GPU's sanitizer said anything."""
        return self.real["sanitizer"] is not None

    def token(self) -> str:
        """The first wrong token on the simulator, and the schedule that brought it out."""
        batch, seed = self.simulated["wrong token in batch"], self.simulated["seed"]
        return f"{self.simulated['error'] if batch is None else f'batch {batch}'}, seed {seed}"

    def found(self) -> str:
        """All that the simulator found."""
        if not self.needed:
            before, after = (self.simulated[f"bubble {how} it (us)"] for how in ("with", "without"))
            return f"bubble, {before:.1f} to {after:.1f} us" if after - before > 1 else "nothing"
        found = {name: self.simulated[name] for name in NEEDED}
        return ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)

    def runs(self) -> str:
        """What the runs on the GPU showed."""
        if self.real["error"] is not None:
            return f"run {len(self.wrong) + 1} fails: {self.real['error']}"
        counts = ", ".join(map(str, self.wrong))
        return f"{counts} of {self.real['answers']}"


def joined(chapter: str, simulated: ResultTable | None, real: ResultTable) -> list[Deletion]:
    """Both tables of a chapter, line by line; the chapter as it is comes first. None: no line of it orders anything.

    Raises:
        ValueError: they are not of the same lines.
    """
    whole, *there = rows(real)
    here = rows(simulated) if simulated else []
    lines, others = ([(row["line"], row["without"]) for row in table] for table in (here, there))
    if lines != others:
        raise ValueError(f"the tables of {chapter!r} are not of the same lines: {set(lines) ^ set(others)}")
    pairs = [({}, whole), *zip(here, there, strict=True)]
    return [Deletion(chapter, real["line"], real["without"], row, real) for row, real in pairs]


def deletions(found: list[Deletion]) -> str:
    """As a table, for a page in Markdown."""
    lines = [
        "| line | without | simulated GPU | wrong answers, real GPU | sanitizer |",
        "| ---: | --- | --- | --- | --- |",
    ]
    for each in found:
        cells = [str(each.line), f"`{each.text}`", each.found()] if each.line else ["", f"**{each.text}**", ""]
        lines.append(f"| {' | '.join((*cells, each.runs(), each.real['sanitizer'] or 'nothing'))} |")
    return "\n".join(lines)
