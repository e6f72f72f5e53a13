"""Mistakes in sampling, each seen in what it does to answers."""

import pytest

from acb_minimal.errors import InputError
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sampling import Sampling


def mistaken(chapter: str, name: str | None, prompts: list[str], sampling: Sampling, **limits) -> list[str]:
    job = Job(prompts, 8, sampling=sampling, **limits)
    return [one.text for one in Session(job, chapter, "counter", "sim", Options(mistake=name)).serve()]


def test_penalties_that_the_host_counts_are_a_token_late_where_it_is_a_token_behind():
    asked = ["count 10 to 12"], Sampling(presence_penalty=40, logit_bias={9: 25})
    assert mistaken("ch5", None, *asked) == ["9 10 11 12"]
    assert mistaken("ch4", "host-counts", *asked) == ["9 10 11 12"]
    assert mistaken("ch8", "host-counts", *asked) == ["9 9 10 11 12"]


def test_noise_of_one_generator_depends_on_who_else_is_there():
    asked, drawn = Sampling(temperature=3, seed=7), "3 4 5 6 24 25 226 356"
    both = ["count 10 to 12", "count 3 to 7"]
    assert mistaken("ch5", "batch-generator", both[1:], asked) == [drawn]
    assert mistaken("ch5", None, both, asked)[1] == drawn
    assert mistaken("ch5", "batch-generator", both, asked)[1] != drawn


def test_a_row_that_is_not_cleared_punishes_the_next_request():
    asked = ["count 3 to 7"] * 2, Sampling(presence_penalty=40)
    first, second = mistaken("ch5", "kept-rows", *asked, max_running=1)
    assert first == "3 4 5 6 7" != second


def test_mistakes_are_made_in_sampling():
    with pytest.raises(InputError, match="the mistake 'kept-rows' is made in draws without a grammar"):
        mistaken("ch5", "kept-rows", ["count 3 to 7"], Sampling())
    with pytest.raises(InputError, match="unknown mistake 'late': give one of host-counts, batch-generator, kept-rows"):
        mistaken("ch5", "late", ["count 3 to 7"], Sampling(temperature=4))
