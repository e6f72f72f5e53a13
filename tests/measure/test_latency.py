"""Latencies by hand, and those of a run on the simulator by its batches."""

import pytest

from acb_minimal.measure.latency import Latency, Spread, of_session, stored, table, tables
from acb_minimal.models import counter
from acb_minimal.run.arrivals import Arrivals, Life
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

LIVES = [
    Life(1.0, [1.5, 1.7, 2.0]),  # TTFT 0.5, TPOT 0.25, E2EL 1.0
    Life(2.0, [2.1]),  # TTFT 0.1, no TPOT, E2EL 0.1
    Life(3.0, [4.0, 4.1]),  # TTFT 1.0, TPOT 0.1, E2EL 1.1
]


def test_definitions_by_hand():
    found = Latency.of([*LIVES, Life(4.0, [4.2, 5.0], cancelled=True), Life(9.0)], started=0.5)
    assert found.ttft.median == pytest.approx(0.5)
    assert found.ttft.mean == pytest.approx(1.6 / 3)
    assert found.ttft.p90 == pytest.approx(0.5 + 0.8 * 0.5)  # linear between the second and the third
    assert found.ttft.p99 == pytest.approx(0.5 + 0.98 * 0.5)
    assert (found.tpot.median, found.tpot.mean) == pytest.approx((0.175, 0.175))  # a single token has none
    assert found.itl.mean == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    assert found.e2el.median == pytest.approx(1.0)
    assert found.finished == 3
    assert found.requests_per_second == pytest.approx(3 / 4.5)  # to the last token of all, a cancelled one's too
    assert found.tokens_per_second == pytest.approx(6 / 4.5)
    assert found.goodput is None


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        ({"ttft": 0.5}, 2),
        ({"ttft": 0.6, "tpot": 0.2}, 1),  # a single token's TPOT counts as 0
        ({"tpot": 0.1001}, 2),
        ({"ttft": 0.01}, 0),
    ],
)
def test_goodput_counts_those_within_all_limits(limits, good):
    found = Latency.of(LIVES, started=0.1, limits=limits)
    assert found.goodput == pytest.approx(good / 4.0)


def test_of_nothing_there_is_nothing():
    found = Latency.of([Life(1.0)], started=0.0, limits={"ttft": 1.0})
    assert (found.ttft, found.tpot, found.finished, found.requests_per_second, found.goodput) == (None, None, 0, 0, 0)
    assert Spread.of([]) is None
    assert list(table(stored(found)).columns[1].cells) == ["-"] * 4


def test_times_are_those_at_which_batches_came_back():
    """Chapter 1, one request after another: every batch is one token."""
    prompts = [counter.prompt(3, 9), counter.prompt(5, 8)]
    session = Session(Job(prompts, max_running=1, arrivals=Arrivals(times=(0.25, 0.25))), "ch1", device="sim")
    session.serve()
    times = [batch.time for batch in session.done]
    first, second = session.scheduler.lives.values()
    assert (first.tokens, second.tokens) == (times[:8], times[8:])
    found = of_session(session)
    expected = sorted(each - session.started - 0.25 for each in (times[0], times[8]))
    assert found.ttft.median == pytest.approx(sum(expected) / 2, abs=1e-12)
    assert found.tpot.mean == pytest.approx(((times[7] - times[0]) / 7 + (times[-1] - times[8]) / 4) / 2, abs=1e-12)


def test_all_there_from_the_start_have_no_latencies():
    session = Session(Job([counter.prompt(3, 9)]), "ch1", device="sim")
    session.serve()
    assert of_session(session) is None
    assert tables({"chapters": [{"chapter": "ch1"}]}) == []


def test_tables_name_each_measure():
    found = stored(Latency.of(LIVES, 0.5, {"ttft": 0.6}))
    cells = [list(column.cells) for column in table(found).columns]
    assert cells[0] == ["TTFT", "TPOT", "ITL", "E2EL"]
    assert cells[1][0] == "500.0"
    beside, more = tables({"chapters": [{"chapter": "ch1", "latency": found}, {"chapter": "ch2"}]})
    assert [list(column.cells) for column in beside.columns][:2] == [["ch1"], ["500.0"]]
    assert [list(column.cells) for column in more.columns][-1] == ["0.56"]
    assert "TTFT <= 600 ms" in more.caption
