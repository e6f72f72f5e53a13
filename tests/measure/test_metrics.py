"""What is said of a whole run, on made-up steps; and the file that keeps results."""

from types import SimpleNamespace

import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure.metrics import Metrics, load, save
from acb_minimal.request import Request
from acb_minimal.run.timed import BatchDone

# Batches 0 and 6 carry prompts; 1 and 5 have one for a neighbour; 2, 3 and 4 do not, but 4 is narrower.
STEPS = [
    BatchDone(11.0, 2, 9, False), BatchDone(12.0, 2, 2, True), BatchDone(12.1, 2, 2, True),
    BatchDone(12.3, 2, 2, True), BatchDone(12.6, 1, 1, True), BatchDone(13.0, 1, 1, True),
    BatchDone(15.0, 2, 5, False), BatchDone(16.0, 2, 2, True),
]  # fmt: skip


def session(steps: list[BatchDone]) -> SimpleNamespace:
    """A Session that has served two requests of 5 + 4 tokens in these steps, from second 10 on, without a trace."""
    requests = [Request(id, [0] * 5, 4) for id in "01"]
    for request in requests:
        request.tokens += [1] * 4
    return SimpleNamespace(done=steps, requests=requests, started=10.0, trace=None)


def test_the_metrics_of_a_run():
    found = Metrics.of(session(STEPS))
    assert (found.requests, found.prompt_tokens, found.new_tokens, found.gpu_active) == (2, 10, 8, None)
    assert (found.seconds, found.steps, found.tokens_per_second) == (6.0, 8, 8 / 6)
    assert found.ms_per_step == pytest.approx(750)
    assert found.ms_per_decode_step == pytest.approx(150)  # the median of 100 and 200: those of the typical decodes
    assert Metrics.of(session(STEPS[:2])).ms_per_decode_step is None


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
