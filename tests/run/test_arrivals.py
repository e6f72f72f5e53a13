"""Requests that come over time: when, who waits for them, and that no chapter knows."""

import json
import time

import pytest

from acb_minimal import generate
from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run.arrivals import Arrivals, Recorded, read_recorded
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.options import Options, Scale
from acb_minimal.run.ranks import Ranks
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

PAIRS = [(3, 9), (10, 40), (5, 5), (700, 712), (20, 26), (31, 33)]
PROMPTS = [counter.prompt(*pair) for pair in PAIRS]
RIGHT = {str(number): counter.answer(*pair) for number, pair in enumerate(PAIRS)}


def served(chapter: str, arrivals: Arrivals, **limits) -> tuple[Session, list]:
    """A session that has served these prompts, and its completions in the order in which they came."""
    session = Session(Job(PROMPTS, arrivals=arrivals, **limits), chapter, device="sim")
    return session, list(session.run())


@pytest.mark.parametrize("chapter", [
    pytest.param(name, marks=[] if name in ("ch1_sync", "ch5_carry_over") else pytest.mark.slow)
    for name in chapter_paths(None)
])  # fmt: skip
@pytest.mark.parametrize("load", [{"rate": 60.0}, {"concurrency": 2}, {"times": (0.3, 0.0, 0.3, 0.01, 2.0, 0.011)}])
def test_every_chapter_answers_whoever_comes_when(chapter, load):
    session, done = served(chapter, Arrivals(**load), max_running=3)
    assert {completion.id: completion.text for completion in done} == RIGHT
    assert session.pool.num_free == session.pool.num_pages
    assert not session.scheduler.coming
    assert not session.scheduler.in_flight
    lives = session.scheduler.lives
    if "times" in load:  # nobody waits for the one that comes last
        assert all(life.tokens[-1] < lives["4"].arrived for id, life in lives.items() if id != "4")
    for id, life in lives.items():
        assert len(life.tokens) == len(next(c.tokens for c in done if c.id == id))
        assert life.arrived < life.tokens[0]
        assert life.tokens == sorted(life.tokens)


def test_nobody_is_scheduled_before_his_time_and_an_idle_engine_waits_for_exactly_that():
    at = 0.0, 0.001, 5.0, 5.0, 9.0, 9.5
    session, done = served("ch1", Arrivals(times=at), max_running=1)
    lives = session.scheduler.lives
    assert [lives[str(n)].arrived - session.started for n in range(6)] == pytest.approx(at, abs=1e-12)
    assert [completion.id for completion in done] == list("012345")
    # The request before is long done: the batch begins when this one is there, and is the first of it.
    first = next(batch for batch in session.done if batch.time > lives["2"].arrived)
    alone, _ = served("ch1", Arrivals(times=(0.0,) * 6), max_running=1)
    assert first.time - lives["2"].arrived == pytest.approx(alone.done[0].time - alone.started, rel=0.02)
    assert lives["2"].tokens[0] == first.time


def test_in_a_closed_loop_the_next_comes_when_one_has_ended():
    session, done = served("ch5", Arrivals(concurrency=2))
    lives = session.scheduler.lives
    assert [lives[id].arrived for id in "01"] == [session.started] * 2
    ends = sorted(life.tokens[-1] for life in lives.values())
    assert [lives[str(n)].arrived for n in range(2, 6)] == ends[:4]


def test_a_real_clock_sleeps():
    began = time.perf_counter()
    (done,) = generate("count 3 to 4", device="cpu", arrivals=Arrivals(times=(0.2,)))
    assert done.text == "3 4"
    assert time.perf_counter() - began >= 0.2


def test_times_of_a_rate_are_those_of_a_poisson_process_and_of_its_seed():
    times = Arrivals(rate=20.0).due(range(20_000))
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 20, rel=0.03)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)  # exponential
    assert Arrivals(rate=20.0).due(range(5)) == times[:5] != Arrivals(rate=20.0, seed=1).due(range(5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "arrivals take one of rate, concurrency, times; they were given none of them"),
        ({"rate": 1.0, "concurrency": 2}, "they were given rate and concurrency"),
        ({"rate": 0.0}, "the rate is 0 requests a second; it must be more than 0"),
        ({"concurrency": 0}, "the concurrency is 0; it must be at least 1"),
        ({"times": (1.0, -1.0)}, "a request arrives at -1 s; it must be 0 or more"),
        ({"rate": 1.0, "ttft": 0.0}, "the limit for TTFT is 0 ms; it must be more than 0"),
        ({"times": (0.0,)}, "there are 1 times of arrival for 6 prompts"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        served("ch1", Arrivals(**given))


def test_with_several_ranks_all_requests_are_there_from_the_start():
    with pytest.raises(InputError, match="2 requests a second arrive, seed 0: on several GPUs all requests have to be"):
        Arrivals(rate=2.0).check(6, Ranks(0, 2, 0, 1.0))


def test_a_file_is_read_in_the_order_of_its_times(tmp_path):
    file, asked = tmp_path / "arrivals.jsonl", [Recorded(2, 5, 3), Recorded(0.5, 7, 1)]
    file.write_text("\n\n".join(json.dumps(each._asdict()) for each in asked))
    assert read_recorded(file) == sorted(asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read arrivals from"),
        ("", "has no arrivals"),
        ("{", "line 1: it must be a JSON object with at, prompt_tokens, new_tokens; it is '{'"),
        ('{"at": 0, "prompt_tokens": 3}', "line 1: it must be a JSON object"),
        ('{"at": 0, "prompt_tokens": 3, "new_tokens": 0}', "new_tokens is 0; it must be a whole number of at least 1"),
        ('{"at": NaN, "prompt_tokens": 3, "new_tokens": 2}', "at is nan; it must be a number of at least 0"),
    ],
)
def test_a_bad_line_of_a_file_is_named(tmp_path, text, message):
    file = tmp_path / "arrivals.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_recorded(file)


def first_token(chapter: str, options: Options) -> tuple[float, float, float]:
    """Of one request that comes to an idle engine: when it has its first token, and when the next batch begins to be
    launched, and is; in seconds from its arrival."""
    job = Job([[5]], 4, arrivals=Arrivals(times=(1.0,)), ignore_stop=True)
    session = Session(job, chapter, device="sim", options=options, trace=True)
    session.serve()
    life = session.scheduler.lives["0"]
    cpu = [span for span in session.trace.lane("CPU") if span.batch_number == 1]
    uploads, downloads = ([span for span in cpu if span.name == name] for name in ("upload", "download"))
    return tuple(time - life.arrived for time in (life.tokens[0], uploads[0].start, downloads[0].end))


def test_chapter_11_hands_out_a_first_token_before_the_next_launch_if_it_is_there():
    slow_host = Options(launching=8e-3, host_work=1e-3)
    token, begins, _ = first_token("ch11", slow_host)
    assert token <= begins
    later, _, ends = first_token("ch5", slow_host)
    assert later > ends
    assert later - token > 8e-3


def test_where_the_gpu_takes_long_chapter_11_is_chapter_5():
    slow_gpu = Options(scale=Scale("llama-3.1-8b", rows=24, positions=2000), graphs=True)
    ours, theirs = first_token("ch11", slow_gpu), first_token("ch5", slow_gpu)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-4)
    assert ours[0] > ours[2]  # the next batch had been launched by then
