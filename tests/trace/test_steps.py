"""Steps: told apart and sorted, and the law of overlap in made-up engines of which K, L and H are known."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from tape import Tape, asynchronous, forward, sync, us

from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload
from acb_minimal.trace.idle import analyse, typical_of
from acb_minimal.trace.spans import Trace
from acb_minimal.trace.torch_profiler import Recording

STORED = Path(__file__).parents[2] / "docs" / "results" / "traces"


def test_k_l_and_h_of_a_synchronous_engine():
    """Ten kernels of 20 us, launched in 5 us each; then bookkeeping, with the call that copies the tokens."""
    typical = sync(steps=8).report().typical
    assert [us(each) for each in (typical.law.on_gpu, typical.law.launching, typical.law.host)] == [200, 50, 303]
    assert typical.step == pytest.approx(typical.law.synchronous, rel=0.02)
    assert us(typical.law.asynchronous) == 50 + 303
    assert us(typical.as_graphs) == 303
    assert us(typical.idle) == 1 + 2 + 300 + 4
    assert us(typical.hidden) == 353 - 307
    assert (typical.ahead, typical.count) == (0, 6)
    assert [us(part) for part in (typical.parts.kernels, typical.parts.bubbles)] == [200, 307]


def test_k_l_and_h_of_an_asynchronous_engine():
    typical = asynchronous(steps=8).report().typical
    assert [us(each) for each in (typical.law.on_gpu, typical.law.launching, typical.law.host)] == [200, 50, 33]
    assert typical.step == pytest.approx(typical.law.asynchronous, rel=0.02)
    assert typical.law.synchronous == pytest.approx(typical.step + 33e-6, rel=0.02)
    assert (typical.ahead, typical.holds) == (1, True)
    assert us(typical.hidden) == 83


CHAPTERS, WORKLOADS = ("ch1_sync", "ch3_events"), ("wide", "small", "long")


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_chapter_predicts_its_asynchronous_twin_on_an_h200(name, chapter):
    """With the time that launching took the twin: a host is faster at one time than at another."""
    before, after = (stored(name, each) for each in (chapter, "ch5_carry_over"))
    law = replace(before.law, launching=after.law.launching)
    assert after.step == pytest.approx(law.asynchronous, rel=0.05)


def test_gaps_of_a_host_that_is_a_batch_ahead_are_the_gpus_own():
    """Chapter 5 on `wide`; on `small` launching takes longer than the kernels, and the GPU waits for it."""
    ahead, late = stored("wide", "ch5_carry_over").parts, stored("small", "ch5_carry_over").parts
    assert ahead.kernel_gaps > 0.05 * ahead.step
    assert abs(ahead.launch_gaps) < 0.001 * ahead.step
    assert late.launch_gaps > 0.5 * late.step
    assert stored("wide", "ch6_cuda_graphs").parts.launch_gaps == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("count", "between"), [(10_000, 3.0), (None, 0.0)])
def test_a_graph_leaves_a_moment_between_kernels_if_it_is_known_how_many_there_are(count, between):
    """Ten batches of 6 ms on the GPU, 4 ms of it with a kernel running; 5 ms to launch."""
    trace = Trace("a GPU")
    for number in range(10):
        start = 0.007 * number
        trace.add("CPU", "forward", start, start + 0.005, number)
        trace.add("compute", "forward", start, start + 0.006, number, launched=start, kernels=0.004, kernel_count=count)
    assert 1e3 * typical_of(trace).as_graphs == pytest.approx(4 + between, abs=0.001)


def test_a_forward_pass_is_no_launch_that_blocks_because_the_carry_over_takes_so_much_less():
    """In a trace of ours both are one call, so the usual one of that name may be the short one."""
    trace = Trace("a GPU")
    for number in range(10):
        start = 0.03 * number
        for part in range(2):  # more carry-overs than forward passes
            begin = start + part * 1e-4
            trace.add("CPU", "carry_over", begin, begin + 1e-4, number)
            trace.add("compute", "carry_over", begin, begin + 1e-5, number, launched=begin, kernels=1e-5)
        begin = start + 2e-4
        trace.add("CPU", "forward", begin, begin + 0.02, number)
        trace.add("compute", "forward", begin, begin + 0.025, number, launched=begin, kernels=0.02)
    found = typical_of(trace)
    assert found.law.launching == pytest.approx(0.0202)
    assert found.waiting == 0


def stored(name: str, chapter: str):
    return typical_of(Trace.of_chrome(json.loads((STORED / f"{name}-{chapter}.json").read_text())))


@pytest.mark.parametrize(
    ("name", "chapter"),
    [("small", "ch1_sync"), *(pytest.param(*each, marks=pytest.mark.slow) for each in product(WORKLOADS, CHAPTERS))],
)
def test_a_chapter_predicts_its_asynchronous_twins_on_the_simulator(name, chapter):
    load = workload(name).override(requests=24, new_tokens=24, prompt_tokens=64)
    for graphs, twin in ((False, "ch5_carry_over"), (True, "ch6_cuda_graphs")):
        before = typical_of(simulated(chapter, load, graphs))
        assert before.ahead == 0
        assert before.step == pytest.approx(before.law.synchronous, rel=0.05)
        assert typical_of(simulated(twin, load)).step == pytest.approx(before.law.asynchronous, rel=0.05)


def simulated(chapter: str, load, graphs: bool = False) -> Trace:
    session = Session(load.job(512), chapter, load.model, "sim", trace=True, options=Options(graphs=graphs))
    session.serve()
    return session.trace


def test_a_trace_of_ours_knows_its_prompts_also_where_most_batches_have_some():
    load = workload("wide").override(requests=100, new_tokens=6)
    session = Session(load.job(512), "ch1", load.model, "sim", trace=True)
    session.serve()
    prompts = [number for number, step in enumerate(session.done) if not step.decodes]
    assert 2 * len(prompts) > len(session.done)
    (report,) = analyse(Recording.of(session.trace.events()))
    assert [step.number for step in report.steps if step.kind == "prompt"] == prompts[1:]
    assert report.sorts["decode"][0] == len(session.done) - len(prompts) > 3


@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_chapter_launches_ahead_from_the_fifth_on(chapter):
    load = workload("wide").override(requests=24, new_tokens=24, prompt_tokens=64)
    assert typical_of(simulated(chapter, load, graphs=True)).ahead == float(chapter >= "ch5")


def sorts(tape: Tape) -> list[str]:
    return [step.kind for step in tape.report().steps]


def test_a_batch_that_runs_much_longer_has_prompts_in_it():
    tape = sync(steps=4)
    sync(steps=1, length=70, tape=tape)
    sync(steps=4, tape=tape)
    assert sorts(tape) == ["decode"] * 3 + ["prompt"] + ["decode"] * 4
    assert tape.report().typical.count == 4  # neither the prompt nor those beside it, nor the first two


def test_a_batch_that_is_no_graph_where_most_are_has_prompts_in_it():
    tape = sync(steps=4, eager=False)
    sync(steps=1, tape=tape)
    sync(steps=4, eager=False, tape=tape)
    assert sorts(tape)[3] == "prompt"


@pytest.mark.parametrize(
    ("name", "sort"),
    [
        ("execute_context_2(512)_generation_3(3)", "prompt"),
        ("execute_context_0(0)_generation_5(5)", "decode"),
        ("step[EXTEND bs=1]", "prompt"),
        ("step[DECODE bs=8]", "decode"),
    ],
)
def test_an_engine_may_say_itself_what_has_prompts_in_it(name, sort):
    tape = sync(steps=4)
    start = tape.now
    sync(steps=1, tape=tape)
    tape.event("user_annotation", name, start + 1, tape.now - 1)
    sync(steps=4, tape=tape)
    assert sorts(tape)[3] == sort
    assert set(sorts(tape)[:3] + sorts(tape)[4:]) == {"decode"}


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("cuda_runtime", "cudaGraphInstantiate"),
        ("cuda_runtime", "cudaStreamBeginCapture"),
        ("cuda_driver", "cuModuleLoadData"),
        ("cuda_runtime", "cudaMalloc"),
        ("overhead", "Lazy Function Loading"),
        ("user_annotation", "_compile.compile_inner (dynamo_timed)"),
    ],
)
def test_what_is_done_once_makes_a_step_of_set_up(category, name):
    tape = sync(steps=4)
    tape.host(name, 30_000, category)
    sync(steps=6, tape=tape)
    report = tape.report()
    assert [step.kind for step in report.steps] == ["decode"] * 3 + ["set-up"] + ["decode"] * 5
    assert report.typical.step == sync(steps=10).report().typical.step
    assert report.verdict.kind == sync(steps=10).report().verdict.kind
    assert name not in {doing.name for doing in report.doing}


def test_the_first_batch_of_its_kind_is_set_up_if_it_is_slow():
    tape = sync(steps=4)
    tape.host("warming up", 3_000)
    sync(steps=6, kernels=12, tape=tape)
    assert sorts(tape) == ["decode"] * 3 + ["set-up"] + ["decode"] * 5


def test_an_engine_that_waits_twice_a_step_has_one_batch_for_both_waits():
    tape = Tape()
    for _ in range(12):
        tape.host("schedule", 300)
        forward(tape, eager=True, kernels=20, length=20, took=5)
        tape.wait(tape.download())
        tape.host("sample", 40)
        forward(tape, eager=True, kernels=6, length=20, took=5)
        tape.wait(tape.download())
    report = tape.report()
    assert report.batches == 12
    assert us(report.typical.law.on_gpu) == 26 * 20
    assert us(report.typical.law.launching) == 26 * 5
    assert us(report.typical.law.host) == 340 + 6


def test_a_launch_that_blocks_is_a_wait():
    """The queue of launches is full: the host is ahead, and not slow."""
    tape, downloaded = Tape(), None
    for _ in range(8):
        tape.host("schedule", 30)
        for number in range(40):
            tape.launch(20, took=400 if number == 39 else 2)
        downloaded, before = tape.download(), downloaded
        if before:
            tape.wait(before, "cudaEventSynchronize")
    typical = tape.report().typical
    assert us(typical.law.launching) == 78
    assert typical.waiting > 400e-6
    assert typical.ahead == 1


def test_a_wait_for_an_upload_is_not_for_tokens_even_if_they_are_there_by_then():
    tape, downloaded = Tape(), None
    for _ in range(10):
        tape.host("schedule", 300)
        upload = tape.call("cudaMemcpyAsync", 3)
        tape.on_gpu("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", tape.now + 4, tape.now + 8, upload, stream=8)
        tape.now += 3
        tape.wait(tape.now + 9)
        forward(tape, eager=False, kernels=10, length=20, took=5)
        downloaded, before = tape.download(), downloaded
        if before:
            tape.wait(before, "cudaEventSynchronize")
    report = tape.report()
    assert (report.typical.ahead, report.verdict.kind) == (1, "host-bound")


def test_a_wait_that_begins_after_the_tokens_came_was_for_them_all_the_same():
    """K is little more than L, and the host needs a moment from the copy to the wait."""
    tape = Tape()
    for _ in range(10):
        tape.host("schedule", 300)
        forward(tape, eager=True, kernels=10, length=20, took=19)
        until = tape.download()
        tape.now += 40
        tape.wait(until)
    assert tape.report().typical.ahead == 0
