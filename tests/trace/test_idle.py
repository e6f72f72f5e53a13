"""Idle time in traces: made-up engines of every kind, traces of our own, and files that hold no trace."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_trace import made, traced

from acb_minimal.errors import InputError
from acb_minimal.measure.profile import bubble_share, kernel_runs
from acb_minimal.run.engines import chapter_paths
from acb_minimal.trace.idle import analyse, read, render, verdict
from acb_minimal.trace.spans import Trace
from acb_minimal.trace.torch_profiler import NOTHING, Report

LATENCY = 4  # us from a launch to its start on an idle GPU


class Tape:
    """What torch's profiler would write of host threads and GPUs, in microseconds.

    now     the host's time; every method moves it on
    runs    start and end of each kernel, by GPU
    """

    def __init__(self):
        self.now, self.events, self.runs, self.free, self.correlation = 1000, [], {}, {}, 0

    def event(self, category: str, name: str, start: float, end: float, pid=77, tid=1, **args) -> None:
        place = {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": start, "dur": end - start}
        self.events.append({**place, "args": args})

    def host(self, name: str, length: float, category="cpu_op", tid=1) -> None:
        self.event(category, name, self.now, self.now + length, tid=tid)
        self.now += length

    def call(self, name: str, length: float, category="cuda_runtime", tid=1) -> int:
        self.correlation += 1
        self.event(category, name, self.now, self.now + length, tid=tid, correlation=self.correlation, cbid=211)
        return self.correlation

    def on_gpu(self, category: str, name: str, start: float, end: float, number: int, gpu=0, stream=7) -> None:
        self.event(category, name, start, end, gpu, stream, device=gpu, stream=stream, correlation=number)
        if category == "kernel":
            self.runs.setdefault(gpu, []).append((start, end))

    def launch(self, *lengths: float, took=5, call="cudaLaunchKernel", gpu=0, tid=1) -> None:
        """One call that launches kernels, which run one after the other once the GPU is free."""
        number, start = self.call(call, took, tid=tid), self.now + LATENCY
        for length in lengths:
            start = max(start, self.free.get(gpu, 0))
            self.free[gpu] = start + length
            self.on_gpu("kernel", "gemm", start, self.free[gpu], number, gpu)
        self.now += took

    def graph(self, *lengths: float, **options) -> None:
        self.launch(*lengths, call="cudaGraphLaunch", **options)

    def download(self, gpu=0, tid=1, name="Memcpy DtoH (Device -> Pinned)") -> float:
        """Launches a copy of what the GPU has computed by then, and says when it ends; the host does not wait."""
        number, start = self.call("cudaMemcpyAsync", 3, tid=tid), max(self.now + LATENCY, self.free.get(gpu, 0) + 1)
        self.on_gpu("gpu_memcpy", name, start, start + 2, number, gpu, stream=9)
        self.now += 3
        return start + 2

    def wait(self, until: float, name="cudaStreamSynchronize", tid=1) -> None:
        """A call that returns at `until`, or 1 us after it began."""
        until = max(until, self.now + 1)
        self.call(name, until - self.now, tid=tid)
        self.now = until

    def report(self) -> Report:
        (report,) = analyse(self.events)
        check(report, self.runs[0])
        return report


def check(report: Report, runs: list[tuple[float, float]]) -> None:
    """Kernels and gaps are those of `runs` (us), found the slow way, and add up to the window."""
    start, end = min(start for start, _ in runs), max(end for _, end in runs)
    edges = sorted({edge for run in runs for edge in run})
    pieces = [(a, b, any(s <= a and b <= e for s, e in runs)) for a, b in pairwise(edges)]
    assert report.window == pytest.approx((end - start) / 1e6)
    assert report.kernel_seconds == pytest.approx(sum(b - a for a, b, runs in pieces if runs) / 1e6)
    idle = [report.bubbles, report.launch_gaps, report.device_gaps]
    assert sum(each.count for each in idle) == sum(not runs for _, _, runs in pieces)
    assert report.kernel_seconds + sum(each.seconds for each in idle) == pytest.approx(report.window, abs=1e-12)
    assert report.kernels == len(runs)


def us(seconds: float) -> float:
    return pytest.approx(1e6 * seconds, abs=1e-3)


def sync(steps=5, eager=True, bookkeeping=300, kernels=10, length=20, took=5, tape=None) -> Tape:
    tape = tape or Tape()
    for _ in range(steps):
        tape.host("schedule", bookkeeping, "user_annotation")
        if eager:
            for _ in range(kernels):
                tape.launch(length, took=took)
        else:
            tape.graph(*[length] * kernels)
        tape.wait(tape.download())
    return tape


def asynchronous(steps=5, eager=True, bookkeeping=30, kernels=10, length=20, took=5, waiter=1) -> Tape:
    """N + 1 is launched before N is waited for."""
    tape, downloaded = Tape(), None
    for _ in range(steps):
        tape.host("schedule", bookkeeping)
        if eager:
            for _ in range(kernels):
                tape.launch(length, took=took)
        else:
            tape.graph(*[length] * kernels)
        downloaded, before = tape.download(), downloaded
        if before:
            tape.wait(before, "cudaEventSynchronize", tid=waiter)
    return tape


@pytest.mark.parametrize("eager", [True, False])
def test_a_synchronous_engine_has_a_bubble_before_every_batch_but_the_first(eager):
    report = sync(eager=eager).report()
    # The copy starts 1 us after the last kernel and takes 2, then come bookkeeping and the latency of a launch.
    assert (report.bubbles.count, us(report.bubbles.seconds)) == (4, 4 * (1 + 2 + 300 + LATENCY))
    assert report.launch_gaps.count == report.device_gaps.count == 0
    assert report.batches == 5
    assert report.told_apart == "copies to the host and waits"
    assert "307.0 us a step" in verdict(report)
    assert "bookkeeping is not overlapped" in verdict(report)


def test_a_synchronous_engine_bound_by_launches_has_both_kinds_of_gaps():
    report = sync(length=6, took=10).report()
    assert (report.bubbles.count, us(report.bubbles.seconds)) == (4, 4 * (300 + 3 + 3 + LATENCY))
    assert (report.launch_gaps.count, us(report.launch_gaps.seconds)) == (5 * 9, 5 * 9 * 4)
    assert report.batches == 5


def test_an_asynchronous_engine_bound_by_launches_idles_inside_batches():
    report = asynchronous(length=6, took=10).report()
    assert (report.launch_gaps.count, us(report.launch_gaps.seconds)) == (5 * 9, 5 * 9 * 4)
    assert (report.bubbles.count, us(report.bubbles.seconds)) == (4, 4 * (30 + 3 + 1 + LATENCY) - 1)
    assert report.batches == 5
    assert "CUDA graphs would help" in verdict(report)
    assert "overlap cannot hide that before launches are fast" in verdict(report)


def test_an_asynchronous_engine_with_graphs_has_nothing_left_to_win():
    report = asynchronous(eager=False).report()
    assert (report.busy, report.batches) == (1.0, 5)
    assert verdict(report) == "GPU busy 100.0%: nothing left for overlap to win."
    assert report.largest == []


def test_a_thread_that_waits_does_not_end_the_batches_of_the_thread_that_launches():
    tape = asynchronous(length=6, took=10)
    expected = tape.report()
    for start in range(1000, int(tape.now), 37):
        tape.event("cuda_runtime", "cudaEventSynchronize", start - 30, start, tid=2)
    report = tape.report()
    assert (report.gaps(), report.batches) == (expected.gaps(), expected.batches)


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


def test_waits_of_any_thread_tell_batches_apart_where_nothing_is_copied_to_the_host():
    tape = Tape()
    for _ in range(5):
        tape.now += 300
        tape.graph(20, 20)
        tape.wait(tape.free[0], tid=2)
    report = tape.report()
    assert (report.bubbles.count, report.batches, report.told_apart) == (4, 5, "waits")


@pytest.mark.parametrize("name", ["cudaMemcpy", "cudaDeviceSynchronize", "cuStreamSynchronize", "hipEventSynchronize"])
def test_every_call_that_waits_ends_a_batch(name):
    tape = Tape()
    for _ in range(3):
        tape.graph(20)
        tape.wait(tape.free[0], name)
    assert tape.report().bubbles.count == 2


@pytest.mark.parametrize("name", ["cudaMemcpyAsync", "cudaStreamWaitEvent", "cudaEventRecord", "cudaMalloc"])
def test_a_call_that_does_not_wait_ends_none(name):
    tape = Tape()
    for _ in range(3):
        tape.graph(20)
        tape.wait(tape.free[0], name)
    report = tape.report()
    assert (report.bubbles.count, report.launch_gaps.count) == (0, 2)
    assert (report.batches, report.told_apart) == (None, "nothing")
    assert "nothing tells batches apart" in verdict(report)


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
    assert (report.bubbles.count, report.batches, report.told_apart) == (3, 4, "copies to the host and waits")


def test_a_gap_before_work_that_was_queued_is_the_devices_own():
    tape = Tape()
    for start in (2000, 2100, 2151.5):
        number = tape.call("cudaLaunchKernel", 5)
        tape.now += 5
        tape.on_gpu("kernel", "gemm", start, start + 50, number)
    report = tape.report()
    assert (report.device_gaps.count, us(report.device_gaps.seconds)) == (2, 51.5)
    assert "not the host's doing" in verdict(report)


@pytest.mark.parametrize(("ahead", "kind"), [(9, "launch gap"), (11, "device gap")])
def test_a_launch_that_was_still_on_its_way_was_not_queued(ahead, kind):
    tape = Tape()
    tape.graph(200)
    tape.now = tape.free[0] - ahead - 5
    number = tape.call("cudaLaunchKernel", 5)
    tape.on_gpu("kernel", "gemm", tape.free[0] + 6, tape.free[0] + 10, number)
    assert [gap.kind for gap in tape.report().largest] == [kind]


def test_a_gap_between_kernels_of_one_graph_is_the_devices_own_even_while_it_is_being_launched():
    tape = Tape()
    number = tape.call("cudaGraphLaunch", 500)
    for start in (1010, 1100, 1200):
        tape.on_gpu("kernel", "gemm", start, start + 50, number)
    report = tape.report()
    assert report.device_gaps.count == 2


def test_a_gap_of_less_than_two_microseconds_is_the_devices_own():
    tape = Tape()
    for length in (1.5, 2.5):
        tape.launch(20)
        tape.now = tape.free[0] + length - LATENCY
    tape.launch(20)
    report = tape.report()
    assert (us(report.device_gaps.seconds), us(report.launch_gaps.seconds)) == (1.5, 2.5)


def test_only_work_keeps_the_gpu_active():
    tape = sync(steps=1, eager=False)
    runs, end = tape.runs[0], int(tape.free[0])
    for name in ("Memcpy HtoD (Pinned -> Device)", "Memcpy DtoH (Device -> Pageable)"):
        tape.on_gpu("gpu_memcpy", name, end + 100, end + 200, 0)
    tape.on_gpu("gpu_user_annotation", "step", end - 50, end + 200, 0)
    tape.on_gpu("cuda_sync", "Stream Sync", end, end + 200, 0)
    assert tape.report().busy == 1.0
    tape.on_gpu("gpu_memcpy", "Memcpy DtoD (Device -> Device)", end, end + 100, 0)
    tape.on_gpu("gpu_memset", "Memset (Device)", end + 100, end + 110, 0)
    tape.runs[0] = [*runs, (end, end + 100), (end + 100, end + 110)]
    assert tape.report().busy == 1.0


def test_without_launches_batches_are_told_apart_by_when_copies_run():
    tape = sync()
    expected = tape.report()
    tape.events = [event for event in tape.events if event["cat"] in ("kernel", "gpu_memcpy")]
    for event in tape.events:
        del event["args"]["correlation"]
    report = tape.report()
    assert (report.bubbles, report.batches, report.assumed) == (expected.bubbles, 5, 1.0)
    assert [name for gap in report.largest for name, _ in gap.host] == [NOTHING] * 4


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
    assert (report.device_gaps.count, report.assumed) == (2, pytest.approx(1 / 3))
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
    first, second = analyse(tape.events)
    assert (first.gpu, second.gpu) == ("GPU 0", "GPU 1")
    check(first, tape.runs[0])
    check(second, tape.runs[1])
    assert (first.batches, first.bubbles.count) == (5, 4)
    assert us(second.launch_gaps.seconds) == 2 * (500 + LATENCY)  # GPU 1 has no copies, and nothing waits


def test_times_of_nanoseconds_survive_timestamps_since_the_epoch():
    tape = sync()
    expected = tape.report()
    for event in tape.events:
        event["ts"] += 4_367_851_780_497
    assert tape.report() == expected


@pytest.mark.parametrize("backwards", [False, True])
def test_what_the_host_did_in_a_gap_is_the_innermost_event_of_each_thread(backwards):
    tape = Tape()
    tape.graph(20)
    tape.wait(tape.free[0])
    start = tape.now
    tape.event("python_function", "engine.py(7): step", start - 5, start + 100)
    tape.event("python_function", "run.py(1): main", start - 5, start + 101)
    tape.event("user_annotation", "schedule", start + 10, start + 70)
    tape.event("cpu_op", "aten::empty", start + 20, start + 25)
    tape.event("cpu_op", "aten::empty", start + 30, start + 35)
    tape.event("cuda_runtime", "cudaEventSynchronize", start + 90, start + 115, tid=2)
    tape.now = start + 150
    tape.graph(20)
    if backwards:
        tape.events.reverse()
    (gap,) = tape.report().largest
    assert gap.kind == "bubble"
    assert us(gap.seconds) == 150 + LATENCY
    assert [(name, us(seconds)) for name, seconds in gap.host] == [
        ("schedule", 50),
        ("engine.py(7): step", 40),
        (NOTHING, 35),  # from 115 to the launch at 150
    ]


def test_a_gap_is_where_perfetto_shows_it():
    tape = sync(steps=2)
    tape.event("Trace", "PyTorch Profiler (0)", 500, 9000, "Spans", "PyTorch Profiler")
    (gap,) = tape.report().largest
    assert us(gap.start) == tape.runs[0][9][1] - 500


def test_the_largest_gaps_come_first():
    tape = Tape()
    for pause in (100, 700, 300, 200, 600, 400, 500):
        tape.graph(20)
        tape.wait(tape.free[0])
        tape.now += pause
    tape.graph(20)
    lengths = [1e6 * gap.seconds - LATENCY for gap in tape.report().largest]
    assert lengths == pytest.approx([700, 600, 500, 400, 300])


def test_one_gap_that_outweighs_all_others_is_pointed_out():
    tape = sync()
    assert "was there work to do" not in verdict(tape.report())
    tape.now += 10_000
    assert "one gap of 10.3" in verdict(sync(tape=tape).report())


@given(
    st.lists(
        st.tuples(
            st.integers(0, 200),  # bookkeeping
            st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8),  # kernel, launch
        ),
        min_size=1,
        max_size=6,
    )
)
def test_bubbles_are_what_lies_between_the_batches_of_any_synchronous_engine(batches):
    tape, windows = Tape(), []
    for bookkeeping, kernels in batches:
        tape.now += bookkeeping
        before = len(tape.runs.get(0, []))
        for length, took in kernels:
            tape.launch(length, took=took)
        windows.append((tape.runs[0][before][0], tape.runs[0][-1][1]))
        tape.wait(tape.download())
    report = tape.report()
    bubbles = [start - end for (_, end), (start, _) in pairwise(windows)]
    assert (report.bubbles.count, us(report.bubbles.seconds)) == (len(bubbles), sum(bubbles))
    assert report.device_gaps.seconds <= 2e-6 * report.device_gaps.count


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
    assert all(gap.seconds > 0 for gap in report.largest)
    assert all(sum(seconds for _, seconds in gap.host) > 0 for gap in report.largest)


@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_trace_of_ours_gives_the_bubbles_that_trace_has(chapter, tmp_path):
    trace = traced(chapter, "sim")
    trace.save_chrome(tmp_path / "trace.json")
    (report,) = analyse(read(tmp_path / "trace.json")["traceEvents"])
    bubbles = trace.bubbles()
    assert report.bubbles.seconds == pytest.approx(sum(bubbles.values()), abs=1e-9)
    assert 1 - report.bubbles.seconds / report.window == pytest.approx(trace.busy(), abs=1e-9)
    assert (report.batches, report.told_apart) == (len(trace.batches()), "their numbers")
    kernels = sum(span.kernels for span in trace.lane("compute"))
    assert report.kernel_seconds == pytest.approx(kernels, abs=1e-9)
    assert report.kernel_seconds + sum(idle.seconds for idle in report.gaps().values()) == pytest.approx(report.window)
    assert [gap.seconds for gap in report.largest[:3]] == pytest.approx(sorted(bubbles.values())[:-4:-1], abs=1e-9)
    assert report.gpu == trace.device
    if chapter == "ch1_sync":
        assert {name for gap in report.largest for name, _ in gap.host} >= {"schedule", "write"}
        assert report.launch_gaps.count > 0


def test_a_trace_of_ours_without_kernel_times_does_not_show_launch_gaps():
    (report,) = analyse(made().chrome()["traceEvents"])
    assert report.launch_gaps is None
    assert (report.bubbles.count, report.bubbles.seconds) == (1, pytest.approx(2.0))
    assert report.busy == pytest.approx(made().busy())
    assert report.largest[0].host == [("schedule", pytest.approx(1.5)), (NOTHING, pytest.approx(0.5))]
    assert "not in this trace" in shown(report)


def test_batches_back_to_back_have_no_bubble():
    trace = Trace("a [/machine]")
    for number in range(4):
        trace.add("compute", "forward", number, number + 1, number)
    (report,) = analyse(trace.chrome()["traceEvents"])
    assert (report.bubbles, report.largest, report.busy) == ((0.0, 0), [], 1.0)
    assert verdict(report) == "A batch is on the GPU 100.0% of the time: nothing left for overlap to win."
    assert "a [/machine]: 4.00 s, 4 batches" in shown(report)


def shown(report: Report) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(render(report))
    return capture.get()


def test_the_report_shows_every_figure_and_names_as_they_are():
    tape = sync()
    for event in tape.events:
        event["name"] = event["name"].replace("schedule", "[bold]plan[/x]")
    text = shown(tape.report())
    for part in ("GPU 0: 2.23 ms, 5 batches", "1.00 ms", "44.9%", "1.23 ms", "55.1%", "bubble", "[bold]plan[/x]"):
        assert part in text
    assert verdict(tape.report()).split(":")[0] in text
    assert "launch of" not in text
    del tape.events[1]["args"]["correlation"]  # of the first launch
    assert "The launch of 2.0% of kernels is not in the trace" in " ".join(shown(tape.report()).split())


def trace_of(tape: Tape) -> dict:
    meta = {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}}
    instant = {"ph": "i", "name": "Iteration Start", "pid": "Traces", "tid": "Trace", "ts": 1}
    return {"schemaVersion": 1, "traceEvents": [meta, instant, *tape.events], "traceName": "x"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_trace_is_read_whatever_its_form_and_name(tmp_path, zipped, bare, name):
    tape, path = sync(), tmp_path / name
    trace = trace_of(tape)
    data = json.dumps(trace["traceEvents"] if bare else trace).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert analyse(read(path)["traceEvents"]) == [tape.report()]


def test_names_that_are_not_valid_json_do_not_spoil_a_trace(tmp_path):
    data = json.dumps(trace_of(sync())).encode().replace(b'"schedule"', b'"sche\xffdule\n"')
    (tmp_path / "trace.json").write_bytes(data)
    assert len(analyse(read(tmp_path / "trace.json")["traceEvents"])) == 1


HOST_ONLY = {"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 1}]}
OTHER = {
    "traceEvents": [
        7,
        {"ph": "X", "cat": ["x"]},
        {"ph": "X", "cat": "blink", "name": "paint", "pid": 1, "tid": 1, "ts": 1, "dur": 1},
    ]
}


NO_TRACE = {
    "empty": (b"", "is not a trace in JSON"),
    "text": (b"not JSON", "is not a trace in JSON"),
    "cut short": (b'{"traceEvents": [', "is not a trace in JSON"),
    "deep": (b"[" * 200_000, "is not a trace in JSON"),
    "empty gzip": (b"\x1f\x8b", "cut short"),
    "gzip cut short": (gzip.compress(json.dumps(trace_of(sync())).encode())[:-200], "cut short"),
    "gzip damaged": (gzip.compress(b"not JSON" * 99)[:10] + b"\xff" * 99, "damaged"),
    "gzip of text": (gzip.compress(b"not JSON"), "is not a trace in JSON"),
    "number": (b"7", "there is no trace"),
    "no events": (b'{"events": []}', "there is no trace"),
    "no list": (b'{"traceEvents": {}}', "there is no trace"),
    "empty list": (b"[]", "looked for events of category kernel"),
    "of a browser": (json.dumps(OTHER).encode(), "looked for events of category kernel"),
    "of a host": (json.dumps(HOST_ONLY).encode(), "no GPU activity"),
}


@pytest.mark.parametrize(("data", "says"), NO_TRACE.values(), ids=NO_TRACE)
def test_a_file_without_a_trace_is_an_error_of_one_line(tmp_path, data, says):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path):
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            read(path)


def test_a_trace_by_torch_of_the_cpu_alone_has_no_gpu_activity(tmp_path):
    torch = pytest.importorskip("torch")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_stack=True) as profiler:
        torch.ones(3).sum()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    with pytest.raises(InputError, match="no GPU activity"):
        read(tmp_path / "trace.json")


@pytest.mark.parametrize(
    "broken", [{"ts": None}, {"ts": "soon"}, {"ts": float("nan")}, {"dur": "long"}, {"args": [1]}, {"pid": None}]
)
def test_an_event_that_is_not_as_it_should_be_is_an_error_or_makes_no_difference(broken):
    tape = sync()
    next(event for event in tape.events if event["cat"] == "kernel").update(broken)
    if "pid" in broken:
        assert len(analyse(tape.events)) == 1
        return
    with pytest.raises(InputError, match="not as it should be"):
        analyse(tape.events)


def test_copies_alone_are_no_work(tmp_path):
    tape = Tape()
    tape.download()
    with pytest.raises(InputError, match="only copies"):
        analyse(tape.events)


@pytest.mark.parametrize(("name", "bubbles"), [("ch1_demo_h200.json.gz", 7), ("ch6_demo_h200.json.gz", 0)])
def test_a_recorded_run_agrees_with_its_breakdown(name, bubbles):
    """Eight batches on an H200 under torch's profiler, where the launches say which batch a kernel belongs to."""
    trace = read(Path(__file__).parents[1] / "data" / name)
    (report,) = analyse(trace["traceEvents"])
    runs = [run for run, _ in kernel_runs(trace, range(1000)).values()]
    assert (report.batches, report.bubbles.count) == (8, bubbles)
    assert report.bubbles.seconds / report.window == pytest.approx(bubble_share(runs), abs=0.01)
    known = sum(end - start for run in runs for start, end in run)
    assert report.kernel_seconds * (1 - report.assumed) == pytest.approx(known, rel=0.02)
