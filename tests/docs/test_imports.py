"""The map of the modules: it shows the real imports, and they run one way."""

import ast
import importlib.util
import shutil
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.transforms import Bbox

from acb_minimal.run.engines import chapter_paths

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "acb_minimal"
spec = importlib.util.spec_from_file_location("imports", ROOT / "docs" / "_site" / "imports.py")
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))


@pytest.fixture
def copy(tmp_path) -> Path:
    """The package's sources, to be broken."""
    return shutil.copytree(PACKAGE, tmp_path / "acb_minimal", ignore=shutil.ignore_patterns("*.safetensors"))


def problems(package: Path) -> list[str]:
    return site.problems(site.imports(package), package)


def test_imports_run_one_way():
    assert problems(PACKAGE) == []


UPWARD = "imports {}, which is above it"
WRONG_WAY = {
    "upwards": ("trace", "from .run import Session", UPWARD.format("run")),
    "upwards, of a module": ("errors", "from . import slot", UPWARD.format("slot")),
    "upwards, by its whole name": ("sim", "import acb_minimal.model as model", UPWARD.format("model")),
    "upwards, from the package": ("kv_cache", "from acb_minimal import generate", UPWARD.format("__init__")),
    "upwards, of a package's file": ("costs", "from .counter.train import train", UPWARD.format("counter")),
    "upwards, from a package's file": ("counter/check", "from ..load import Checkpoint", UPWARD.format("load")),
    "upwards, when called": ("request", "def late():\n    from .slot import IOSlot", UPWARD.format("slot")),
    "upwards, if it can be": ("sim", "try:\n    from . import load\nexcept ImportError: pass", UPWARD.format("load")),
    "sideways": ("costs", "from .queues import Queue", "imports queues, which is in the same row"),
    "in a circle": ("queues", "from .sim import Stream", "a circle: "),
}  # fmt: skip


@pytest.mark.parametrize(("module", "line", "told"), WRONG_WAY.values(), ids=WRONG_WAY)
def test_an_import_the_wrong_way_is_found(copy, module, line, told):
    file = copy / f"{module}.py"
    file.write_text(f"{file.read_text()}\n{line}\n")
    found = problems(copy)
    assert len(found) == 1
    assert told in found[0]
    assert module in found[0]


def test_an_import_for_type_checkers_alone_is_none(copy):
    file = copy / "trace.py"
    file.write_text(f"{file.read_text()}\nif TYPE_CHECKING:\n    from .run import Session\n")
    assert problems(copy) == []


def test_the_files_of_a_package_are_one_module(copy):
    file = copy / "counter" / "check.py"
    file.write_text(f"{file.read_text()}\nfrom . import train\nfrom .train import END\n")
    assert problems(copy) == []


def test_every_module_has_one_place(copy):
    (copy / "new.py").touch()
    (copy / "exercises.py").unlink()
    assert problems(copy) == ["new is in 0 boxes", "there is no module exercises"]


def test_two_halves_of_a_box_may_ask_for_each_other_when_called():
    asks = {(each.module, each.imported, each.late) for each in site.imports()}
    assert {("attention", "attention_triton", True), ("attention_triton", "attention", False)} <= asks


def test_only_run_knows_where_chapters_lie_and_loads_one():
    """variants executes the text of a chapter, changed; that, too, it gets by asking run for the path."""
    loading = {"__import__", "import_module", "exec_module", "run_path", "run_module"}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", None))
                found |= {(path.stem, name)} if name in loading else set()
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and "chapters" in ast.unparse(node.right):
                found.add((path.stem, "folder"))
            for name in site._names(node, ("acb_minimal",)):
                assert name.split(".")[0] != "chapters"
                assert name != "acb_minimal.run.CHAPTERS"
    assert found == {("run", "exec_module"), ("run", "folder")}


def test_a_chapter_imports_nothing():
    for path in chapter_paths().values():
        assert not [name for node in ast.walk(ast.parse(path.read_text())) for name in site._names(node, ())]


# --- the picture ---


def reached(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """From which box to which one gets along the arrows."""
    found = set(arrows)
    while more := {(a, d) for a, b in found for c, d in arrows if b == c} - found:
        found |= more
    return found


def test_arrows_lead_where_imports_lead():
    home = site._homes()
    real = {(home[each.module], home[each.imported]) for each in site.imports()}
    real = {(module, imported) for module, imported in real if module != imported}
    arrows = site.arrows(site.imports())
    assert arrows <= real
    assert reached(arrows) == reached(real)


def test_no_arrow_follows_from_others():
    arrows = site.arrows(site.imports())
    for arrow in arrows:
        assert arrow not in reached(arrows - {arrow})


def test_no_arrow_touches_a_box_that_it_has_nothing_to_do_with():
    boxes, _ = site.layout()
    for (source, target), ends in site.lines(site.arrows(site.imports()), boxes).items():
        assert ends[0][1] == boxes[source].low
        assert ends[1][1] == boxes[target].high
        for name, box in boxes.items():
            if name not in (source, target):
                (x1, y1), (x2, y2) = ends
                places = [(x1 + (x2 - x1) * part / 500, y1 + (y2 - y1) * part / 500) for part in range(501)]
                assert not any(box.left < x < box.right and box.low < y < box.high for x, y in places), (source, target)


def test_a_map_that_does_not_hold_is_not_drawn(monkeypatch):
    upward = site.Import("trace.py", 1, "trace", "run", False)
    monkeypatch.setattr(site, "imports", lambda: [upward])
    with pytest.raises(ValueError, match="trace.py, line 1, imports run, which is above it"):
        site.draw()


@pytest.mark.parametrize("dark", [False, True])
def test_all_of_it_is_drawn_and_can_be_read(dark):
    figure = site.draw(dark=dark)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    boxes = {patch.get_gid(): patch.get_window_extent() for patch in axes.patches if isinstance(patch, Rectangle)}
    del boxes[None]  # the layers
    names = {box.name for box in site._boxes()} | {site.CHAPTERS.name}
    assert set(boxes) == names
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == len(site.arrows(site.imports())) + 1
    for one, other in combinations(boxes.values(), 2):
        assert not one.overlaps(other)
    texts = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(site.LAYERS) <= set(texts)
    for name, text in texts.items():
        around = figure.bbox if name in site.LAYERS else next(box for box in boxes.values() if box.overlaps(text))
        assert Bbox.intersection(around, text).bounds == pytest.approx(text.bounds)
        if name in site.LAYERS:
            assert not any(box.overlaps(text) for box in boxes.values())
