"""The map of acb_minimal: which module imports which, read from their source, held to layers, and drawn.

An import in a function counts like any other: it is put off, not avoided. One that is for type checkers alone does not
count, since nothing is imported. A package within the package (counter) counts as one module.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from acb_minimal.pictures.theme import DARK, FONT, LIGHT, WIDTH, Theme, bare_axes, text_width

PACKAGE = Path(__file__).parents[2] / "acb_minimal"


class Box(NamedTuple):
    """A box of the map: its name, the modules in it, and the middle of it in inches from the left. A module by itself
    gives its box its name; of others, `lines` says where the text is broken."""

    name: str
    x: float
    lines: tuple[str, ...] = ()

    @property
    def modules(self) -> list[str]:
        return " ".join(self.lines).split() or [self.name]


# From the top down: layers, rows, boxes. An import goes from a row to a lower one, or stays in its box.
LAYERS: dict[str, list[list[Box]]] = {
    "ways in": [
        [
            Box("acb, the command", 4.3, ("cli cli_measure cli_options",)),
            Box("notebooks", 7.0, ("lab experiments exercises",)),
        ]
    ],
    "course tools": [
        [
            Box("checks", 2.35, ("check search verdicts", "hazards accesses", "deletions deletions_cuda")),
            Box("measurements", 4.4, ("profile compare regimes", "bench calibrate report", "myths myths_cuda")),
            Box("pictures", 6.65, ("timeline plot", "theme")),
            Box("other engines' traces", 8.0, ("idle", "kineto")),
        ]
    ],
    "a run": [
        [Box("import acb_minimal", 2.5, ("__init__",)), Box("variants", 4.4)],
        [Box("run", 3.7)],
        [Box("figures", 4.6, ("results measured",)), Box("workload", 6.2)],
    ],
    "the engine's parts": [
        [Box("load", 3.1)],
        [Box("model", 3.3), Box("scheduler", 4.9), Box("counter", 5.85)],
        [Box("paged attention", 2.5, ("attention", "attention_triton")), Box("slot", 4.0), Box("kv_cache", 5.6)],
        [Box("request", 5.2)],
    ],
    "devices": [
        [Box("device", 4.1)],
        [Box("simulated GPU", 3.6, ("sim queues",)), Box("costs", 4.9)],
    ],
    "ground floor": [
        [Box("trace", 7.6)],
        [Box("errors", 6.6)],
    ],
}
CHAPTERS = Box("chapters", 5.65, ("ch1 ch2 ch3 ch4 ch5 ch6",))  # beside `run`, which loads them as files


class Import(NamedTuple):
    """A line of a module's file imports another module. `late`: when a function is called, not with the module."""

    file: str
    line: int
    module: str
    imported: str
    late: bool

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, imports {self.imported}"


def imports(package: Path = PACKAGE) -> list[Import]:
    """What the modules of a package import of each other."""
    files = {path: path.relative_to(package).parts[0].removesuffix(".py") for path in sorted(package.rglob("*.py"))}
    modules, found = set(files.values()), []
    for path, module in files.items():
        folder = (package.name, *path.relative_to(package).parts[:-1])
        for node, late in _executed(ast.parse(path.read_text()), False):
            for name in _names(node, folder):
                whole, _, rest = name.partition(".")
                imported = rest.split(".")[0] if rest.split(".")[0] in modules else "__init__"
                if whole == package.name and imported != module:
                    found.append(Import(str(path.relative_to(package)), node.lineno, module, imported, late))
    return found


def _executed(node: ast.AST, late: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, and whether they are in a function; not those that are for type checkers alone."""
    late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child, late
        yield from _executed(child, late)


def _names(node: ast.AST, folder: tuple[str, ...]) -> list[str]:
    """The whole names that an import statement in a file of `folder` asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = folder[: len(folder) + 1 - node.level] if node.level else ()
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def problems(found: list[Import], package: Path = PACKAGE) -> list[str]:
    """What is not as LAYERS says, in words."""
    rows = [row for layer in LAYERS.values() for row in layer]
    row_of = {module: number for number, row in enumerate(rows) for box in row for module in box.modules}
    placed = [module for box in _boxes() for module in box.modules]
    there = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    told = [f"{module} is in {placed.count(module)} boxes" for module in sorted(there) if placed.count(module) != 1]
    told += [f"there is no module {module}" for module in sorted(set(placed) - there)]
    home = _homes()
    for each in found:
        if each.module in home and each.imported in home and home[each.module] != home[each.imported]:
            below = row_of[each.imported] - row_of[each.module]
            if below <= 0:
                told.append(f"{each}, which is {'above it' if below else 'in the same row'}")
    inside = [each for each in found if not each.late and home.get(each.module) == home.get(each.imported)]
    try:
        TopologicalSorter({a.module: {b.imported for b in inside if b.module == a.module} for a in inside}).prepare()
    except CycleError as error:
        told.append(f"a circle: {' -> '.join(reversed(error.args[1]))}")
    return told


def arrows(found: list[Import]) -> set[tuple[str, str]]:
    """The arrows of the map: from box to box, without those that follow from others."""
    home = _homes()
    edges = {(home[each.module], home[each.imported]) for each in found} - {(name, name) for name in home.values()}
    reach: dict[str, set[str]] = {}  # from each box, what its arrows lead to in the end
    for box in reversed(_boxes()):
        targets = {target for source, target in edges if source == box.name}
        reach[box.name] = targets.union(*(reach[target] for target in targets))
    return {
        (source, target)
        for source, target in edges
        if not any(target in reach[between] for start, between in edges if start == source)
    }


def _boxes() -> list[Box]:
    """All boxes, from the top down."""
    return [box for rows in LAYERS.values() for row in rows for box in row]


def _homes() -> dict[str, str]:
    """The box of each module."""
    return {module: box.name for box in _boxes() for module in box.modules}


# --- drawing ---

TEXT, EDGE, GAP, BAND = 0.155, 0.06, 0.25, 0.08  # inches: a line of text, around it, between rows, between layers
DASHES = (0, (4, 3))


class Place(NamedTuple):
    """Where something lies, in inches from the lower left of the figure."""

    left: float
    low: float
    right: float
    high: float


def draw(*, dark: bool = False) -> Figure:
    """The map. Raises ValueError if the imports are not as LAYERS says: it would show something else."""
    found = imports()
    if told := problems(found):
        raise ValueError(f"acb_minimal's imports do not fit the map: {'; '.join(told)}")
    theme = DARK if dark else LIGHT
    boxes, bands = layout()
    height = max(band.high for band in bands.values())
    figure = Figure((WIDTH, height), facecolor=theme.page)
    axes = bare_axes(figure, theme, 0, 0, WIDTH, height)
    axes.set(xlim=(0, WIDTH), ylim=(0, height), xticks=[], yticks=[])
    for name, band in bands.items():
        axes.add_patch(_rectangle(band, facecolor=theme.lane, linewidth=0))
        middle = (band.low + band.high) / 2
        axes.text(0.15, middle, name, color=theme.faint, size=FONT + 1, weight="bold", va="center")
    for start, end in lines(arrows(found), boxes).values():
        _arrow(axes, theme, start, end)
    run, chapters = boxes["run"], boxes[CHAPTERS.name]
    middle = (run.low + run.high) / 2
    _arrow(axes, theme, (run.right, middle), (chapters.left, middle), linestyle=DASHES)
    for box in [*_boxes(), CHAPTERS]:
        place = boxes[box.name]
        style = {"facecolor": theme.page, "edgecolor": theme.ink, "linewidth": 0.8, "gid": box.name}
        axes.add_patch(_rectangle(place, linestyle=DASHES if box is CHAPTERS else "-", **style))
        for number, line in enumerate(_text(box)):
            style = {"color": theme.ink, "weight": "bold"} if number == 0 else {"color": theme.faint}
            y = place.high - EDGE - TEXT * (number + 0.5)
            axes.text((place.left + place.right) / 2, y, line, size=FONT, ha="center", va="center", **style)
    return figure


def layout() -> tuple[dict[str, Place], dict[str, Place]]:
    """Where the boxes and the layers lie."""
    boxes, bands, low = {}, {}, 0.0
    for name, rows in reversed(LAYERS.items()):
        bottom = low
        for row in reversed(rows):
            row = [*row, CHAPTERS] if row[0].name == "run" else row
            tall = [2 * EDGE + TEXT * len(_text(box)) for box in row]
            middle = low + (GAP + max(tall)) / 2
            for box, height in zip(row, tall, strict=True):
                half = max(map(text_width, _text(box))) / 144 + 0.09
                boxes[box.name] = Place(box.x - half, middle - height / 2, box.x + half, middle + height / 2)
            low += GAP + max(tall)
        bands[name] = Place(0.05, bottom, WIDTH - 0.05, low)
        low += BAND
    return boxes, bands


def lines(arrows: set[tuple[str, str]], boxes: dict[str, Place]) -> dict[tuple[str, str], tuple]:
    """From where to where each arrow goes. Those that leave or reach a box share its edge, in order."""

    def ports(name: str, others: list[str], edge: float) -> dict[str, tuple[float, float]]:
        place = boxes[name]
        ordered = sorted(others, key=lambda other: boxes[other].left + boxes[other].right)
        width = (place.right - place.left) / (len(ordered) + 1)
        return {other: (place.left + width * number, edge) for number, other in enumerate(ordered, 1)}

    starts = {name: ports(name, [b for a, b in arrows if a == name], place.low) for name, place in boxes.items()}
    ends = {name: ports(name, [a for a, b in arrows if b == name], place.high) for name, place in boxes.items()}
    return {(a, b): (starts[a][b], ends[b][a]) for a, b in arrows}


def _text(box: Box) -> list[str]:
    """What is written in a box: its name, and what is in it if that is more."""
    return [box.name, *(line.replace(" ", ", ") for line in box.lines)]


def _rectangle(place: Place, **style) -> Rectangle:
    return Rectangle((place.left, place.low), place.right - place.left, place.high - place.low, zorder=2, **style)


def _arrow(axes: Axes, theme: Theme, start: tuple[float, float], end: tuple[float, float], **style) -> None:
    arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=0.5, zorder=3, **style)
    arrow.set(color=theme.faint, linewidth=0.8)
    axes.add_patch(arrow)
