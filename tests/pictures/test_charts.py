"""Charts: the parts of a step, and the map of regimes."""

import pytest
from matplotlib.patches import Rectangle
from pictures.drawn import bars, both_themes, check_texts, ends, overlap, placed, written
from pictures.samples import POINTS, ROWS

from acb_minimal.errors import InputError
from acb_minimal.pictures.charts import breakdown, regimes
from acb_minimal.pictures.theme import DARK, LIGHT

# --- breakdown ---


def test_parts_are_stacked_end_to_end_and_as_long_as_they_took():
    figure = breakdown(ROWS)
    for place, (label, each) in enumerate(ROWS.items()):
        stack = bars(figure, f"{label} ")
        assert {bar.get_gid() for bar in stack} == {f"{label} {part}" for part in ("kernels", "launch gaps", "bubbles")}
        lengths = {bar.get_gid().removeprefix(f"{label} "): bar.get_width() for bar in stack}
        assert lengths["kernels"] == pytest.approx(1e3 * each.kernels)
        assert lengths["launch gaps"] == pytest.approx(1e3 * max(each.launch_gaps, 0))
        assert lengths["bubbles"] == pytest.approx(1e3 * each.bubbles)
        assert stack[0].get_x() == 0
        assert max(end for _, end in map(ends, stack)) == pytest.approx(sum(lengths.values()))
        assert all(bar.get_y() < place < bar.get_y() + bar.get_height() for bar in stack)
    longest = max(bar.get_x() + bar.get_width() for bar in bars(figure))
    assert figure.axes[0].get_xlim() == pytest.approx((0, longest))


@both_themes
def test_a_breakdown_says_every_figure_and_its_texts_can_be_read(theme):
    figure = breakdown(ROWS, dark=theme is DARK, title="a title")
    check_texts(figure)
    lines: dict[float, list[str]] = {}
    for text in sorted(figure.texts, key=lambda text: (-text.get_position()[1], text.get_position()[0])):
        lines.setdefault(text.get_position()[1], []).append(text.get_text())
    swatches = [part.get_window_extent() for part in figure.get_children() if isinstance(part, Rectangle)][1:]
    assert len(swatches) == 3  # after the page
    assert not any(overlap(swatch, box) for swatch in swatches for _, box in placed(figure))
    assert list(lines.values()) == [
        ["a title"],
        ["kernels", "launch gaps", "bubbles", "total"],
        ["8.12", "15.43", "0.15", "23.71"],
        ["8.12", "15.52", "0.01", "23.65"],
        ["8.13", "<0.01", "0.00", "8.14"],
        ["8.16", "-0.02", "0.01", "8.15"],
    ]


def test_the_parts_differ_without_colour():
    for style in (LIGHT.styles(), DARK.styles()):
        assert len({style[part].get("hatch") for part in ("kernels", "launch gaps", "bubbles")}) == 3
    hatches = {bar.get_gid(): bar.get_hatch() for bar in bars(breakdown(ROWS))}
    assert hatches["ch1_sync launch gaps"] == LIGHT.styles()["launch gaps"]["hatch"]


def test_a_breakdown_of_nothing_is_refused():
    with pytest.raises(InputError, match="there is no breakdown to draw: it needs at least one row"):
        breakdown({})


# --- regimes ---


def test_a_model_is_a_line_through_its_points_smallest_first():
    lines = regimes(POINTS).axes[0].get_lines()
    assert len(lines) == 4
    for model, line in zip(("counter", "llama-3.2-1b", "llama-3.1-8b", "qwen3-8b"), lines, strict=True):
        mine = sorted((point.rows, 100 * point.bubble_share) for point in POINTS if point.model == model)
        assert line.get_xydata().tolist() == [list(point) for point in mine]


def test_lines_differ_without_colour():
    lines = regimes(POINTS).axes[0].get_lines()
    assert len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == 4


def test_a_line_is_named_at_its_end_in_its_colour():
    axes = regimes(POINTS).axes[0]
    names = {annotation.xy: annotation for annotation in axes.texts}
    for line, name in zip(axes.get_lines(), ("counter, 0.0 GB", "llama-3.2-1b, 2.5 GB", "llama-3.1-8b, 16.1 GB",
                                             "qwen3-8b, 16.4 GB"), strict=True):  # fmt: skip
        annotation = names[tuple(line.get_xydata()[-1])]
        assert (annotation.get_text(), annotation.get_color()) == (name, line.get_color())
    heights = {end: annotation.xyann[1] for (_, end), annotation in names.items()}
    assert sorted(heights, key=heights.get) == sorted(heights)  # names stand in the order of their lines


def test_contexts_are_named_once_or_where_they_differ():
    assert "sequences in a batch, 1,024 positions each" in written(regimes(POINTS))
    mixed = [*POINTS, POINTS[0]._replace(context=4096)]
    assert len(regimes(mixed).axes[0].get_lines()) == 5
    assert {"sequences in a batch", "llama-3.1-8b, 16.1 GB, 4,096 positions"} <= set(written(regimes(mixed)))


@both_themes
@pytest.mark.parametrize(
    "points",
    [
        POINTS,
        POINTS[:1],
        [point._replace(bubble_share=0.0) for point in POINTS],
        [point._replace(bubble_share=0.9, context=size) for point in POINTS for size in (512, 1024, 4096)],
        [point._replace(context=point.rows) for point in POINTS[:5]],
    ],
    ids=["models", "one point", "all at 0", "all at the top", "contexts"],
)
def test_the_texts_of_a_regime_map_can_be_read(points, theme):
    check_texts(regimes(points, dark=theme is DARK, title="a title"))


def test_a_regime_map_of_nothing_is_refused():
    with pytest.raises(InputError, match="there is no regime map to draw: it needs at least one point"):
        regimes([])
