"""What the tests ask of a picture: what is drawn, where, and whether it can be read, all by the renderer's measure."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from acb_minimal.pictures.theme import DARK, LIGHT

both_themes = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def bars(figure: Figure, beginning: str = "") -> list[Rectangle]:
    """The rectangles with a name that begins so, from left to right."""
    named = [patch for patch in figure.axes[0].patches if patch.get_gid() and patch.get_gid().startswith(beginning)]
    return sorted(named, key=lambda bar: (bar.get_x(), bar.get_width()))


def ends(bar: Rectangle) -> tuple[float, float]:
    return bar.get_x(), bar.get_x() + bar.get_width()


def point(figure: Figure) -> float:
    """How much of the axes' width is a point."""
    low, high = figure.axes[0].get_xlim()
    return (high - low) / (72 * figure.get_figwidth() * figure.axes[0].get_position().width)


def placed(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Every text that is drawn, with the box that it takes, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, hidden = canvas.get_renderer(), set()
    for axes in figure.axes:  # ticks beyond the axes have labels, too
        for axis, place, (low, high) in (axes.xaxis, 0, axes.get_xlim()), (axes.yaxis, 1, sorted(axes.get_ylim())):
            hidden |= {label for label in axis.get_ticklabels() if not low <= label.get_position()[place] <= high}
    drawn = [text for text in figure.findobj(Text) if text.get_text() and text not in hidden]
    return [(text, Text.get_window_extent(text, renderer)) for text in drawn]  # an annotation's own has its arrow, too


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text, _ in placed(figure)]


def overlap(one: Bbox, other: Bbox) -> bool:
    """Whether they have more in common than a strip of a pixel."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    return wide > 1 and min(one.y1, other.y1) - max(one.y0, other.y0) > 1


def check_texts(figure: Figure) -> None:
    """They are large enough, inside the figure, off each other, and each is inside a bar or off it."""
    found = placed(figure)
    axes = figure.axes[0].get_window_extent()
    visible = [(bar.get_gid(), Bbox.intersection(bar.get_window_extent(), axes)) for bar in bars(figure)]
    for text, box in found:
        assert text.get_size() >= 8
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1, text
        for name, bar in visible:
            inside = bar.x0 <= box.x0 and box.x1 <= bar.x1 and bar.y0 - 1 <= box.y0 and box.y1 <= bar.y1 + 1
            assert inside or not overlap(box, bar), (text, name)
    for (one, box), (other, other_box) in combinations(found, 2):
        assert not overlap(box, other_box), (one, other)


def lightness(color) -> float:
    """Relative luminance, 0 to 1, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    """1 to 21; text needs 4.5, a shape 3."""
    low, high = sorted((lightness(one), lightness(other)))
    return (high + 0.05) / (low + 0.05)
