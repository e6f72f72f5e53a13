"""The roofline: every part as long as it took, the floor where it is, and every text where it can be read."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from pictures.drawn import bars, both_themes, check_texts, contrast, ends, placed, point, written

from acb_minimal.errors import InputError
from acb_minimal.measure import result_table
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.measure.roofline import COLUMNS
from acb_minimal.pictures.roofline import PARTS, steps
from acb_minimal.pictures.theme import THINNEST

LONG, SMALL = ("long, a model", 32, 512), ("small, another", 128, 1152)


def lines(case: tuple, compiled: str, ms: tuple[float, ...], kernels: int, total: float, floor: float) -> list[list]:
    """A step's, as measure/roofline.py writes them."""
    parts = [[*case, compiled, part, 9, 1.0, each, 0.5, 1.0, 0.5] for part, each in zip(PARTS, ms, strict=True)]
    return [*parts, [*case, compiled, "the step", kernels, 2.0, total, floor, 1.0, floor / total]]


MADE = ResultTable(
    "a roofline",
    COLUMNS,
    [
        *lines(LONG, "no", (1.0, 4.0, 3.0, -0.25), 1431, 7.75, 4.0),
        *lines(LONG, "yes", (0.9, 3.6, 0.5, 0.2), 407, 5.2, 4.0),
        *lines(SMALL, "no", (1.2, 1.0, 1.1, 0.1), 664, 3.4, 1.5),
        *lines(SMALL, "yes", (1.2, 0.6, 0.2, 0.1), 216, 2.1, 1.5),
    ],
    "",
    {},
    "",
)
STORED = result_table.load(Path(__file__).parents[2] / "docs" / "results" / "roofline.json")["roofline"]


def spans(figure, beginning: str) -> dict[str, tuple[float, float]]:
    """From where to where each part of a bar goes, in floors."""
    return {bar.get_gid().split(": ")[1]: ends(bar) for bar in bars(figure, beginning)}


def test_a_bar_is_its_parts_one_after_another_in_floors():
    found = spans(steps(MADE), "long, a model, 512, yes")
    assert list(found) == list(PARTS)
    assert [end - start for start, end in found.values()] == pytest.approx([0.225, 0.9, 0.125, 0.05])
    assert [start for start, _ in found.values()] == pytest.approx([0, 0.225, 1.125, 1.25])


def test_a_bar_is_as_long_as_its_step_over_its_own_floor():
    for case, compiled, times in (LONG, "yes", 5.2 / 4), (SMALL, "no", 3.4 / 1.5), (SMALL, "yes", 2.1 / 1.5):
        found = spans(steps(MADE), f"{case[0]}, {case[2]}, {compiled}")
        assert max(end for _, end in found.values()) == pytest.approx(times)


def test_time_below_zero_is_not_drawn():
    found = spans(steps(MADE), "long, a model, 512, no")
    start, end = found["between kernels"]
    assert start == end == pytest.approx(8 / 4)


def test_the_floor_is_a_line_at_one_through_both_bars_of_every_pair():
    figure = steps(MADE)
    axes = figure.axes[0]
    assert len(axes.get_lines()) == 2
    for line, (name, _, context) in zip(axes.get_lines(), (LONG, SMALL), strict=True):
        assert set(line.get_xdata()) == {1}
        low, high = sorted(line.get_ydata())
        pair = bars(figure, f"{name}, {context}")
        assert len(pair) == 8
        assert all(low < bar.get_y() and bar.get_y() + bar.get_height() < high for bar in pair)
    labels = {label.get_position()[0]: label.get_text() for label in axes.get_xticklabels()}
    assert labels[1] == "floor"
    assert axes.get_xlim()[0] == 0


def test_the_compiled_step_stands_below_the_one_as_it_is_and_pairs_in_the_order_of_the_table():
    figure = steps(MADE)
    heights = [
        bars(figure, f"{name}, {context}, {compiled}")[0].get_y()
        for name, _, context in (LONG, SMALL)
        for compiled in ("no", "yes")
    ]
    assert heights == sorted(heights, reverse=True)


def test_every_step_has_its_kernels_its_ms_and_its_distance_in_its_line():
    figure = steps(MADE)
    found = {(round(box.y0 + box.y1), text.get_text()) for text, box in placed(figure)}
    for label, kernels, ms, times in (
        ("as it is", "1,431", "7.75", "1.94"),
        ("compiled", "407", "5.20", "1.30"),
        ("as it is", "664", "3.40", "2.27"),
        ("compiled", "216", "2.10", "1.40"),
    ):
        (line,) = [y for y, text in found if text == times]
        mine = {text for y, text in found if abs(y - line) <= 3}
        assert {label, kernels, ms} <= mine
    assert {"long, a model: 32 rows of 512 positions", "floor 4.00", "floor 1.50"} <= set(written(figure))


def test_a_part_says_its_ms_where_there_is_room_and_never_across_the_line_of_the_floor():
    figure = steps(MADE)
    gap = 1.5 * point(figure)
    inverse = figure.axes[0].transData.inverted()
    inside = [(text, box) for text, box in placed(figure) if text.axes and text in figure.axes[0].texts]
    assert [text.get_text() for text, _ in inside].count("1.20") == 2  # small's attention, both times
    assert {"4.00", "3.60", "3.00"} <= {text.get_text() for text, _ in inside}
    assert "0.10" not in {text.get_text() for text, _ in inside}  # between kernels: too narrow, and nothing runs
    for text, box in inside:
        left, right = (inverse.transform((x, 0))[0] for x in (box.x0, box.x1))
        assert right < 1 - gap or left > 1 + gap, text


@both_themes
def test_parts_are_told_apart_without_colour_and_texts_stand_out_from_them(theme):
    figure = steps(STORED, theme=theme)
    attention, gemms, rest, between = bars(figure, "small, llama-3.2-1b, 1152, yes")
    assert contrast(attention.get_facecolor(), gemms.get_facecolor()) >= 1.8
    assert contrast(gemms.get_facecolor(), rest.get_facecolor()) >= 1.5
    assert between.get_hatch()
    assert not rest.get_hatch()
    parts = {"attention": attention, "GEMMs": gemms, "rest": rest}
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        (under,) = [b for b in bars(figure) if ends(b)[0] < x < ends(b)[1] and abs(b.get_y() - y) < b.get_height()
                    and b.get_y() < y]  # fmt: skip
        assert contrast(text.get_color(), parts[under.get_gid().split(": ")[1]].get_facecolor()) >= 4.5, text
    assert to_rgb(figure.get_facecolor()) == to_rgb(theme.page)


@both_themes
@pytest.mark.parametrize("found", [MADE, STORED, replace(MADE, rows=MADE.rows[:5])], ids=["made", "stored", "one step"])
def test_the_texts_of_a_roofline_can_be_read(found, theme):
    check_texts(steps(found, theme=theme, title="a title"))


def test_the_stored_roofline_is_drawn_whole():
    figure = steps(STORED)
    assert len(bars(figure)) == 4 * sum(row[4] == "the step" for row in STORED.rows)
    assert max(ends(bar)[1] for bar in bars(figure)) < figure.axes[0].get_xlim()[1]
    shown = [bar for bar in bars(figure) if bar.get_width()]
    assert min(bar.get_width() for bar in shown) > THINNEST * point(figure)


def test_a_roofline_of_nothing_is_refused():
    with pytest.raises(InputError, match="there is no roofline to draw: it needs at least one step"):
        steps(replace(MADE, rows=[]))
