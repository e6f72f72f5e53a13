"""Reports on whole traces: of ours, recorded ones, and those with events that are not as they should be."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from tape import sync

from acb_minimal.errors import InputError
from acb_minimal.measure.kernel_profile import kernel_runs
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload
from acb_minimal.trace import tables
from acb_minimal.trace.host import NOTHING
from acb_minimal.trace.idle import Report, analyse, read
from acb_minimal.trace.spans import Trace
from acb_minimal.trace.torch_profiler import Recording

DATA = Path(__file__).parents[1] / "data"


def simulated(chapter: str) -> Trace:
    load = workload("demo").override(requests=20, new_tokens=24)
    session = Session(load.job(512), chapter, load.model, "sim", trace=True)
    session.serve()
    return session.trace


@pytest.mark.parametrize("chapter", ["ch1_sync", "ch4_dual_slots", "ch6_cuda_graphs"])
def test_a_trace_of_ours_gives_the_bubbles_that_trace_has(chapter, tmp_path):
    trace = simulated(chapter)
    trace.save_chrome(tmp_path / "trace.json")
    (report,) = analyse(read(tmp_path / "trace.json"))
    bubbles = trace.bubbles()
    assert report.bubbles.seconds == pytest.approx(sum(bubbles.values()), abs=1e-6)
    assert 1 - report.bubbles.seconds / report.window == pytest.approx(trace.active(), abs=1e-6)
    assert (report.batches, report.gpu.segments.by) == (len(trace.batches()), "their numbers")
    for part, seconds in (("kernels", report.kernel_seconds), ("kernel_gaps", report.kernel_gaps.seconds)):
        assert seconds == pytest.approx(sum(getattr(span, part) for span in trace.lane("compute")), abs=1e-6)
    idle = report.bubbles.seconds + report.launch_gaps.seconds + report.kernel_gaps.seconds
    assert report.kernel_seconds + idle == pytest.approx(report.window)
    assert report.name == trace.device
    if chapter == "ch1_sync":
        assert {doing.name for doing in report.doing} >= {"schedule", "write"}


def made(known: range = range(0)) -> Trace:
    """Six batches of 3 s with bubbles of 2 s between them, in which the host schedules for 1.5 s; of those that are
    known, kernels run for 2 s and are 0.5 s apart."""
    trace = Trace("a [/machine]")
    for number in range(6):
        start, parts = 5.0 * number, (2.0, 0.5) if number in known else ()
        trace.add("CPU", "schedule", start, start + 1.5, number)
        trace.add("CPU", "forward", start + 1.9, start + 2.0, number, "A")
        trace.add("compute", "forward", start + 2.0, start + 5.0, number, "A", start + 1.9, *parts)
        trace.add("CPU", "wait", start + 2.0, start + 5.0)
    return trace


def of_ours(trace: Trace) -> Report:
    (report,) = analyse(Recording.of(trace.events()))
    return report


def test_a_trace_of_ours_without_kernel_times_does_not_show_launch_gaps():
    report = of_ours(made())
    assert (report.launch_gaps, report.kernel_gaps, report.typical.parts) == (None, None, None)
    assert (report.bubbles.count, report.bubbles.seconds) == (5, pytest.approx(10.0))
    assert report.kernel_seconds / report.window == pytest.approx(made().active())
    doing = {each.name: each.seconds for each in report.doing}
    expected = {"schedule": 1.5, NOTHING: 0.4, "cudaLaunchKernel": 0.1}
    assert doing == {name: pytest.approx(seconds) for name, seconds in expected.items()}
    assert report.verdict.kind == "synchronous"
    text = shown(report)
    assert "not in this trace" in text
    assert "launch gaps" not in text.split("Typical")[1]
    assert "GPU 0: 28.00 s, 6 batches" in text


def test_where_the_kernels_of_some_batches_are_known_they_stand_for_all():
    """As in the trace that `acb profile --trace` writes on a GPU, where a few ran under torch's profiler."""
    report = of_ours(made(range(3, 5)))
    assert (report.launch_gaps, report.kernel_gaps) == (None, None)
    parts = report.typical.parts
    found = (parts.kernels, parts.kernel_gaps, parts.launch_gaps, parts.bubbles)
    assert found == pytest.approx((2.0, 0.5, 0.5, 2.0))
    assert report.typical.law.on_gpu == pytest.approx(2.5)
    assert report.typical.exposed == pytest.approx(2.5 / 5)


def test_a_window_leaves_out_what_is_outside():
    tape = sync(8)
    whole, zero = tape.report(), tape.runs[0][0][0] - 300
    (report,) = analyse(Recording.of(tape.events), 0.5e-3, (tape.runs[0][50][0] - zero - 1) / 1e6)
    assert report.batches == 4
    assert report.typical.step == whole.typical.step
    with pytest.raises(InputError, match="no kernel runs in this trace from 7 to 8 s"):
        analyse(Recording.of(tape.events), 7, 8)
    (report,) = analyse(Recording.of(made().events()), 4.0, 16.0)
    assert report.batches == 2


def shown(report: Report, width=140) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(tables.render(report))
    return capture.get()


def test_the_report_shows_every_figure_and_names_as_they_are():
    tape = sync(8)
    for event in tape.events:
        event["name"] = event["name"].replace("schedule", "[bold]plan[/x]")
    text = shown(tape.report())
    for part in ("GPU 0: 3.75 ms, 8 batches", "0.507 ms", "60.6%", "[bold]plan[/x]", tape.report().verdict.text):
        assert part in " ".join(text.split())
    assert "launch of" not in text
    del tape.events[1]["args"]["correlation"]  # of the first launch
    assert "The launch of 1.2% of kernels is not in the trace" in " ".join(shown(tape.report()).split())


@pytest.mark.parametrize("long", [False, True])
def test_eighty_columns_hold_every_number_whole(long):
    tape = sync(8)
    if long:
        for event in tape.events:
            event["name"] = event["name"].replace("schedule", "schedule" * 30)
            event["ts"], event["dur"] = 1e6 * event["ts"], 1e6 * event["dur"]
    (report,) = analyse(Recording.of(tape.events))
    narrow, wide = (shown(report, width) for width in (80, 400))
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    numbers = [word for word in wide.split() if any(char.isdigit() for char in word)]
    assert set(numbers) <= set(narrow.split())


def test_the_slowest_of_several_gpus_is_the_one_that_the_others_wait_for():
    """All of them take as long for a step; the others spend it in the kernel that talks, alone."""
    tape = sync(8, eager=False)
    for event in list(tape.events):
        if event["cat"] == "kernel":
            start, number = event["ts"], event["args"]["correlation"]
            tape.on_gpu("kernel", "ncclKernel_AllReduce" if start % 3 else "gemm", start, start + 20, number, 1)
        if event["cat"] == "gpu_memcpy":
            copy = {**event, "pid": 1, "args": {**event["args"], "device": 1}}
            tape.events.append(copy)
    reports = analyse(Recording.of(tape.events))
    assert reports[0].typical.step == reports[1].typical.step
    assert reports[0].typical.alone == 0 < reports[1].typical.alone
    assert tables.slowest(reports) is reports[0]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tables.side_by_side(["rank 0", "rank 1"], reports))
    assert "Slowest: rank 0" in capture.get()


def test_of_a_trace_that_lacks_kernels_no_figure_is_shown():
    tape = sync(20)
    tape.events = [each for number, each in enumerate(tape.events) if each["cat"] != "kernel" or number % 20]
    (report,) = analyse(Recording.of(tape.events))
    text = " ".join(shown(report).split())
    assert text.startswith("GPU 0, no verdict from this trace: events are lost")
    assert "%" not in text
    with pytest.raises(InputError, match="nothing to compare: events are lost"):
        tables.compare(sync(8).report(), report)


RECORDED = {
    "ch1_demo_h200.json.gz": (7, "launch-bound", 0.0),
    "ch6_demo_h200.json.gz": (0, "busy", 1.0),
}


@pytest.mark.parametrize(("name", "bubbles", "kind", "ahead"), [(name, *facts) for name, facts in RECORDED.items()])
def test_a_recorded_run_agrees_with_its_breakdown(name, bubbles, kind, ahead):
    """Eight batches on an H200 under torch's profiler, where the launches say which batch a kernel belongs to."""
    recording = read(DATA / name)
    (report,) = analyse(recording)
    runs = defaultdict(list)
    for (number, _), (run, _) in kernel_runs(recording).items():
        runs[number] += [(start / 1e9, end / 1e9) for start, end in run.edges()]
    runs = [sorted(run) for run in runs.values()]
    assert (report.batches, report.bubbles.count) == (8, bubbles)
    idle = sum(max(after[0][0] - before[-1][1], 0.0) for before, after in pairwise(runs))
    assert report.bubbles.seconds / report.window == pytest.approx(idle / (runs[-1][-1][1] - runs[0][0][0]), abs=0.01)
    known = sum(end - start for run in runs for start, end in run)
    assert report.kernel_seconds * (1 - report.assumed) == pytest.approx(known, rel=0.02)
    assert (report.verdict.kind, report.typical.ahead) == (kind, ahead)
    ends = [run[-1][1] for run in runs]
    steps = [1e-9 * step.length for step in report.steps][-len(ends) + 1 :]
    assert steps == pytest.approx([after - before for before, after in pairwise(ends)], abs=1e-8)
