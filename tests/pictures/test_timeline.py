"""Timelines: every span in its place, and every text where it can be read."""

from dataclasses import replace

import pytest
from pictures.drawn import bars, check_texts, ends, point, written
from pictures.samples import made

from acb_minimal.errors import InputError
from acb_minimal.pictures.theme import THINNEST
from acb_minimal.pictures.timeline import timeline
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.run.workload import workload as find_workload
from acb_minimal.trace.spans import LANES, Trace


def kernels_unknown(trace: Trace) -> Trace:
    """The trace as a GPU would have recorded it."""
    return Trace("NVIDIA H200", [replace(span, kernels=None) for span in trace.spans])


@pytest.fixture(scope="module", params=["demo ch5", "small ch4"])
def run(request) -> Trace:
    """Of a simulated run: the counter's short steps or a Llama's long ones."""
    name, chapter = request.param.split()
    workload = find_workload(name).override(requests=8, new_tokens=8)
    checkpoint = Checkpoint(workload.model)
    job = Job(workload.prompts(checkpoint.vocab_size), workload.new_tokens, ignore_stop=True)
    session = Session(job, chapter, checkpoint, "sim", trace=True)
    assert len(list(session.run())) == workload.requests
    return session.trace


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
    assert "(a batch: from its first kernel to its last)" in written(figure)
    assert "(a batch: from its first kernel to its last)" not in written(timeline(made(), 0, 2))


def test_the_texts_of_a_timeline_can_be_read(run):
    end = max(run.batches())
    for first, last in (0, 2), (0, end), (end // 2, end // 2):
        check_texts(timeline(run, first, last, title="a title"))
    check_texts(timeline(kernels_unknown(run), 2, 5))


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
