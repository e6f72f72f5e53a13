"""The law of overlap in numbers."""

import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure.law import law_of
from acb_minimal.measure.metrics import Breakdown
from acb_minimal.trace.law import Law


@pytest.mark.parametrize(
    ("kernels", "launching", "host", "synchronous", "asynchronous"),
    [
        (10, 1, 4, 14, 10),
        (10, 1, 9, 19, 10),
        (10, 0, 10, 20, 10),
        (10, 0, 30, 40, 30),
        (4, 10, 2, 12, 12),
        (10, 8, 4, 14, 12),
    ],
)
def test_a_step_is_as_long_as_the_law_says(kernels, launching, host, synchronous, asynchronous):
    law = Law(kernels, launching, host)
    assert (law.synchronous, law.asynchronous) == (synchronous, asynchronous)
    assert 1 <= law.gain <= 2


def test_a_ramp_is_waited_for_by_a_synchronous_engine_alone():
    law = Law(10, 5, 1, ramp=2)
    assert (law.synchronous, law.asynchronous) == (13, 10)


def test_launching_that_takes_longer_than_the_kernels_is_said():
    assert "asynchrony wins nothing" in str(Law(4, 10, 2))
    assert "asynchrony wins nothing" not in str(Law(10, 4, 2))


def parts(kernels, launch_gaps, bubbles, launching):
    return Breakdown(kernels + launch_gaps + bubbles, kernels, launch_gaps, bubbles, None, launching)


def test_a_breakdown_of_a_synchronous_engine_gives_its_three_times():
    assert law_of(parts(10, 1, 3, 6)) == Law(11, 6, 3)  # the GPU sets the pace: ramp and gaps are part of K
    assert law_of(parts(4, 7, 3, 11)) == Law(4, 11, 3)  # launching does
    with pytest.raises(InputError, match="no time of launching"):
        law_of(parts(4, 7, 3, None))
