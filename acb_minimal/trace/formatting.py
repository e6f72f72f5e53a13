"""How figures are written, everywhere: times, shares, tables for a terminal and for a page."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table


def in_ms(seconds: float, digits: int = 2) -> str:
    """In milliseconds, without the unit. What is more than nothing does not read as nothing."""
    least = 10.0**-digits
    if 1e-7 < seconds < 1e-3 * least / 2:
        return f"<{least:.{digits}f}"
    return f"{round(1e3 * seconds, digits) + 0.0:,.{digits}f}"  # + 0.0: no -0.00


def ms(seconds: float, digits: int = 2) -> str:
    """In milliseconds, with the unit."""
    return f"{in_ms(seconds, digits)} ms"


def duration(seconds: float) -> str:
    """With a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{1e6 * seconds:.1f} us"


def share(part: float, whole: float) -> str:
    """A part of something as a percentage."""
    return f"{part / whole:.1%}" if whole else "-"


def table(title: str, *columns: str, left: int = 1, caption: str = "", wraps: bool = False, apart: int = 2) -> Table:
    """An empty table for a terminal, with nothing but a line under its header.

    Args:
        columns: their heads.
        left: so many columns, from the first, are text; the others are numbers, to the right.
        caption: below it.
        wraps: whether the last column is text as well, which may take several lines.
        apart: characters between two columns.
    """
    style = {"title_justify": "left", "caption_justify": "left", "box": box.SIMPLE_HEAD, "show_edge": False}
    wide = min(len(title), 80)  # or the title would be broken to the width of a narrow table
    texts = {"title": escape(title) or None, "caption": escape(caption) or None}
    made = Table(**texts, **style, padding=(0, apart - 1, 0, 0), min_width=wide)
    for number, column in enumerate(columns):
        last = wraps and number == len(columns) - 1
        justify, vertical = "left" if number < left or last else "right", "top" if wraps else "bottom"
        made.add_column(column, justify=justify, no_wrap=not last, overflow="fold", vertical=vertical)
    return made


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[bool] | None = None) -> str:
    """A table for a page in Markdown.

    Args:
        numbers: which columns are numbers, to the right; by default all but the first.
    """
    numbers = [False, *[True] * (len(heads) - 1)] if numbers is None else numbers
    rule = ["---:" if number else "---" for number in numbers]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
