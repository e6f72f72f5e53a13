"""Gaps of a GPU: made-up engines of every kind, and what each of their gaps is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tape import LATENCY, Tape, asynchronous, check, sync, us

from acb_minimal.trace.gaps import KINDS, gpus
from acb_minimal.trace.idle import analyse
from acb_minimal.trace.torch_profiler import Recording


@pytest.mark.parametrize("eager", [True, False])
def test_a_synchronous_engine_has_a_bubble_before_every_batch_but_the_first(eager):
    report = sync(eager=eager).report()
    # The copy starts 1 us after the last kernel and takes 2, then come bookkeeping and the latency of a launch.
    assert (report.bubbles.count, us(report.bubbles.seconds)) == (4, 4 * (1 + 2 + 300 + LATENCY))
    assert report.launch_gaps.count == report.kernel_gaps.count == 0
    assert report.batches == 5
    assert report.gpu.segments.by == "copies to the host and waits"


def test_an_asynchronous_engine_with_graphs_has_no_gaps():
    report = asynchronous(eager=False).report()
    assert (report.kernel_seconds, report.batches) == (report.window, 5)
    assert report.bubbles.count == report.launch_gaps.count == report.kernel_gaps.count == 0


def test_a_thread_that_waits_does_not_end_the_batches_of_the_thread_that_launches():
    tape = asynchronous(length=6, took=10)
    expected = tape.report()
    for start in range(1000, int(tape.now), 37):
        tape.event("cuda_runtime", "cudaEventSynchronize", start - 30, start, tid=2)
    report = tape.report()
    assert [report.bubbles, report.launch_gaps, report.batches] == [
        expected.bubbles,
        expected.launch_gaps,
        expected.batches,
    ]


def test_a_thread_that_copies_and_waits_ends_the_batches_of_one_that_does_neither():
    tape = Tape()
    for _ in range(5):
        tape.now += 300
        for _ in range(10):
            tape.launch(6, took=10)
        tape.wait(tape.download(tid=2), tid=2)
    report = tape.report()
    assert (report.bubbles.count, report.launch_gaps.count, report.batches) == (4, 5 * 9, 5)
    assert report.bubbles.seconds > 4 * 300e-6


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("cudaMemcpy", 3),
        ("cudaDeviceSynchronize", 3),
        ("hipEventSynchronize", 3),
        ("cudaMemcpyAsync", None),
        ("cudaStreamWaitEvent", None),
    ],
)
@pytest.mark.parametrize("thread", [1, 2])
def test_a_call_of_any_thread_that_waits_ends_a_batch_where_nothing_is_copied_to_the_host(name, batches, thread):
    tape = Tape()
    for _ in range(3):
        tape.now += 300
        tape.graph(20, 20)
        tape.wait(tape.free[0], name, tid=thread)
    report = tape.report()
    assert (report.batches, report.gpu.segments.by) == (batches, "waits" if batches else "nothing")
    assert (report.bubbles.count, report.launch_gaps.count) == ((2, 0) if batches else (0, 2))


def test_a_wait_for_an_upload_is_a_bubble_but_no_batch():
    tape = Tape()
    for _ in range(5):
        tape.host("prepare", 50)
        tape.launch(5)
        tape.wait(tape.now + 20)  # for an upload from pageable memory
        for _ in range(100):
            tape.launch(20)
        tape.wait(tape.download())
    report = tape.report()
    assert (report.bubbles.count, report.batches) == (9, 5)
    calls = [event for event in tape.events if event["name"] == "cudaLaunchKernel"]
    for call in calls[1::101]:  # the first after the upload
        tape.events.remove(call)
    assert tape.report().bubbles.count == 9


def test_a_copy_in_a_graph_ends_the_batch_of_that_graph():
    tape = Tape()
    for _ in range(4):
        tape.now += 100
        tape.graph(20, 20)
        tape.on_gpu("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", tape.free[0], tape.free[0] + 2, tape.correlation)
        tape.now = tape.free[0] + 2  # the host looks at the memory until it has changed
    report = tape.report()
    assert (report.bubbles.count, report.batches, report.gpu.segments.by) == (3, 4, "copies to the host and waits")


@pytest.mark.parametrize(("ahead", "kind"), [(9, "launch gap"), (11, "kernel gap")])
def test_a_launch_that_was_still_on_its_way_was_not_queued(ahead, kind):
    tape = Tape()
    tape.graph(200)
    tape.now = tape.free[0] - ahead - 5
    number = tape.call("cudaLaunchKernel", 5)
    tape.on_gpu("kernel", "gemm", tape.free[0] + 6, tape.free[0] + 10, number)
    (gpu,) = gpus(Recording.of(tape.events))
    assert [KINDS[number] for number in gpu.kinds] == [kind]


def test_a_gap_of_less_than_two_microseconds_is_the_devices_own():
    tape = Tape()
    for length in (1.5, 2.5):
        tape.launch(20)
        tape.now = tape.free[0] + length - LATENCY
    tape.launch(20)
    report = tape.report()
    assert (us(report.kernel_gaps.seconds), us(report.launch_gaps.seconds)) == (3.0, 1.0)  # it takes 1.5 every time


def test_only_work_keeps_the_gpu_active():
    tape = sync(steps=1, eager=False)
    runs, end = tape.runs[0], int(tape.free[0])
    for name in ("Memcpy HtoD (Pinned -> Device)", "Memcpy DtoH (Device -> Pageable)"):
        tape.on_gpu("gpu_memcpy", name, end + 100, end + 200, 0)
    tape.on_gpu("gpu_user_annotation", "step", end - 50, end + 200, 0)
    tape.on_gpu("cuda_sync", "Stream Sync", end, end + 200, 0)
    assert tape.report().kernel_seconds == tape.report().window
    tape.on_gpu("gpu_memcpy", "Memcpy DtoD (Device -> Device)", end, end + 100, 0)
    tape.on_gpu("gpu_memset", "Memset (Device)", end + 100, end + 110, 0)
    tape.runs[0] = [*runs, (end, end + 100), (end + 100, end + 110)]
    assert tape.report().kernel_seconds == tape.report().window


def test_without_launches_batches_are_told_apart_by_when_copies_run():
    tape = sync()
    expected = tape.report()
    tape.events = [event for event in tape.events if event["cat"] in ("kernel", "gpu_memcpy")]
    for event in tape.events:
        del event["args"]["correlation"]
    report = tape.report()
    assert (report.bubbles, report.batches, report.assumed) == (expected.bubbles, 5, 1.0)


def test_a_kernel_without_a_launch_was_launched_no_later_than_the_next_on_its_stream():
    tape = Tape()
    for start in (2000, 2100, 2200):
        number = tape.call("cudaLaunchKernel", 5)
        tape.now += 5
        tape.on_gpu("kernel", "gemm", start, start + 50, number)
    middle = [event for event in tape.events if event["cat"] == "cuda_runtime"][1]
    tape.events.remove(middle)
    tape.wait(1500)
    report = tape.report()
    assert (report.kernel_gaps.count, report.assumed) == (2, pytest.approx(1 / 3))
    assert report.batches == 1  # the wait is after the last launch, though before the second kernel


def test_a_batch_ends_where_launches_say_and_not_the_order_in_which_streams_run():
    tape = Tape()
    for when, start, stream in ((50, 1050, 8), (100, 1000, 7), (1390, 1400, 7)):
        tape.now = when
        tape.on_gpu("kernel", "gemm", start, start + 100, tape.call("cudaLaunchKernel", 5), stream=stream)
        if when == 50:
            tape.wait(80)
    report = tape.report()
    assert (report.bubbles.count, report.launch_gaps.count) == (0, 1)


def test_a_correlation_id_used_twice_spoils_one_launch_and_not_those_before():
    tape = sync(steps=9)
    expected = tape.report()
    kernels = [event for event in tape.events if event["cat"] == "kernel"]
    kernels[0]["args"]["correlation"] = kernels[-1]["args"]["correlation"]
    assert tape.report().bubbles == expected.bubbles


def test_every_gpu_has_a_report_of_its_own():
    tape = sync(eager=False)
    for _ in range(3):
        tape.graph(50, gpu=1)
        tape.now = tape.free[1] + 500
    first, second = analyse(Recording.of(tape.events))
    assert (first.name, second.name) == ("GPU 0", "GPU 1")
    check(first, tape.runs[0])
    check(second, tape.runs[1])
    assert (first.batches, first.bubbles.count) == (5, 4)
    assert us(second.launch_gaps.seconds) == 2 * (500 + LATENCY)  # GPU 1 has no copies, and nothing waits


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300),  # kernel start
            st.integers(0, 40),  # length
            st.integers(0, 3),  # stream
            st.none()
            | st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 2)),  # call: ahead, took, thread
        ),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["wait", "copy"]), st.integers(1, 3)), max_size=6),
)
def test_kernels_and_gaps_add_up_whatever_the_trace(kernels, ends):
    tape = Tape()
    for start, length, stream, call in kernels:
        number = 0
        if call:
            ahead, took, thread = call
            tape.now = start - ahead
            number = tape.call("cudaLaunchKernel", took, tid=thread)
        tape.on_gpu("kernel", "gemm", start, start + length, number, stream=stream)
    for when, what, thread in ends:
        tape.now = when
        tape.wait(when + 5, tid=thread) if what == "wait" else tape.download(tid=thread)
    report = tape.report()
    assert sum(count for count, _ in report.sorts.values()) == (report.batches or 1) - 1
