"""The law of overlap in numbers."""

import pytest

from acb_minimal.trace.law import Law


@pytest.mark.parametrize(
    ("on_gpu", "launching", "host", "synchronous", "asynchronous"),
    [
        (10, 1, 4, 14, 10),
        (10, 1, 9, 19, 10),
        (10, 0, 10, 20, 10),
        (10, 0, 30, 40, 30),
        (4, 10, 2, 12, 12),
        (10, 8, 4, 14, 12),
    ],
)
def test_a_step_is_as_long_as_the_law_says(on_gpu, launching, host, synchronous, asynchronous):
    law = Law(on_gpu, launching, host)
    assert (law.synchronous, law.asynchronous) == (synchronous, asynchronous)
    assert 1 <= law.speedup <= 2


def test_a_ramp_is_waited_for_by_a_synchronous_engine_alone():
    law = Law(10, 5, 1, ramp=2)
    assert (law.synchronous, law.asynchronous) == (13, 10)
    assert "max(K + ramp, L) + H = 13,000.00 ms" in str(law)


def test_launching_that_takes_longer_than_the_gpu_needs_is_said():
    assert "asynchrony wins nothing" in str(Law(4, 10, 2, ramp=6))
    assert "ramp" not in str(Law(4, 10, 2, ramp=6))
    assert "asynchrony wins nothing" not in str(Law(10, 4, 2))
