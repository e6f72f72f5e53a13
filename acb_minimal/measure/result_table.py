"""A table of figures that knows where they are from: for a terminal, for a JSON file, for a page in Markdown."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from . import metrics


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
        table = Table(title=self.title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE)
        for name, how in self.columns.items():
            table.add_column(name, justify="right" if how else "left", overflow="fold")
        for cells in self.cells():
            table.add_row(*map(Text, cells))  # as it is: in "t[mask]", rich would take "[mask]" for a style
        return table

    def markdown(self) -> str:
        """For a page: the table alone, without title, note or source."""
        lines = ["| " + " | ".join(self.columns) + " |"]
        lines.append("|" + "|".join(" ---: " if how else " --- " for how in self.columns.values()) + "|")
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in self.cells()]
        return "\n".join(lines)

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
