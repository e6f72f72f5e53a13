"""The map of the folders: all modules are on it, its arrows lead where imports lead, and all of it can be read."""

import importlib.util
from itertools import combinations
from pathlib import Path

import grimp
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.transforms import Bbox

spec = importlib.util.spec_from_file_location("house", Path(__file__).parents[2] / "docs" / "_site" / "house.py")
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))
FLOORS, ARROWS = site.plan()
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def reached(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """From which room to which one gets along the arrows."""
    found = set(arrows)
    while more := {(a, d) for a, b in found for c, d in arrows if b == c} - found:
        found |= more
    return found


def room(module: str) -> str:
    """Where a module is, by the name of what it is in at the top of the package."""
    top = module.split(".")[1]
    return top if top in FLOOR_OF else site.PARTS


def test_every_module_is_in_its_room():
    graph = grimp.build_graph("acb_minimal", cache_dir=None)
    rooms = {name: sum(lines, []) for floor in FLOORS for name, lines in floor.items()}
    for top in graph.find_children("acb_minimal"):
        inside = graph.find_children(top)
        assert {module.split(".")[-1] for module in inside} <= set(rooms[room(top)])
        assert inside or top.split(".")[1] in {*rooms, *rooms[site.PARTS]}


def test_the_page_says_what_every_room_is_for():
    text = (Path(__file__).parents[2] / "docs" / "how-it-works" / "index.md").read_text()
    told = [line.split("|")[1].strip(" `") for line in text.partition("## The modules")[2].splitlines() if "|" in line]
    assert sorted(told[2:]) == sorted(FLOOR_OF)


def test_arrows_lead_where_imports_lead():
    graph = grimp.build_graph("acb_minimal", cache_dir=None)
    modules = graph.modules - {"acb_minimal"}
    pairs = {(room(a), room(b)) for a in modules for b in graph.find_modules_directly_imported_by(a)}
    real = {(importer, imported) for importer, imported in pairs if importer != imported}
    assert not ARROWS - real
    assert reached(ARROWS) == reached(real)


def test_arrows_lead_down_and_none_follows_from_others():
    for importer, imported in ARROWS:
        assert FLOOR_OF[importer] < FLOOR_OF[imported]
        assert (importer, imported) not in reached(ARROWS - {(importer, imported)})


@pytest.mark.parametrize("dark", [False, True])
def test_all_of_it_is_drawn_and_can_be_read(dark):
    figure = site.draw(dark=dark)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == len(ARROWS)
    texts = [(text.get_text(), text.get_window_extent()) for text in axes.texts]
    names = [name for floor in FLOORS for room, lines in floor.items() for name in (room, *sum(lines, []))]
    assert sorted(name for name, _ in texts) == sorted(names)
    for (name, one), (other, two) in combinations(texts, 2):
        assert not one.overlaps(two), f"{name} and {other}"
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    for name, text in texts:
        around = min((box for box in boxes if box.overlaps(text)), key=lambda box: box.width)
        assert Bbox.intersection(around, text).bounds == pytest.approx(text.bounds), name
