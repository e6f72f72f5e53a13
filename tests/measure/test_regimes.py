"""The regime map on the simulator, and its way into a file and back."""

import json

import pytest

from acb_minimal.measure import tables
from acb_minimal.measure.profile import profile
from acb_minimal.measure.regimes import CONTEXT, NEW_TOKENS, Regime, regimes
from acb_minimal.pictures.charts import regimes as draw
from acb_minimal.run.engines import synchronous
from acb_minimal.run.workload import Workload


def test_bubbles_grow_with_the_batch_and_shrink_with_the_model():
    """In virtual time: the host works for every row, the GPU for every weight."""
    points = list(regimes("sim", ("llama-3.2-1b", "llama-3.1-8b"), (8, 128)))
    assert [(point.model, point.rows) for point in points] == [
        ("llama-3.2-1b", 8), ("llama-3.2-1b", 128), ("llama-3.1-8b", 8), ("llama-3.1-8b", 128)
    ]  # fmt: skip
    small_few, small_many, large_few, large_many = (point.bubble_share for point in points)
    assert small_many > small_few > large_few > 0
    assert small_many > large_many > large_few


def test_faster_kernels_make_bubbles_a_larger_share():
    (plain,), (compiled,) = (list(regimes("sim", ("llama-3.2-1b",), (128,), compile)) for compile in (False, True))
    assert compiled.step < plain.step
    assert compiled.bubble_share > plain.bubble_share


def test_a_share_is_what_a_profile_of_the_same_engine_says():
    (point,) = regimes("sim", ("llama-3.2-1b",), (128,))
    workload = Workload("regimes", "llama-3.2-1b", 128, CONTEXT, NEW_TOKENS, 128, 8192)
    parts = profile(synchronous("ch6"), workload, "sim").breakdown
    assert point.bubble_share == pytest.approx(parts.bubbles / (parts.kernels + parts.launch_gaps + parts.bubbles))
    assert point.step == pytest.approx(parts.step, rel=0.01)


def test_a_map_is_stored_shown_and_drawn(monkeypatch):
    points = [Regime("a", 10, 8, 512, 0.002, 0.25), Regime("a", 10, 32, 512, 0.003, 0.5)]
    monkeypatch.setattr(tables, "environment", lambda device: {"device": "a machine"})
    entry = json.loads(json.dumps(tables.regime_entry(points)))
    assert tables.regime_points(entry) == points
    (cells,) = [[list(column.cells)[0] for column in tables.regimes(entry).columns]]
    assert cells == ["a", "25.0%, 2.00", "50.0%, 3.00"]
    assert draw(tables.regime_points(entry)).axes


@pytest.mark.gpu
def test_a_point_on_the_gpu():
    (point,) = regimes("cuda", ("llama-3.2-1b",), (8,))
    assert 0 < point.bubble_share < 1
