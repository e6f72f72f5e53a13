"""The map of acb_minimal: its folders as the rooms of a house, what is in each, and which imports from which.

The floors are the layers of import-linter's contract in pyproject.toml, which holds the imports to them. What is in a
room, and the arrows, are read from the code. An import in a function or for type checkers alone counts like any other.
"""

import tomllib
from pathlib import Path

import grimp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Line

from acb_minimal.pictures.theme import DARK, FONT, LIGHT, Theme, text_width

PACKAGE, PARTS = "acb_minimal", "the parts"
WIDTH = 4.4  # inches: a phone shows all of it
LEFT, INSIDE, RIGHT = 0.06, 0.89, 3.85  # inches: where rooms begin, from there to their modules, and where rooms end
CHIP, NEXT, PAD, GAP = 0.2, 0.25, 0.09, 0.2  # inches: a module's height, line to line, around them, between rooms

Room = list[list[str]]  # its modules, in lines


def plan() -> tuple[list[dict[str, Room]], set[tuple[str, str]]]:
    """The rooms by name, floor by floor from the top down, and from which to which imports lead, without what follows
    from others. Layers without a folder are the lines of one room."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    floors: list[dict[str, Room]] = []
    room_of: dict[str, str] = {}
    for layer in settings["tool"]["importlinter"]["contracts"][0]["layers"]:
        names = [name.strip() for name in layer.split("|")]
        inside = {name: sorted(graph.find_children(f"{PACKAGE}.{name}")) for name in names}
        if any(inside.values()):
            floors.append({name: [[module.rpartition(".")[2] for module in inside[name]]] for name in names})
        elif floors and PARTS in floors[-1]:
            floors[-1][PARTS].append(names)
        else:
            floors.append({PARTS: [names]})
        room_of |= {f"{PACKAGE}.{name}": name if name in floors[-1] else PARTS for name in names}
    between = grimp.ImportGraph()
    for module in room_of:
        graph.squash_module(module)
    for module, room in room_of.items():
        for other in {room_of[imported] for imported in graph.find_modules_directly_imported_by(module)} - {room}:
            between.add_import(importer=room, imported=other)
    arrows = {(room, other) for room in between.modules for other in between.find_modules_directly_imported_by(room)}
    for importer, imported in sorted(arrows):
        between.remove_import(importer=importer, imported=imported)
        if not between.chain_exists(importer=importer, imported=imported):
            between.add_import(importer=importer, imported=imported)
    return floors, {arrow for arrow in arrows if between.direct_import_exists(importer=arrow[0], imported=arrow[1])}


def draw(*, dark: bool = False) -> Figure:
    """The map: an arrow leads from a room to one that it imports from."""
    theme = DARK if dark else LIGHT
    floors, arrows = plan()
    figure = Figure(facecolor=theme.page)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    places: dict[str, tuple[int, float, float, float, float]] = {}  # floor, left, right, top, bottom
    top = GAP / 2
    for number, rooms in enumerate(floors):
        wide = (RIGHT - LEFT + GAP) / len(rooms)
        for door, (name, lines) in enumerate(rooms.items()):
            left, right = LEFT + door * wide, LEFT + (door + 1) * wide - GAP
            places[name] = number, left, right, top, furnish(axes, theme, name, lines, left, right, top)
        top = max(place[-1] for place in places.values()) + GAP
    for importer, imported in arrows:
        (above, left, right, _, low), (below, other, end, high, _) = places[importer], places[imported]
        if below == above + 1:
            path = Line([(max(left, other) + 0.45, y) for y in (low, high)])
        else:  # past the rooms between
            y1, y2, far = low - 0.12, high + 0.14, RIGHT + 0.15 + 0.12 * (below - above)
            path = Line([(right, y1), (far, y1), (far, y2), (end, y2)], [Line.MOVETO, *[Line.CURVE4] * 3])
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=8, color=theme.ink, linewidth=0.9))
    figure.set_size_inches(WIDTH, top - GAP / 2)
    axes.set(xlim=(0, WIDTH), ylim=(top - GAP / 2, 0))
    return figure


def furnish(axes: Axes, theme: Theme, name: str, lines: Room, left: float, right: float, top: float) -> float:
    """Draws a room with its modules, and says how low it reaches."""
    middle = {"size": FONT, "color": theme.ink, "va": "center_baseline"}
    axes.text(left + PAD, top + PAD + CHIP / 2, name, **middle | {"size": FONT + 1, "weight": "bold"})
    y = top + PAD - NEXT
    for line in lines:
        x, y = left + INSIDE, y + NEXT
        for module in line:
            wide = text_width(module) / 72 + 0.08
            if x + wide > right - PAD:
                x, y = left + INSIDE, y + NEXT
            rounded(axes, x, y, wide, CHIP, zorder=2, facecolor=theme.page, edgecolor=theme.faint, linewidth=0.4)
            axes.text(x + wide / 2, y + CHIP / 2, module, ha="center", **middle)
            x += wide + 0.06
    rounded(axes, left, top, right - left, y + CHIP + PAD - top, facecolor=theme.lane, edgecolor="none")
    return y + CHIP + PAD


def rounded(axes: Axes, x: float, y: float, width: float, height: float, **style) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.06", **style))
