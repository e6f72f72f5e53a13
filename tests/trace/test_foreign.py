"""Engines and traces of others, each with something that once led to a wrong answer; made up, as small as can be."""

import pytest
from tape import Tape, asynchronous, forward, sync, us

from acb_minimal.trace import host
from acb_minimal.trace.idle import analyse
from acb_minimal.trace.torch_profiler import Recording


def refused(events: list[dict]) -> str:
    (report,) = analyse(Recording.of(events))
    assert report.verdict is None
    return " ".join(report.refusals)


def graphed(ahead: bool, steps: int = 10) -> Tape:
    """Bookkeeping that is itself kernels, cut in three by waits and copies, and then one graph.

    If it looks ahead, the bookkeeping runs beside the graph of the batch before, on a stream of its own.
    """
    tape, downloaded, graph_free = Tape(), None, 0
    for _ in range(steps):
        for part in range(3):
            tape.host("prepare", 100)
            number = tape.call("cudaLaunchKernel", 5)
            tape.on_gpu("kernel", "index", tape.now + 7, tape.now + 9, number, stream=17 if ahead else 7)
            tape.now += 5
            if part == 1:
                tape.wait(tape.now + 2, "cudaEventSynchronize")  # for an upload
        number, start = tape.call("cudaGraphLaunch", 20), max(tape.now + 9, graph_free)
        for kernel in range(20):
            tape.on_gpu("kernel", "gemm", start + 50.5 * kernel, start + 50.5 * kernel + 50, number)
        graph_free = tape.free[0] = start + 50.5 * 20
        tape.now += 20
        downloaded, before = tape.download(stream=7), downloaded
        tape.launch(2)  # something behind the copy
        if not ahead:
            tape.wait(downloaded, "cudaEventSynchronize")
        elif before:
            tape.wait(before, "cudaEventSynchronize")
    tape.runs.clear()
    return tape


def of(tape: Tape):
    (report,) = analyse(Recording.of(tape.events))
    return report


def test_bookkeeping_that_is_itself_kernels_is_no_batch_and_no_launching():
    before, after = of(graphed(ahead=False)), of(graphed(ahead=True))
    assert (before.batches, before.verdict.kind, before.typical.ahead) == (11, "synchronous", 0)
    assert (after.batches, after.verdict.kind, after.typical.ahead) == (11, "busy", 1)  # with one that was got ready
    law = before.typical.law
    assert us(law.launching) == 20  # the graph alone
    assert law.synchronous == pytest.approx(before.typical.step, rel=0.02)
    assert after.typical.step == pytest.approx(law.asynchronous, rel=0.02)


def test_idle_with_work_queued_while_the_host_waits_is_in_no_whole_trace():
    tape = Tape()
    for _ in range(8):
        tape.launch(20)
        tape.free[0] += 500  # something that is not in the trace
        tape.launch(20)
        tape.wait(tape.download())
    assert "for up to 0.500 ms the host waits for the GPU, and nothing runs on it" in refused(tape.events)


def test_a_wait_for_an_upload_on_the_gpu_is_not_called_the_hosts():
    tape = Tape()
    for _ in range(8):
        upload = tape.call("cudaMemcpyAsync", 3)
        tape.on_gpu("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", tape.now + 4, tape.now + 504, upload, stream=8)
        tape.free[0] = tape.now + 505
        forward(tape, eager=True, kernels=10, length=20, took=5)
        tape.wait(tape.download())
    report = of(tape)
    assert report.verdict.kind == "copy-bound"
    assert us(report.typical.copies) == pytest.approx(505 - 3 - 10, abs=15)
    assert report.typical.idle < 30e-6
    assert report.figures()["copies"]["count"] == 7


def two_threads() -> Tape:
    """A forward pass by one thread and a backward pass by another; the first loads data for 600 us in between."""
    tape = Tape()
    for _ in range(8):
        tape.host("load", 600)
        for number in range(30):
            tape.launch(20, took=5, tid=1 if number < 10 else 2)
        tape.wait(tape.download())
    return tape


def test_all_threads_that_launch_are_one_host():
    report = of(two_threads())
    assert us(report.typical.law.host) == 600 + 3
    assert us(report.typical.law.launching) == 150
    assert (report.doing[0].name, us(report.doing[0].seconds)) == ("load", 600)


def test_a_host_does_not_wait_while_another_thread_of_it_launches():
    """The first thread is in a wait from its last launch on; the second one still launches for 100 us of that."""
    tape = Tape()
    for _ in range(8):
        tape.host("load", 600)
        for number in range(30):
            tape.launch(20, took=5, tid=1 if number < 10 else 2)
        until = tape.download()
        tape.event("cuda_runtime", "cudaStreamSynchronize", tape.now - 103, until)
        tape.now = until
    report = of(tape)
    assert us(report.typical.law.launching) == 150
    assert us(report.typical.law.host) == 600 + 3


def test_item_waits_in_a_call_that_is_named_asynchronous():
    tape = Tape()
    for _ in range(8):
        tape.host("schedule", 300)
        forward(tape, eager=True, kernels=10, length=20, took=5)
        start = tape.free[0] + 1
        number = tape.call("cudaMemcpyAsync", start + 3 - tape.now)
        tape.on_gpu("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", start, start + 2, number, stream=7)
        tape.now = start + 3
        tape.wait(tape.now)
    report = of(tape)
    assert us(report.typical.law.host) == 300
    assert (report.typical.ahead, report.verdict.kind) == (0, "synchronous")


def test_two_processes_on_one_device_number_are_not_one_host():
    tape = sync(8)
    events = tape.events + [{**event, "pid": 78} for event in tape.events if event["pid"] == 77]
    assert "2 processes launch on it (77, 78)" in refused(events)


def test_a_kernel_that_runs_into_the_next_of_its_stream_is_damage():
    tape = sync(8)
    kernels = [event for event in tape.events if event["cat"] == "kernel"]
    kernels[35]["dur"] += 2000
    assert "its times are damaged: 'gemm' at" in refused(tape.events)


def test_steps_that_are_little_of_the_trace_are_said_to_be():
    tape = Tape()
    tape.launch(100_000)
    tape.wait(tape.download())
    report = of(sync(8, tape=tape))
    assert report.verdict.kind == "not engaged"
    assert report.covered == pytest.approx(0.034, abs=0.003)


def test_launches_into_a_graph_that_is_captured_have_no_kernels_and_lose_none():
    tape = sync(4, eager=False)
    for name in ("cudaStreamBeginCapture", *["cudaLaunchKernel"] * 50, "cudaStreamEndCapture"):
        tape.host(name, 5, "cuda_runtime")
    report = sync(6, eager=False, tape=tape).report()
    assert (report.lost, report.typical.step) == ([], sync(10, eager=False).report().typical.step)


def test_what_was_queued_before_the_recording_began_is_not_lost():
    tape = sync(8)
    tape.events = [event for event in tape.events if "Launch" not in event["name"] or event["ts"] > 2000]
    report = of(tape)
    assert report.assumed > 0.1
    assert (report.lost, report.verdict.kind) == ([], "not engaged")


def marked(steps: int, each) -> Tape:
    tape = Tape()
    for number in range(steps):
        begin = tape.now
        each(tape)
        tape.event("user_annotation", f"ProfilerStep#{number}", begin, tape.now)
    return tape


def test_the_profilers_own_marks_tell_steps_apart_where_nothing_else_does():
    def step(tape: Tape) -> None:
        tape.host("prepare", 200)
        for _ in range(10):
            tape.launch(20, took=5)
        tape.now += 200

    report = of(marked(8, step))
    assert (report.batches, report.gpu.segments.by) == (8, "the profiler's steps")
    assert [us(each) for each in (report.typical.law.launching, report.typical.law.host)] == [50, 400]


def test_marks_around_many_batches_are_no_steps():
    report = of(marked(5, lambda tape: sync(12, tape=tape)))
    assert (report.batches, report.gpu.segments.by) == (60, "copies to the host and waits")


def test_steps_that_all_have_prompts_in_them_are_told_of():
    tape = Tape()
    for _ in range(8):
        begin = tape.now
        sync(1, tape=tape)
        tape.event("user_annotation", "execute_context_1(512)_generation_31(31)", begin + 300, tape.now)
    report = of(tape)
    assert (report.about, report.typical.count) == ("steps with prompts", 6)
    assert report.verdict.kind == "not engaged"


@pytest.mark.parametrize(("name", "about"), [("step[DECODE bs=8]", "decodes"), ("train_step", "steps")])
def test_steps_are_called_decodes_only_where_the_trace_says_so(name, about):
    tape = sync(8)
    for call in [event for event in tape.events if event["name"] == "schedule"]:
        tape.event("user_annotation", name, call["ts"], call["ts"] + 500)
    assert of(tape).about == about


@pytest.mark.parametrize(
    "name",
    ["void vllm::cross_device_reduce_1stage<half, 2>(x)", "deep_ep::internode_ll::dispatch<false, 3>", "ncclDevX"],
)
def test_kernels_that_talk_to_other_gpus_are_known_by_many_names(name):
    tape = sync(8)
    for event in tape.events:
        if event["cat"] == "kernel" and event["ts"] % 7 == 0:
            event["name"] = name
    report = of(tape)
    assert report.typical.communication > 0
    assert report.talk[0] == report.talk[1] > 0


def test_a_host_that_does_nothing_but_wait_has_nothing_to_be_slowed():
    tape = sync(8)
    tape.event("cuda_runtime", "cudaDeviceSynchronize", 1, tape.now, correlation=10_000)
    assert of(tape).least == 1.0


def test_a_refusal_still_says_what_is_known():
    tape = sync(4)
    report = of(tape)
    assert report.refusals
    assert (report.graphs, report.talk, report.copies.count) == (0, (0.0, 0.0), 0)
    longest = host.longest(report.gpu, 5)
    assert [us(length) for _, length, *_ in longest] == [307.0] * 3
    assert {(host, gpu) for *_, host, gpu in longest} == {("schedule", "nothing")}


def test_correlation_numbers_may_be_whole_floats():
    tape = sync(8)
    expected = tape.report().figures()
    for event in tape.events:
        if "correlation" in event["args"]:
            event["args"]["correlation"] = float(event["args"]["correlation"])
    assert tape.report().figures() == expected


def test_damage_is_told_from_a_gpu_that_others_keep_waiting():
    """Of two GPUs of one process, one may be idle while the host waits for the other."""
    tape = asynchronous(8, eager=False)
    for _ in range(8):
        tape.launch(20, gpu=1)
        tape.launch(5_000)
        tape.wait(tape.download())
    assert all(report.lost == [] for report in analyse(Recording.of(tape.events)))
