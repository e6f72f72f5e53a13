"""The benchmark of transformers' own continuous batching: what it makes of what it sees, and on a CPU the seeing."""

import pytest
import torch

from acb_minimal.errors import InputError
from acb_minimal.measure import generate_batch
from acb_minimal.measure.generate_batch import Served, Setting
from acb_minimal.measure.peer import FIRST, WHOLE, peer, tables, whole


def served(context: int, step: float, graphs: bool = True, ahead: bool = False) -> Served:
    return Served(
        Setting(context, graphs, ahead), step, 0.8 * step, [("Batch.prepare", 0.75), ("Batch.copy", 0.25)], "busy"
    )


def test_the_whole_run_is_drawn_from_the_lengths_that_were_measured():
    """A step that costs 10 ms and 1 us for each token a request has: the sum over all lengths of the run."""
    points = [served(context, 0.01 + 1e-6 * (context + generate_batch.NEW_TOKENS / 2)) for context in (8000, 128, 4096)]
    expected = sum(0.01 + 1e-6 * length for length in range(FIRST, FIRST + WHOLE))
    assert whole(points) == pytest.approx(expected)
    assert whole(points[:2]) == pytest.approx(expected)


def test_a_table_has_every_setting_and_where_the_host_s_time_goes():
    points = [served(context, 0.02, ahead=ahead) for context in (128, 4096) for ahead in (False, True)]
    made = tables([*points, served(128, 0.03, graphs=False)], {"device": "a machine"})
    assert made["steps"].cells()[0] == ["128", "yes", "no", "20.00", "16.00", "busy"]
    assert len(made["steps"].rows) == 5
    assert made["whole"].cells() == [["no", "164", "20.00"], ["yes", "164", "20.00"]]
    assert made["host"].cells()[:2] == [
        ["128", "no", "Batch.prepare", "75.0%", "15.00"],
        ["128", "no", "Batch.copy", "25.0%", "5.00"],
    ]
    assert len(made["host"].rows) == 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_measure():
    with pytest.raises(InputError, match="on a CUDA GPU"):
        peer()


def test_one_length_alone_says_nothing_of_the_whole_run():
    with pytest.raises(InputError, match="contexts 128, 128: give two lengths"):
        peer((128, 128))


def test_the_serving_thread_is_seen_at_work(monkeypatch):
    monkeypatch.setattr(generate_batch, "NEW_TOKENS", 24)
    monkeypatch.setattr(generate_batch, "ROWS", 4)
    network = generate_batch._network("counter", "sdpa")
    prompts = torch.randint(20, (4, 12), device="cpu").tolist()
    setting = Setting(12, False, False)
    steps = generate_batch._steps(generate_batch._generate(network, setting, prompts))
    assert len(steps) == 22
    assert min(steps) > 0
    looks = generate_batch._looked_at(lambda: generate_batch._generate(network, setting, prompts))
    assert sum(share for _, share in looks) == pytest.approx(1)
    assert any("forward" in name for name, _ in looks)
