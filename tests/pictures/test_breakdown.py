"""The parts of a step as bars."""

import pytest
from matplotlib.patches import Rectangle
from pictures.drawn import bars, both_themes, check_texts, ends, overlap, placed
from pictures.samples import ROWS

from acb_minimal.pictures.breakdown import breakdown
from acb_minimal.pictures.theme import DARK, LIGHT
from acb_minimal.trace.law import PARTS

NAMES = {part.replace("_", " "): part for part in PARTS}


def test_parts_are_stacked_end_to_end_and_as_long_as_they_took():
    figure = breakdown(ROWS)
    for place, (label, each) in enumerate(ROWS.items()):
        stack = bars(figure, f"{label} ")
        assert {bar.get_gid() for bar in stack} == {f"{label} {part}" for part in NAMES}
        lengths = {bar.get_gid().removeprefix(f"{label} "): bar.get_width() for bar in stack}
        assert lengths == {name: pytest.approx(1e3 * max(getattr(each, part), 0)) for name, part in NAMES.items()}
        assert stack[0].get_x() == 0
        assert max(end for _, end in map(ends, stack)) == pytest.approx(sum(lengths.values()))
        assert all(bar.get_y() < place < bar.get_y() + bar.get_height() for bar in stack)
    longest = max(bar.get_x() + bar.get_width() for bar in bars(figure))
    assert figure.axes[0].get_xlim() == pytest.approx((0, longest))


@both_themes
def test_a_breakdown_says_every_figure_and_its_texts_can_be_read(theme):
    figure = breakdown(ROWS, theme=theme, title="a title")
    check_texts(figure)
    lines: dict[float, list[str]] = {}
    for text in sorted(figure.texts, key=lambda text: (-text.get_position()[1], text.get_position()[0])):
        lines.setdefault(text.get_position()[1], []).append(text.get_text())
    swatches = [part.get_window_extent() for part in figure.get_children() if isinstance(part, Rectangle)][1:]
    assert len(swatches) == 4  # after the page
    assert not any(overlap(swatch, box) for swatch in swatches for _, box in placed(figure))
    assert list(lines.values()) == [
        ["a title"],
        ["kernels", "kernel gaps", "launch gaps", "bubbles", "total"],
        ["8.12", "2.05", "13.38", "0.15", "23.70"],
        ["8.12", "2.05", "13.47", "0.01", "23.65"],
        ["8.13", "<0.01", "0.00", "0.00", "8.13"],
        ["8.16", "0.00", "-0.02", "0.01", "8.15"],
    ]


def test_the_parts_differ_without_colour():
    for style in (LIGHT.styles(), DARK.styles()):
        assert len({style[part].get("hatch") for part in NAMES}) == 4
    hatches = {bar.get_gid(): bar.get_hatch() for bar in bars(breakdown(ROWS))}
    assert hatches["ch1_sync launch gaps"] == LIGHT.styles()["launch gaps"]["hatch"]
