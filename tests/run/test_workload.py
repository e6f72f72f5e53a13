import pytest

from acb_minimal.errors import InputError
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.workload import workload


def test_prompts_are_the_same_every_time_and_differ_from_each_other():
    load = workload("long").override(requests=3, prompt_tokens=50)
    prompts = load.prompts(1000)
    assert prompts == load.prompts(1000) != load.prompts(1000, seed=1)
    assert [len(prompt) for prompt in prompts] == [50, 50, 50]
    assert prompts[0] != prompts[1]
    assert all(0 <= token < 1000 for prompt in prompts for token in prompt)


def test_demo_asks_the_counter_what_it_knows():
    checkpoint = Checkpoint("counter")
    prompts = workload("demo").prompts(0)
    assert len(prompts) == len(set(prompts)) == 48
    assert all(len(checkpoint.encode(prompt)) == 4 for prompt in prompts)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nightly", {}, "unknown workload 'nightly': the workloads are demo, long, wide, small, headline"),
        ("demo", {"prompt_tokens": 10}, "workload 'demo' has prompts of text"),
        ("long", {"requests": 0}, "requests is 0; it must be at least 1"),
        ("long", {"prompt_tokens": -1}, "prompt tokens is -1; it must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(name, changes, message):
    with pytest.raises(InputError, match=message):
        workload(name).override(**changes)
