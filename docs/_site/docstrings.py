"""Docstrings as Markdown: extensions of griffe, which reads the code for the reference.

Our docstrings are plain text: paragraphs, and blocks of aligned columns with a row for each field. Markdown would run
such a block together. Here it becomes a definition list, and signs that Markdown would take for its own are escaped.
"""

import re

import griffe

GAP = re.compile(r" {2,}")
NAMES = re.compile(r"\w+(,? \w+)*,?")  # of fields: the first column
# Code and emphasis, which are meant; any other sign that Markdown would take for its own, in a line and before one.
MEANT_OR_SIGN = re.compile(r"((`+)[^`]+\2(?!`)|(?<![*\w])(\*\*?)\w([^*]*\w)?\3(?![*\w]))|[\\`*_<&{\[]")
FIRST_SIGN = re.compile(r"^(\d+[.)]|[-+#>:=~!?])", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Puts Markdown in the place of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


class NamedTuples(griffe.Extension):
    """Gives named tuples the signature that griffe gives to dataclasses alone."""

    def on_class(self, *, cls: griffe.Class, **_) -> None:
        if "NamedTuple" in map(str, cls.bases):
            parameters = griffe.Parameters(griffe.Parameter("self"))
            for each in cls.attributes.values():
                if "property" not in each.labels:
                    parameters.add(griffe.Parameter(each.name, annotation=each.annotation, default=each.value))
            cls.set_member("__init__", griffe.Function("__init__", parameters=parameters))


def markdown(docstring: str) -> str:
    """A docstring in Markdown. What is indented and is no block of columns is code, and stays as it is."""
    return "\n\n".join(map(_paragraph, re.split(r"\n(?: *\n)+", docstring)))


def fields(lines: list[str]) -> tuple[list[list[str]], list[str]]:
    """The rows of the block of columns that the lines begin with, and the lines after it; no rows if there is no block.

    A line that is indented goes on with the row's last cell, or, where it begins before that column, with all cells.
    """
    rows: list[list[str]] = []
    margin, column = _margin(lines[0]), 0
    for number, line in enumerate(lines):
        cells = GAP.split(line.strip())
        if _margin(line) == margin and len(cells) == 1:
            return rows, lines[number:]
        if _margin(line) == margin and NAMES.fullmatch(cells[0]):
            rows.append(cells)
            column = line.rindex(cells[-1])
        elif rows and len(cells) == 1:
            rows[-1][-1] += " " + cells[0]
        elif rows and len(cells) == len(rows[-1]) and margin < _margin(line) < column:
            rows[-1] = [f"{above} {below}" for above, below in zip(rows[-1], cells, strict=True)]
        else:
            return [], lines
    return rows, []


def escaped(text: str) -> str:
    """Text in which Markdown finds no markup but code and emphasis."""
    text = MEANT_OR_SIGN.sub(lambda found: found[1] or _entity(found[0]), text)
    return FIRST_SIGN.sub(lambda found: found[0][:-1] + _entity(found[0][-1]), text)


def _paragraph(text: str) -> str:
    rows, rest = fields(text.splitlines())
    if not rows:
        return text if text.startswith("    ") else escaped(text)
    return "\n\n".join([*(_definition(*cells) for cells in rows), escaped("\n".join(map(str.strip, rest)))])


def _definition(names: str, *cells: str) -> str:
    """An entry of a definition list. Names are code, unless they are words; so are columns before the last one."""
    term = ", ".join(f"`{name}`" if name.isidentifier() else name for name in re.split(r",\s*", names))
    shapes = [f"`{cell}`" for cell in cells[:-1]]
    return f"{term}\n:   {' '.join([*shapes, escaped(cells[-1])])}"


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _entity(sign: str) -> str:
    return f"&#{ord(sign)};"
