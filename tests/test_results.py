"""What figures and comparisons are computed from, on made-up steps and tokens."""

import pytest

from acb_minimal.compare import _same
from acb_minimal.results import Figures
from acb_minimal.run import Completion
from acb_minimal.scheduler import Step


def test_a_decode_step_lies_between_two_batches_of_decodes():
    steps = [Step(11.0, 2, 9), Step(12.0, 2, 2), Step(12.1, 2, 2), Step(12.3, 2, 2), Step(15.0, 2, 5)]
    figures = Figures.of(2, 10, 8, 10.0, steps)
    assert (figures.seconds, figures.steps, figures.tokens_per_second) == (5.0, 5, 8 / 5)
    assert figures.ms_per_step == pytest.approx(1000)
    assert figures.ms_per_decode_step == pytest.approx(150)  # the median of 100 and 200: the prompts do not count
    assert Figures.of(2, 10, 8, 10.0, steps[:2]).ms_per_decode_step is None


def test_same_is_the_share_of_tokens_that_agree_place_by_place():
    def answers(*tokens):
        return [Completion(str(number), list(ids), None, "length") for number, ids in enumerate(tokens)]

    assert _same(answers([1, 2], [3]), answers([1, 2], [3])) == 1
    assert _same(answers([1, 2], [3, 4]), answers([1, 9], [3, 4])) == 3 / 4
    assert _same(answers([1, 2, 3]), answers([1, 2])) == 2 / 3
