"""Tables of what was measured, drawn from what is stored: a stored result looks as it did live.

A ResultTable is any table of figures that knows where they are from. The functions below it are of a comparison of
chapters, stored as `compare.entry` has it.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ..trace import formatting
from ..trace.formatting import in_ms
from ..trace.law import EAGER_GAP, PARTS, Breakdown
from . import metrics

# How a step is drawn in a terminal.
SIGNS = dict(zip(PARTS, (("█", "green"), ("▓", "cyan"), ("▒", "yellow"), ("░", "magenta")), strict=True))
BAR = 46  # characters of the longest
STEP = ("step", "kernels", "kernel\ngaps", "launch\ngaps", "bubbles")
COLUMNS = ("chapter", *STEP, "speedup", "active", "tokens\n/s", "same")
# "Unlocking asynchronicity in continuous batching", Hugging Face, May 2026: 8,192 tokens each for 32 requests, 8B.
# Seconds, and the share of them with the GPU active.
PUBLISHED = {"synchronous": (300.6, 0.760), "asynchronous": (234.5, 0.994)}


@dataclass(frozen=True)
class ResultTable:
    """Figures from one run.

    Attributes:
        title: what they are.
        columns: the columns' names, each with the format of its values (",.1f", say; "" for text).
        rows: a list of values each, numbers or text; None where there is none.
        note: what to know when reading them.
        environment: machine, versions and date, as `metrics.environment` has them.
        command: the command line that measured them.
    """

    title: str
    columns: dict[str, str]
    rows: list[list]
    note: str
    environment: dict[str, str]
    command: str = field(default_factory=metrics.command)

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        formats = self.columns.values()
        return [
            ["-" if value is None else format(value, how) for value, how in zip(row, formats, strict=True)]
            for row in self.rows
        ]

    def table(self) -> Table:
        """For a terminal, with machine, versions and date below."""
        origin = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        caption = f"{self.note} {origin}".strip()
        made = formatting.table(self.title, *self.columns, caption=caption)
        for column, how in zip(made.columns, self.columns.values(), strict=True):
            column.justify, column.no_wrap = "right" if how else "left", False
        for cells in self.cells():
            made.add_row(*map(Text, cells))  # as it is: in "t[mask]", rich would take "[mask]" for a style
        return made

    def markdown(self) -> str:
        """For a page: the table alone, without title, note or source."""
        cells = [[cell.replace("|", "\\|") for cell in cells] for cells in self.cells()]
        return formatting.markdown(list(self.columns), cells, [bool(how) for how in self.columns.values()])

    def save(self, path: Path, name: str) -> None:
        """Into a file that may hold others: this one replaces what it had under `name`.

        Raises:
            InputError: the file holds something else.
        """
        metrics.save(path, name, asdict(self), KEYS)


KEYS = set(ResultTable.__dataclass_fields__)


def load(path: Path) -> dict[str, ResultTable]:
    """What is in a file that `save` wrote, by name.

    Raises:
        InputError: it is another file, or none.
    """
    return {name: ResultTable(**entry) for name, entry in metrics.load(path, KEYS).items()}


# --- comparisons of chapters ---


def title(entry: dict) -> str:
    """The workload, model and machine of a comparison, and what was set."""
    load = entry["workload"]
    options = f", {entry['dials']}" if entry.get("dials") else ""
    many = f"{load['requests']:,} requests, {load['max_running']:,} at a time"
    return f"{load['name']} on {entry['environment']['device']}: {load['model']}, {many}{options}"


def breakdowns(entry: dict) -> dict[str, Breakdown]:
    """The breakdown of each chapter of a comparison that has one."""
    return {row["chapter"]: stored_breakdown(row["breakdown"]) for row in entry["chapters"] if row["breakdown"]}


def stored_breakdown(parts: dict) -> Breakdown:
    """What a file of results has of a step. Those from before 2026-12 have one figure for both kinds of gaps inside a
    batch, and the number of kernels, by which they are told apart here.

    Raises:
        InputError: the file has not even that.
    """
    if "kernel_gaps" in parts:
        return Breakdown(**parts)
    kernels, gaps, count = parts["kernels"], parts["launch_gaps"], parts["kernel_count"]
    if count is None:
        raise InputError("these results do not tell kernel gaps from launch gaps: measure them again")
    graph = parts["launching"] < 0.1 * kernels  # launching one takes some tens of microseconds
    own = gaps if graph else min(count * EAGER_GAP, gaps)
    return Breakdown(kernels, own, gaps - own, parts["bubbles"], count)


def steps(entry: dict) -> dict[str, float]:
    """Seconds of a decode step of each chapter that has such."""
    made, found = breakdowns(entry), {}
    for row in entry["chapters"]:
        chapter, by_host = row["chapter"], row["figures"]["ms_per_decode_step"]
        step = made[chapter].step if chapter in made else row.get("step") or (by_host and by_host / 1e3)
        found |= {chapter: step} if step else {}
    return found


def parts_in_ms(parts: Breakdown) -> list[str]:
    """A decode step and what it is made of, in the order of PARTS."""
    return [in_ms(parts.step), *(in_ms(getattr(parts, part)) for part in PARTS)]


def bar(name: str, parts: Breakdown, longest: float, speedup: float | None = None) -> Text:
    """A decode step as a line of a terminal: its name, its parts to scale (`longest` seconds fill BAR characters), the
    whole in ms, and a speedup."""
    line, drawn, until = Text(f"{name:<15} "), 0, 0.0
    for part, (sign, style) in SIGNS.items():
        until += max(getattr(parts, part), 0.0)
        end = min(round(BAR * until / longest), BAR)
        line.append(sign * (end - drawn), style)
        drawn = end
    return line.append(f" {in_ms(parts.step)} ms" + ("" if speedup is None else f"  {speedup:.2f}x"))


def legend() -> Text:
    """What the signs of `bar` stand for."""
    signs = (Text(sign, style).append(f" {part.replace('_', ' ')}", "none") for part, (sign, style) in SIGNS.items())
    return Text("  ").join([Text("ms per decode step:"), *signs])


def comparison(entry: dict) -> Table:
    """The chapters of a comparison side by side."""
    caption = (
        "step: ms of a typical decode, medians: kernels + kernel gaps (the next is queued) + launch gaps (it is not "
        "launched yet) + bubbles (no batch is on the GPU). speedup: of the step, over the first row's. Of the whole "
        "run: active, share of time with a batch on the GPU; tokens/s, new ones; same, share of tokens that are the "
        f"first row's.{_runs(entry)}"
    )
    made, parts, times = formatting.table("", *COLUMNS, caption=caption, apart=1), breakdowns(entry), steps(entry)
    first = times.get(entry["chapters"][0]["chapter"])
    for row in entry["chapters"]:
        chapter, figures = row["chapter"], row["figures"]
        step = times.get(chapter)
        alone = ["-" if step is None else in_ms(step), *["-"] * len(PARTS)]
        made.add_row(
            chapter,
            *(parts_in_ms(parts[chapter]) if chapter in parts else alone),
            f"{first / step:.2f}" if step and first else "-",
            f"{figures['gpu_active']:.1%}",
            f"{figures['tokens_per_second']:,.0f}",
            "yes" if row["same_tokens"] == 1 else f"{row['same_tokens']:.1%}",
        )
    return made


def _runs(entry: dict) -> str:
    """A sentence on the runs of each chapter, if there was more than one."""
    runs = [row.get("run_steps", [0.0]) for row in entry["chapters"]]
    if len(runs[0]) == 1:
        return ""
    most = max(max(steps) / min(steps) - 1 for steps in runs)
    return (
        f" Of {len(runs[0])} runs each, the one in the middle by the step on the host's clock; a chapter's runs "
        f"differ by {most:.1%} at most."
    )


def markdown(results: dict[str, dict]) -> str:
    """The steps of all workloads that have breakdowns, a row for each chapter, for a page in Markdown."""
    parts = {name: breakdowns(entry) for name, entry in results.items()}
    parts = {name: chapters for name, chapters in parts.items() if chapters}
    rows = []
    for chapter in next(iter(parts.values())):
        cells = (parts_in_ms(chapters[chapter]) for chapters in parts.values())
        rows.append([chapter, *(f"**{step}** = {' + '.join(rest)}" for step, *rest in cells)])
    heads = ["ms per decode step", *(f"`{name}`" for name in parts)]
    return formatting.markdown(heads, rows, [False] * len(heads))
