"""Sections of the chapters' notebooks as Markdown: prose, code, and what the cells printed and drew when they ran."""

import base64
import functools
import re
from pathlib import Path

import nbformat

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@functools.cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def pictures(path: Path) -> dict[str, bytes]:
    """The pictures that the cells drew, by file name."""
    return {
        _picture(path, number): base64.b64decode(output["data"]["image/png"])
        for number, cell in enumerate(read(path).cells)
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", ())
    }


def section(path: Path, heading: str, figures: str) -> str:
    """What comes under a heading of the second level, without the heading. Pictures are in the folder `figures`.

    Raises ValueError if there is no such heading.
    """
    parts, inside = [], False
    for number, cell in enumerate(read(path).cells):
        if cell.cell_type == "markdown":
            for piece in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if piece.startswith("## "):
                    title, _, piece = piece.partition("\n")
                    inside = title.removeprefix("## ") == heading
                if inside:
                    parts.append(piece.strip())
        elif inside:
            parts.append(f"```python\n{cell.source}\n```")
            parts += [_output(path, number, output, figures) for output in cell.outputs]
    if not parts:
        raise ValueError(f"{path.name} has no section {heading!r}")
    return "\n\n".join(filter(None, parts))


def printed(path: Path, call: str) -> str:
    """What a cell with this call in it printed. Raises StopIteration if there is none."""
    cell = next(cell for cell in read(path).cells if cell.cell_type == "code" and call in cell.source)
    return "\n".join(ANSI.sub("", output.get("data", {}).get("text/plain") or output.text) for output in cell.outputs)


def where(path: Path) -> str:
    """Machine, date and versions, as the notebook's first cell printed them."""
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    return first.outputs[0]["data"]["text/markdown"]


def _output(path: Path, number: int, output: nbformat.NotebookNode, figures: str) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata["image/png"]["alt"]
        image = f"![{alt}]({figures}/{_picture(path, number)}){{ .notebook }}"
        return f'<div class="scroll" markdown="span">{image}</div>'
    if "text/markdown" in data:
        return data["text/markdown"]
    text = ANSI.sub("", data.get("text/plain") or output.get("text", "")).rstrip()
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"```text\n{lines}\n```"


def _picture(path: Path, number: int) -> str:
    return f"{path.stem}-{number}.png"
