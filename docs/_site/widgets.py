"""What pages show in HTML: a chapter's code with what is new marked, bars of measured steps, lanes of schematic ones.

HTML wraps, scales to a phone and takes the colours of the page by itself, which a drawing does not.
"""

import difflib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer


class CodeLine(NamedTuple):
    """A line of code: its number in the file, its indentation, and the line as HTML."""

    number: int
    indent: int
    html: str


def lines(path: Path) -> dict[str, CodeLine]:
    """The lines of a chapter from its class on; what its docstring says, the page says too."""
    text = path.read_text()
    shown = highlight(text, PythonLexer(), HtmlFormatter(nowrap=True)).splitlines()
    both = zip(text.splitlines(), shown, strict=True)
    found = [(plain, CodeLine(n, len(plain) - len(plain.lstrip()), code)) for n, (plain, code) in enumerate(both, 1)]
    return found[text[: text.index("class Engine")].count("\n") :]


def listing(new: Path, old: Path | None = None) -> str:
    """All of a chapter's code, with the lines marked that are new since another and those shown that are gone. These
    and the numbers are written by CSS alone, so that copied code is the file's."""
    before, after = lines(old) if old else [], lines(new)
    texts = [[text for text, _ in side] for side in (before or after, after)]
    rows, came, went = [], 0, 0
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        if tag != "equal":
            rows += [f'<span class="gone" data-text="{html.escape(text)}"></span>' for text, _ in before[i1:i2]]
            came, went = came + j2 - j1, went + i2 - i1
        mark = "" if tag == "equal" else ' class="come"'
        rows += [f'<span{mark} data-number="{line.number}">{line.html}\n</span>' for _, line in after[j1:j2]]
    told = f" <small>{came} lines are new, {went} are gone since chapter {old.stem[2]}</small>" if old else ""
    title = f'<div class="title">chapters/{new.name}{told}</div>'
    return f'<div class="listing highlight">{title}<pre><code>{"".join(rows)}</code></pre></div>\n'


def bars(groups: Mapping[str, Mapping[str, Mapping[str, float]]], unit: str, whole: str, mark: float = 0.0) -> str:
    """Stacked bars, in groups with a name: a row for each label, its parts by name, and their sum, called `whole`; with
    a line at `mark`. What came out below zero, as time between kernels can, is not drawn."""
    every = [row for group in groups.values() for row in group.values()]
    parts = list(dict.fromkeys(part for row in every for part in row))
    longest = max(sum(row.values()) for row in every)
    kinds = {part: part.replace(" ", "-") for part in parts}
    swatches = [f'<i class="{kind}"></i>{part}' for part, kind in kinds.items()]
    legend = "".join(f"<span>{swatch}</span>" for swatch in swatches)
    heads = "".join(f"<th>{swatch}</th>" for swatch in swatches)
    made = [f"<tr><th></th><td>{legend}</td>{heads}<th>{whole}</th></tr>"]
    line = f'<b style="left:{100 * mark / longest:.2f}%"></b>' if mark else ""
    for name, group in groups.items():
        made.append(f'<tr class="group"><th colspan="{3 + len(parts)}">{name}</th></tr>')
        for label, row in group.items():
            widths = {part: 100 * max(value, 0) / longest for part, value in row.items()}
            bar = "".join(
                f'<span class="{kinds[part]}" style="width:{wide:.2f}%"></span>' for part, wide in widths.items()
            )
            figures = "".join(f"<td>{value + 0.0:.2f}</td>" for value in (*row.values(), sum(row.values())))
            made.append(f"<tr><th>{label}</th><td><div>{bar}{line}</div></td>{figures}</tr>")
    return f'<table class="bars"><caption>{unit}</caption>{"".join(made)}</table>\n'


def lanes(title: str, rows: Mapping[str, Sequence[tuple]], length: float = 0.0, note: str = "") -> str:
    """Lanes with bars in them, end to end: each a kind, a length and what is written in it.

    Args:
        rows: by the name of the lane.
        length: of all of it; by default the longest lane's.
        note: what is said behind the title.
    """
    length = length or max(sum(bar[1] for bar in row) for row in rows.values())
    made = []
    for name, row in rows.items():
        bars = "".join(
            f'<span class="{kind}" style="width:{100 * size / length:.3f}%">{html.escape(text)}</span>'
            for kind, size, text in row
        )
        made.append(f"<div><b>{name}</b><p>{bars}</p></div>")
    told = f" <small>{note}</small>" if note else ""
    return f'<div class="lanes"><p class="point">{title}{told}</p>{"".join(made)}</div>\n'


def source(facts: Iterable[str]) -> str:
    """Where figures are from, behind an icon."""
    text = "<br>".join(facts)
    return f'<details class="source"><summary title="Where these figures are from">i</summary>{text}</details>'
