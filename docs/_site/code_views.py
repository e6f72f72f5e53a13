"""What changed between two files, as HTML with two views to switch between: side by side, and in one column."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

CONTEXT = 3  # unchanged lines around each change
LITERAL = {ord(sign): f"&#{ord(sign)};" for sign in "_*`[]\\"}  # or Markdown would take them for its own
BEFORE_COMMENT = re.compile(r" {2,}(?=(</span>)?(<span[^>]*>)?#)")


class Line(NamedTuple):
    number: int
    indent: int
    html: str


class Pair(NamedTuple):
    """A line before and after; None where there is none on that side. Both None: lines are left out here."""

    kind: str
    old: Line | None
    new: Line | None


def changes(old: Path, new: Path) -> str:
    """Everything from the class on: what the docstrings of the modules say, the page says too."""
    before, after = (lines(path) for path in (old, new))
    found = list(_pairs(before, after))
    tabs = {"Side by side": _side_by_side(found), "In one column": _one_column(found)}
    views = "\n\n".join(f'=== "{title}"\n\n    {view}' for title, view in tabs.items())
    changed = [pair[1:] for pair in found if pair.kind == "changed"]
    gone, come = ([line for line in side if line] for side in zip(*changed, strict=True))
    return f"{views}\n\n`{old.name}` to `{new.name}`: {len(come)} lines are new, {len(gone)} are gone.\n"


def lines(path: Path) -> list[tuple[str, Line]]:
    """The lines of a file from its class on: the text, and the line as it is shown."""
    text = path.read_text()
    skipped = text[: text.index("class Engine")].count("\n")
    shown = highlight(text, PythonLexer(), HtmlFormatter(nowrap=True)).splitlines()
    both = zip(text.splitlines(), shown, strict=True)
    found = [(plain, Line(n, len(plain) - len(plain.lstrip()), html)) for n, (plain, html) in enumerate(both, 1)]
    return found[skipped:]


def _pairs(before: list[tuple[str, Line]], after: list[tuple[str, Line]]) -> Iterator[Pair]:
    matcher = difflib.SequenceMatcher(None, [text for text, _ in before], [text for text, _ in after], autojunk=False)
    end = 0
    for group in matcher.get_grouped_opcodes(CONTEXT):
        if group[0][3] > end:
            yield Pair("gap", None, None)
        for tag, i1, i2, j1, j2 in group:
            old, new = [line for _, line in before[i1:i2]], [line for _, line in after[j1:j2]]
            length = max(len(old), len(new))
            old, new = (lines + [None] * (length - len(lines)) for lines in (old, new))
            yield from (Pair("same" if tag == "equal" else "changed", *pair) for pair in zip(old, new, strict=True))
        end = group[-1][4]
    if end < len(after):
        yield Pair("gap", None, None)


def _side_by_side(pairs: list[Pair]) -> str:
    rows = []
    for kind, old, new in pairs:
        if kind == "gap":
            rows.append('<tr class="gap"><td colspan="4">...</td></tr>')
            continue
        old, new = map(narrowed, (old, new))
        marks = ("", "") if kind == "same" else ("gone" if old else "none", "come" if new else "none")
        rows.append(f"<tr>{_cells(old, marks[0])}{_cells(new, marks[1])}</tr>")
    return f'<div class="changes beside highlight"><table><tbody>{"".join(rows)}</tbody></table></div>'


def narrowed(line: Line | None) -> Line | None:
    """Without the spaces that align its comment: half a page is narrow."""
    return line and line._replace(html=BEFORE_COMMENT.sub("  ", line.html))


def _one_column(pairs: list[Pair]) -> str:
    rows, come = [], []
    for kind, old, new in [*pairs, Pair("gap", None, None)]:
        if kind != "changed":  # of a run of changed lines, what goes stands before what comes
            rows, come = rows + come, []
        if kind == "gap":
            rows.append('<tr class="gap"><td colspan="2">...</td></tr>')
        elif kind == "same":
            rows.append(f"<tr>{_cells(new, '')}</tr>")
        else:
            rows += [f"<tr>{_cells(old, 'gone')}</tr>"] if old else []
            come += [f"<tr>{_cells(new, 'come')}</tr>"] if new else []
    return f'<div class="changes highlight"><table><tbody>{"".join(rows[:-1])}</tbody></table></div>'


def _cells(line: Line | None, mark: str) -> str:
    """The number and the text of a line. The sign is said by CSS alone, so that copied code is clean."""
    if line is None:
        return f'<td class="number {mark}"></td><td class="{mark}"></td>'
    text = line.html.translate(LITERAL)
    code = f'<code style="--indent: {line.indent}ch">{text}</code>'  # a line that is wrapped goes on under its start
    return f'<td class="number {mark}">{line.number}</td><td class="{mark}">{code}</td>'
