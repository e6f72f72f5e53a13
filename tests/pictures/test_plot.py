"""Pictures: what is drawn, where, and that it can be read. Sizes and places are asked of the renderer."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from acb_minimal.errors import InputError
from acb_minimal.measure.regimes import Regime
from acb_minimal.pictures.charts import breakdown, regimes
from acb_minimal.pictures.theme import DARK, LIGHT, THINNEST
from acb_minimal.pictures.timeline import timeline
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.run.workload import workload as find_workload
from acb_minimal.trace.spans import LANES, Trace

both_themes = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def made() -> Trace:
    """Three batches of 10 ms in two slots; bubbles of 2 ms and 50 us before the later ones. Copies take 5 us."""
    trace = Trace("simulated something")
    for number, start in enumerate((1.0010, 1.0130, 1.02305)):
        slot = "AB"[number % 2]
        trace.add("CPU", "schedule", start - 0.0010, start - 0.000605, number)
        trace.add("CPU", "upload", start - 0.000605, start - 0.0006, number, slot)
        trace.add("CPU", "forward", start - 0.0006, start + 0.0060, number, slot)
        trace.add("CPU", "wait", start + 0.0060, start + 0.0085)
        trace.add("CPU", "update", start + 0.0085, start + 0.0087, number)
        trace.add("H2D", "upload", start - 0.000015, start - 0.000010, number, slot)
        trace.add("compute", "forward", start, start + 0.0100, number, slot, start, 0.0040)
        trace.add("D2H", "download", start + 0.0100, start + 0.010005, number, slot)
    return trace


def kernels_unknown(trace: Trace) -> Trace:
    """The trace as a GPU would have recorded it."""
    return Trace("NVIDIA H200", [replace(span, kernels=None) for span in trace.spans])


@pytest.fixture(scope="module", params=["demo ch1", "demo ch5", "demo ch6", "small ch3", "small ch4", "small ch6"])
def run(request) -> Trace:
    """Of a simulated run: the counter's short steps or a Llama's long ones."""
    name, chapter = request.param.split()
    workload = find_workload(name).override(requests=8, new_tokens=8)
    checkpoint = Checkpoint(workload.model)
    job = Job(workload.prompts(checkpoint.vocab_size), workload.new_tokens, ignore_stop=True)
    session = Session(job, chapter, checkpoint, "sim", trace=True)
    assert len(list(session.run())) == workload.requests
    return session.trace


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


# --- timeline ---


def test_every_span_is_a_bar_from_its_start_to_its_end():
    trace = made()
    figure = timeline(trace, 0, 2)
    for lane, count in zip(LANES, (15, 3, 3, 3), strict=True):
        spans, drawn = trace.lane(lane), bars(figure, f"{lane} ")
        assert len(drawn) == len(spans) == count
        for span, bar in zip(spans, drawn, strict=True):
            assert bar.get_gid() == f"{lane} {span.name} {span.batch_number} {span.slot}"
            start, end = ends(bar)
            assert start == pytest.approx(1e3 * (span.start - 1.0))
            assert end - start == pytest.approx(max(1e3 * span.seconds, THINNEST * point(figure)))
    low, high = figure.axes[0].get_xlim()
    assert low < 0 < 33.055 < high  # to the end of the last download
    assert -low < 0.5 > high - 33.055


def test_the_lanes_lie_apart_from_the_host_down_to_the_way_back():
    figure = timeline(made(), 0, 2)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(LANES)
    places = [
        [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars(figure, f"{lane} ")] for lane in reversed(LANES)
    ]
    tops = [max(top for _, top in lane) for lane in places]
    bottoms = [min(bottom for bottom, _ in lane) for lane in places]
    assert all(top < bottom for top, bottom in zip(tops, bottoms[1:], strict=False))


def test_a_window_holds_all_of_its_batches_and_what_else_happens_meanwhile():
    figure = timeline(made(), 1, 1)
    drawn = {bar.get_gid() for bar in bars(figure)}
    assert {"CPU schedule 1 None", "H2D upload 1 B", "compute forward 1 B", "D2H download 1 B"} <= drawn
    assert "CPU forward 2 A" in drawn
    assert "D2H download 2 A" not in drawn
    assert "D2H download 0 A" in drawn  # the bubble before batch 1 is in the window, from end to end
    assert ends(bars(figure, "bubble")[0]) == pytest.approx((0, 2))


def test_bubbles_are_shaded_where_the_trace_has_them_and_nowhere_else(run):
    for trace in (made(), run):
        figure = timeline(trace, 0, max(trace.batches()))
        zero = min(span.start for span in trace.spans)
        known = {number: seconds for number, seconds in trace.bubbles().items() if seconds > 5e-7}
        drawn = {bar.get_gid(): ends(bar) for bar in bars(figure, "bubble")}
        assert drawn.keys() == {f"bubble {number}" for number in known}
        for number, seconds in known.items():
            start, end = drawn[f"bubble {number}"]
            assert start == pytest.approx(1e3 * (trace.batches()[number][0] - seconds - zero))
            assert end - start == pytest.approx(max(1e3 * seconds, THINNEST * point(figure)))


def test_bubbles_say_how_long_they_are():
    assert {"2.00 ms", "0.05 ms"} <= set(written(timeline(made(), 0, 2)))
    trace = made()
    trace.add("compute", "forward", 1.033053, 1.0400, 3, "B")
    assert "<0.01 ms" in written(timeline(trace, 2, 3))


def test_the_filled_share_of_a_bar_is_the_share_with_kernels():
    trace = made()
    trace.add("compute", "replay", 1.0340, 1.0440, 3, "B", kernels=0.0100)
    figure = timeline(trace, 0, 3)
    for number, slot, share in (0, "A", 0.4), (1, "B", 0.4), (3, "B", None):
        tank = bars(figure, f"gaps compute {'replay' if number == 3 else 'forward'} {number} {slot}")
        (fill,) = [bar for bar in bars(figure, "compute") if bar.get_gid().endswith(f"{number} {slot}")]
        assert len(tank) == (share is not None)
        if tank:
            assert ends(tank[0]) == ends(fill)
            assert tank[0].get_y() == fill.get_y()
            assert fill.get_height() / tank[0].get_height() == pytest.approx(share)
    assert written(figure).count("launch gaps 60 %") == 3
    assert "launch gaps (share of the height)" in written(figure)


def test_where_kernels_are_unknown_a_bar_is_whole_and_the_picture_says_so():
    figure = timeline(kernels_unknown(made()), 0, 2)
    assert not bars(figure, "gaps")
    heights = {bar.get_height() for bar in bars(figure, "compute")}
    assert heights == {bar.get_height() for bar in bars(timeline(made(), 0, 2), "gaps")}
    assert not any(text.startswith("launch gaps") for text in written(figure))
    assert "(when kernels run inside a batch: not recorded)" in written(figure)
    assert "(when kernels run inside a batch: not recorded)" not in written(timeline(made(), 0, 2))


def test_the_texts_of_a_timeline_can_be_read(run):
    end = max(run.batches())
    for first, last in (0, 2), (end - 4, end - 2), (0, end), (end // 2, end // 2):
        check_texts(timeline(run, first, last, title="a title"))
    check_texts(timeline(kernels_unknown(run), 2, 5))


def test_what_a_bar_is_stands_in_it_or_beside_it(run):
    found = written(timeline(made(), 0, 2))
    assert {"forward 0 A", "forward 1 B", "wait"} <= set(found)
    assert found.count("0 A") == 3  # compute, and beside both copies
    number = max(run.batches()) - 3
    letters = {span.slot for span in run.spans if span.batch_number == number} - {None}
    assert any(f"{number} {letter}" in text for letter in letters for text in written(timeline(run, number, number)))


def test_short_spans_and_host_work_are_not_covered_by_their_neighbours():
    figure = timeline(made(), 0, 2)
    above = [patch.get_gid() for patch in figure.axes[0].patches if patch.get_gid()]
    assert {patch.get_zorder() for patch in bars(figure, "CPU")} == {2}  # so what is added later is on top
    order = ["CPU wait None None", "CPU forward 1 B", "CPU upload 0 A", "CPU schedule 1 None", "CPU update 0 None"]
    assert [above.index(name) for name in order] == sorted(above.index(name) for name in order)


def test_where_there_is_no_room_for_a_text_there_is_none():
    trace = Trace("crowded")
    for number in range(80):
        trace.add("compute", "forward", number, number + 0.7, number, "A", kernels=0.35)
        trace.add("D2H", "download", number + 0.7, number + 0.7001, number, "A")
    figure = timeline(trace, 0, 79)
    check_texts(figure)
    assert len(bars(figure, "bubble")) == 79
    assert 5 < sum(text == "300.00 ms" for text in written(figure)) < 40
    assert not any("A" in text for text in written(figure) if text != "slot A")


def test_the_legend_names_what_was_drawn_and_nothing_else():
    def legend(trace: Trace) -> list[str]:
        return [text.get_text() for text in timeline(trace, 0, max(trace.batches())).legends[0].get_texts()]

    gaps = "launch gaps (share of the height)"
    assert legend(made()) == ["slot A", "slot B", "schedule, update", "wait", gaps, "bubbles"]
    first = [span for span in made().spans if span.batch_number == 0]
    assert legend(Trace("", first)) == ["slot A", "schedule, update", gaps]
    assert legend(Trace("", [replace(span, kernels=span.seconds) for span in first if span.slot])) == ["slot A"]


def test_the_title_says_what_the_trace_was_recorded_on():
    assert "ch1 (simulated something)" in written(timeline(made(), 0, 2, title="ch1"))
    assert "simulated something" in written(timeline(made(), 0, 2))
    assert "ch1 (NVIDIA H200)" in written(timeline(kernels_unknown(made()), 0, 2, title="ch1"))


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (-1, 2, "batch -1 is not in the trace: it has batches 0 to 2"),
        (0, 3, "batch 3 is not in the trace: it has batches 0 to 2"),
        (2, 1, "the first batch is 2; it must not come after the last, 1"),
    ],
)
def test_a_timeline_of_what_is_not_there_is_refused(first, last, message):
    with pytest.raises(InputError) as error:
        timeline(made(), first, last)
    assert str(error.value) == message


def test_a_timeline_of_nothing_is_refused():
    with pytest.raises(InputError, match="the trace has no batches to draw"):
        timeline(Trace(), 0, 0)


# --- breakdown ---


def parts(step: float, kernels: float, launch_gaps: float, bubbles: float) -> SimpleNamespace:
    """A Breakdown, in ms."""
    return SimpleNamespace(
        step=step / 1e3, kernels=kernels / 1e3, launch_gaps=launch_gaps / 1e3, bubbles=bubbles / 1e3, kernel_count=None
    )


ROWS = {
    "ch1_sync": parts(23.71, 8.12, 15.43, 0.15),
    "ch5_carry_over": parts(23.65, 8.12, 15.52, 0.01),
    "ch6_cuda_graphs": parts(8.14, 8.13, 0.002, 0.0),
    "measured": parts(8.15, 8.16, -0.02, 0.01),
}


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

POINTS = [
    Regime(model, weights, rows, 1024, 0.01, share + rows / 4000)
    for model, weights, share in (
        ("llama-3.1-8b", 16_060_522_496, 0.05),
        ("llama-3.2-1b", 2_471_645_608, 0.20),
        ("qwen3-8b", 16_381_470_720, 0.0501),
        ("counter", 4_000_000, 0.2005),
    )
    for rows in (256, 32, 64, 128, 384)
]


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


# --- all of them ---


@both_themes
def test_colours_stand_out_from_the_page_and_slots_from_each_other(theme):
    dark = theme is DARK
    assert (lightness(theme.page) < 0.05) == dark
    for figure in timeline(made(), 0, 2, dark=dark), breakdown(ROWS, dark=dark), regimes(POINTS, dark=dark):
        assert to_rgb(figure.get_facecolor()) == to_rgb(theme.page)
        assert figure.get_facecolor()[3] == 1  # opaque
        for text in figure.texts + [text for axes in figure.axes for text in axes.get_yticklabels()]:
            assert contrast(text.get_color(), theme.page) >= 4.5, text
        for axes in figure.axes:
            assert contrast(axes.get_xticklabels()[0].get_color(), theme.page) >= 4.5
            assert all(contrast(line.get_color(), theme.page) >= 3 for line in axes.get_lines())
    for ink in (theme.host, *theme.slots):
        assert contrast(ink.text, ink.fill) >= 4.5
        assert contrast(theme.ink, ink.tint) >= 4.5
    a, b = theme.slots
    assert contrast(a.fill, b.fill) >= 1.8  # in grey they are a dark and a light one
    assert contrast(theme.host.fill, a.fill) >= 1.5 <= contrast(theme.host.fill, b.fill)
    assert min(contrast(color, theme.page) for color in (theme.kernels, theme.bubbles)) >= 3


def test_letters_next_to_each_other_have_different_colours():
    inks = [LIGHT.slot(letter) for letter in "ABCD"]
    assert all(one != other for one, other in zip(inks, inks[1:], strict=False))


def test_drawing_leaves_nothing_behind_in_pyplot():
    code = (
        "import sys; from acb_minimal.pictures.timeline import timeline; from acb_minimal.trace.spans import Trace;"
        "trace = Trace('gpu');"
        "trace.add('compute', 'forward', 0, 1, 0, 'A'); timeline(trace, 0, 0).savefig(sys.stdout.buffer);"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")
