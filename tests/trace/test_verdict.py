"""A planted case for every kind of verdict, and for every reason to refuse one."""

import pytest
from tape import Tape, asynchronous, sync

from acb_minimal.errors import InputError
from acb_minimal.trace.idle import analyse
from acb_minimal.trace.law import Breakdown, Law
from acb_minimal.trace.steps import Typical
from acb_minimal.trace.torch_profiler import Recording
from acb_minimal.trace.verdict import TEXTS, verdict

PLANTED = {
    "busy": lambda: asynchronous(8, eager=False),
    "launch-bound": lambda: asynchronous(8, length=6, took=10),
    "synchronous": lambda: sync(8, stream=7),
    "not engaged": lambda: sync(8),
    "in part": lambda: asynchronous(24, engages=lambda step: step % 4 > 0, bookkeeping=100),
    "host-bound": lambda: asynchronous(8, bookkeeping=250),
}


@pytest.mark.parametrize(("kind", "engine"), PLANTED.items(), ids=PLANTED)
def test_every_kind_of_engine_is_told(kind, engine):
    report = engine().report()
    assert (report.verdict.kind, report.refusals) == (kind, [])


def made(parts: Breakdown, law: Law, exposed: float, ahead: float) -> Typical:
    """Of nine steps that are launched as graphs."""
    return Typical(9, parts, law, parts.step, parts.bubbles, 0.0, 0.0, 0.0, 0.0, 0.0, exposed, ahead, graph=True)


def test_what_the_law_does_not_explain_is_said_not_to_be():
    typical = made(Breakdown(1e-3, 0.0, 0.0, 1e-3), Law(1e-3, 1e-4, 1e-4), exposed=0.5, ahead=1.0)
    assert verdict(typical).kind == "unexplained"
    assert {case.partition(",")[0] for case in TEXTS} == {
        *PLANTED,
        "unexplained",
        "copy-bound",
    }  # the last is in test_foreign.py


@pytest.mark.parametrize(
    "name", ["scheduler.py(1): event_loop_overlap", "AsyncScheduler", "core.py(2): step_with_batch_queue"]
)
def test_an_engine_that_is_asynchronous_by_name_only_is_told_from_its_frames(name):
    tape = sync(8, stream=7, length=60)
    tape.event("python_function", name, 1, tape.now, tid=3)
    verdict = tape.report().verdict
    assert verdict.kind == "not engaged"
    assert "synchronous in fact" in verdict.text


def test_the_law_predicts_nothing_of_steps_that_it_does_not_describe():
    typical = made(Breakdown(1e-3, 0.0, 0.0, 2e-3), Law(1e-3, 1e-4, 2e-4), exposed=0.6, ahead=0.0)
    assert "nothing is predicted" in verdict(typical).text


def drop(tape: Tape, category: str, every: int = 1, name: str = "") -> Tape:
    """Without every so many events of the category with the name."""
    found = [event for event in tape.events if event["cat"] == category and name in event["name"]]
    lost = {id(event) for event in found[::every]}
    tape.events = [event for event in tape.events if id(event) not in lost]
    return tape


def empty_graphs() -> Tape:
    """Replays of which the profiler saw no kernel, between launches of which it saw them."""
    tape = Tape()
    for _ in range(8):
        tape.host("schedule", 100)
        tape.launch(20)
        tape.call("cudaGraphLaunch", 5)
        tape.now += 5
        tape.free[0] += 1000
        tape.wait(tape.download())
    return tape


def busy_profiler() -> Tape:
    tape = Tape()
    for _ in range(8):
        tape.event("overhead", "Activity Buffer Request", tape.now, tape.now + 100)
        sync(1, tape=tape)
    return tape


def with_frames() -> Tape:
    tape = asynchronous(8, bookkeeping=250)
    tape.event("python_function", "engine.py(7): step", 1, tape.now)
    return tape


def always_compiling() -> Tape:
    tape = Tape()
    for _ in range(8):
        tape.host("cudaGraphInstantiate", 100, "cuda_runtime")
        sync(1, tape=tape)
    return tape


REFUSED = {
    "graphs seen as empty": (empty_graphs, "7 of 7 graph replays have no kernel"),
    "kernels lost": (lambda: drop(sync(20), "kernel", 20), "of 9 of 180 launches no kernel"),
    "launches lost": (lambda: drop(sync(20), "cuda_runtime", 5, "Launch"), "the launches of 20% of its kernels"),
    "no launches": (lambda: drop(sync(8), "cuda_runtime"), "without ProfilerActivity.CPU"),
    "nothing tells apart": (lambda: drop(drop(sync(8), "gpu_memcpy"), "cuda_runtime", name="Sync"), "nothing tells"),
    "too few": (lambda: sync(4), "it has 2 steps among their like, and 4 is the least"),
    "one-time work in every step": (always_compiling, "One-time work goes on, such as cudaGraphInstantiate"),
    "profiler busy with itself": (busy_profiler, "the profiler was busy with itself"),
    "profiler slows the host": (with_frames, "record it without"),
}


@pytest.mark.parametrize(("engine", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_trace_that_cannot_carry_a_verdict_gets_the_reason(engine, reason):
    (report,) = analyse(Recording.of(engine().events))
    assert report.verdict is None
    assert any(reason in refusal for refusal in report.refusals), report.refusals


def test_a_profiler_that_makes_steps_longer_than_they_are_is_found_out():
    tape = sync(8)
    (report,) = analyse(Recording.of(tape.events), step=1.5e-4)  # less than the GPU's part of it
    assert report.refusals == ["the profiler slows it: a step takes 0.507 ms under it and 0.150 ms without."]
    (report,) = analyse(Recording.of(tape.events), step=4e-4)
    assert "instead of 0.400 ms" in report.verdict.text
    (report,) = analyse(Recording.of(tape.events), step=5e-4)
    assert report.verdict.kind == "not engaged"


def test_times_that_do_not_count_microseconds_are_refused():
    tape = sync(8)
    expected = tape.report()
    for event in tape.events:
        event["ts"] += 10**17  # a whole number loses nothing
    assert tape.report().figures() == expected.figures()
    tape.events[0]["ts"] = float(tape.events[0]["ts"])
    with pytest.raises(InputError, match="1e\\+17 us"):
        Recording.of(tape.events)


def test_graphs_alone_that_are_seen_as_empty_are_no_idle_gpu():
    tape = Tape()
    for _ in range(8):
        tape.call("cudaGraphLaunch", 5)
        tape.wait(tape.download())
    with pytest.raises(InputError, match="8 graphs are launched, and their kernels are not in it"):
        analyse(Recording.of(tape.events))
