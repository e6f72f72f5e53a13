"""What figures and comparisons are computed from, on made-up steps and tokens."""

from itertools import accumulate
from types import SimpleNamespace

import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure.compare import _same
from acb_minimal.measure.metrics import (
    Breakdown,
    Metrics,
    decode_batches,
    load,
    save,
    typical_decodes,
    widest_decodes,
)
from acb_minimal.request import Request
from acb_minimal.run.session import Completion
from acb_minimal.run.timed import BatchDone
from acb_minimal.trace.spans import Trace

# Batches 0 and 6 carry prompts; 1 and 5 have one for a neighbour; 2, 3 and 4 do not, but 4 is narrower.
STEPS = [
    BatchDone(11.0, 2, 9, False), BatchDone(12.0, 2, 2, True), BatchDone(12.1, 2, 2, True), BatchDone(12.3, 2, 2, True),
    BatchDone(12.6, 1, 1, True), BatchDone(13.0, 1, 1, True), BatchDone(15.0, 2, 5, False), BatchDone(16.0, 2, 2, True),
]  # fmt: skip


def session(steps: list[BatchDone]) -> SimpleNamespace:
    """A Session that has served two requests of 5 + 4 tokens in these steps, from second 10 on, without a trace."""
    requests = [Request(id, [0] * 5, 4) for id in "01"]
    for request in requests:
        request.tokens += [1] * 4
    return SimpleNamespace(scheduler=SimpleNamespace(steps=steps), requests=requests, started=10.0, trace=None)


def test_a_decode_step_lies_between_two_batches_of_decodes():
    assert decode_batches(STEPS) == [2, 3, 4]
    assert decode_batches(STEPS[:5]) == [2, 3, 4]  # nothing comes after the last
    assert decode_batches(STEPS[:1]) == decode_batches([]) == []
    figures = Metrics.of(session(STEPS))
    assert (figures.requests, figures.prompt_tokens, figures.new_tokens, figures.gpu_active) == (2, 10, 8, None)
    assert (figures.seconds, figures.steps, figures.tokens_per_second) == (6.0, 8, 8 / 6)
    assert figures.ms_per_step == pytest.approx(750)
    assert figures.ms_per_decode_step == pytest.approx(200)  # the median of 100, 200 and 300: prompts do not count
    assert Metrics.of(session(STEPS[:2])).ms_per_decode_step is None


def steps_of(times: list[float]) -> list[BatchDone]:
    """A batch with a prompt, and batches of decodes with these times between them."""
    ends = accumulate(times, initial=0.0)
    return [BatchDone(end, 2, 2, number > 0) for number, end in enumerate(ends)]


def test_typical_decodes_are_those_in_a_row_that_are_nearest_to_the_median():
    slow_in_the_middle = [1.0] * 20 + [1.5] * 12 + [1.2, 1.1, 1.01, 1.02, 1.01, 1.3] + [1.01] * 12
    steps = steps_of(slow_in_the_middle)  # median 1.01 of batches 2 to 50, since 1 has a prompt before it
    assert typical_decodes(steps, 3) == range(35, 38)
    assert typical_decodes(steps, 1) == range(35, 36)


def test_typical_decodes_are_from_the_middle_half():
    at_first = steps_of([1.0] * 12 + [1.4] * 4 + [1.6] * 4)  # 19 batches, from 2 on; the median is 1.0
    assert typical_decodes(at_first, 4) == range(6, 10)
    assert typical_decodes(at_first, 10) == range(6, 16)
    at_last = steps_of([1.0] * 9 + [1.45] * 7 + [1.2] * 4)  # the median is 1.2
    assert typical_decodes(at_last, 4) == range(6, 10)


def test_typical_decodes_are_fewer_if_there_are_not_so_many():
    assert typical_decodes(WITH_A_SLOW_ONE, 24) == range(2, 7)
    assert typical_decodes(STEPS, 8) == range(2, 4)


def test_typical_decodes_are_from_everywhere_if_the_middle_half_has_not_so_many():
    steps = steps_of([1.0] * 2 + [1.5] * 2 + [1.0] * 6)  # batches 2 to 10
    assert typical_decodes(steps, 5) == range(4, 9)
    assert typical_decodes(steps, 6) == range(5, 11)


WITH_A_SLOW_ONE = [BatchDone(0.0, 2, 9, False), *(BatchDone(end, 2, 2, True) for end in (1.0, 1.1, 1.2, 2.3, 2.4, 2.5))]


def slow_trace() -> Trace:
    """Of WITH_A_SLOW_ONE: before batch 4 something else took the host's processor, in `update` and while launching."""
    trace, starts = Trace(), (0.0, 0.92, 1.02, 1.12, 1.4, 2.32, 2.42)
    for number, (start, step) in enumerate(zip(starts, WITH_A_SLOW_ONE, strict=True)):
        trace.add("CPU", "forward", start, step.time - 0.03, number)
        trace.add("compute", "forward", start, step.time, number, kernels=0.06)
    return trace


def test_a_breakdown_is_of_medians_so_a_slow_step_does_not_count():
    assert len(widest_decodes(WITH_A_SLOW_ONE)) == 5
    parts = Breakdown.of(slow_trace(), WITH_A_SLOW_ONE, 0.06, 7)
    assert (parts.step, parts.bubbles, parts.launch_gaps) == pytest.approx((0.1, 0.02, 0.02))
    assert parts.launching == pytest.approx(0.05)


def test_a_simulated_breakdown_is_of_means():
    parts = Breakdown.simulated(slow_trace(), WITH_A_SLOW_ONE)
    assert (parts.step, parts.bubbles) == pytest.approx(((4 * 0.1 + 1.1) / 5, (4 * 0.02 + 0.2) / 5))
    assert parts.launch_gaps == pytest.approx((4 * 0.02 + 0.84) / 5)
    assert parts.launching == pytest.approx((4 * 0.05 + 0.87) / 5)


def test_a_breakdown_is_of_the_widest_batches_of_decodes():
    trace = Trace()
    for number, start in enumerate((10.0, 11.1, 12.01, 12.13, 12.4)):
        trace.add("compute", "forward", start, STEPS[number].time - 0.01, number)
    assert widest_decodes(STEPS) == [2, 3]
    parts = Breakdown.of(trace, STEPS, 0.06, 7)
    assert parts.step == pytest.approx((0.1 + 0.2) / 2)
    assert parts.bubbles == pytest.approx((0.02 + 0.04) / 2)
    assert parts.launch_gaps == pytest.approx((0.08 + 0.16) / 2 - 0.06)
    assert (parts.kernels, parts.kernel_count) == (0.06, 7)
    assert parts.kernels + parts.launch_gaps + parts.bubbles == pytest.approx(parts.step)


def test_results_are_kept_by_workload(tmp_path):
    entry = {"command": "acb", "environment": {}, "workload": {}, "chapters": []}
    file = tmp_path / "results.json"
    save(file, "long", entry)
    save(file, "wide", entry | {"command": "acb first"})
    save(file, "wide", entry | {"command": "acb second"})
    assert load(file) == {"long": entry, "wide": entry | {"command": "acb second"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read results from '.*results.json': .*No such file"),
        ("{", "cannot read results from '.*results.json': Expecting property name"),
        ("[]", "holds no results of this kind: give a file that this command wrote"),
        ('{"wide": {"command": "acb"}}', "holds no results"),
    ],
)
def test_what_holds_no_results_is_an_error_in_one_line(tmp_path, text, message):
    file = tmp_path / "results.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_same_is_the_share_of_tokens_that_agree_place_by_place():
    def answers(*tokens):
        return [Completion(str(number), list(ids), None, "length") for number, ids in enumerate(tokens)]

    assert _same(answers([1, 2], [3]), answers([1, 2], [3])) == 1
    assert _same(answers([1, 2], [3, 4]), answers([1, 9], [3, 4])) == 3 / 4
    assert _same(answers([1, 2, 3]), answers([1, 2])) == 2 / 3
