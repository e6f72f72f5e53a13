"""Profiles: the breakdown of a step."""

import json
from concurrent.futures import Executor, Future
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure import compare as measure_compare
from acb_minimal.measure import kernel_profile, tables
from acb_minimal.measure import profile as measure_profile
from acb_minimal.measure.compare import Comparison, compare
from acb_minimal.measure.kernel_profile import launch_names, with_kernels
from acb_minimal.measure.metrics import Breakdown, typical_decodes, widest_decodes
from acb_minimal.measure.profile import SAMPLE, Method, Run, look_into, profile, serve
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.options import Options
from acb_minimal.run.ranks import Ranks
from acb_minimal.run.workload import workload as find_workload
from acb_minimal.sim.device import CpuDevice
from acb_minimal.trace.idle import read
from acb_minimal.trace.spans import Trace
from acb_minimal.trace.torch_profiler import Recording, kernel_runs

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def once() -> Run:
    """Chapter 1's run of `demo`, simulated."""
    return serve(find_workload("demo"), "ch1", "sim", Checkpoint("counter"), None, lambda text: None)


@pytest.mark.parametrize("chapter", chapter_paths())
@pytest.mark.parametrize("name", ["demo", "long"])
def test_a_breakdown_adds_up_to_the_step(chapter, name):
    workload = find_workload(name).override(new_tokens=64, requests=20)
    done = profile(chapter, workload, "sim")
    parts = done.breakdown
    assert parts.kernels + parts.launch_gaps + parts.bubbles == pytest.approx(parts.step, rel=0.02)
    assert parts.kernels > 0
    assert parts.launch_gaps > -1e-12
    assert len(done.completions) == workload.requests
    assert (done.kernel_trace, done.profiled_bubbles, parts.kernel_count) == (None, None, None)


def test_launches_are_what_fills_the_gaps():
    """The simulator prices them: what a batch waits for inside is what launching takes longer than its kernels."""
    workload = find_workload("long").override(new_tokens=32)
    eager, graphs = (profile(chapter, workload, "sim").breakdown for chapter in ("ch5", "ch6"))
    assert 10 * graphs.launch_gaps < eager.launch_gaps
    assert eager.launch_gaps > 5e-3
    assert graphs.kernels == pytest.approx(eager.kernels, rel=0.01)


def test_what_cannot_be_profiled():
    with pytest.raises(InputError, match="there is no profile of device 'cpu'"):
        profile("ch1", find_workload("demo"), "cpu")
    with pytest.raises(InputError, match="there is no profile of device 'cpu'"):
        profile("ch1", find_workload("demo"), CpuDevice())
    with pytest.raises(InputError, match="request '0': max_new_tokens is 0"):
        profile("ch1", find_workload("demo").override(new_tokens=0), "sim")


def test_without_decodes_there_is_no_breakdown():
    assert profile("ch1", find_workload("demo").override(requests=2, new_tokens=1), "sim").breakdown is None


def test_a_trace_is_told_the_kernel_times_of_another_run():
    """Eight batches of `demo` in chapter 6, recorded on an H200, beside a made-up trace of ten."""
    recording = read(DATA / "ch6_demo_h200.json.gz")
    runs = kernel_runs(recording, launch_names(range(123, 131)))
    made_up = Trace("a GPU")
    for number in range(121, 131):
        made_up.add("CPU", "replay", number, number + 0.1, number, "A")
        made_up.add("compute", "replay", number, number + 1, number, "A")
    found = with_kernels(made_up, recording, range(123, 131))
    known = {span.batch_number: span.kernels for span in found.lane("compute") if span.kernels is not None}
    assert list(known) == list(runs) == list(range(123, 131))
    for number, seconds in known.items():
        assert seconds == pytest.approx(sum(end - start for start, end in runs[number][0]))
    counts = {span.batch_number: span.kernel_count for span in found.lane("compute") if span.kernel_count}
    assert counts == {number: count for number, (_, count) in runs.items()}
    assert all(span.kernels is None for span in found.lane("CPU"))
    done = profile("ch1", find_workload("demo").override(new_tokens=4, requests=2), "sim")
    assert replace(done, trace=found).shown(6) == (125, 130)
    assert replace(done, trace=found).shown(3) == (126, 128)
    assert replace(done, trace=with_kernels(made_up, recording, range(123, 126))).shown(6) == (123, 125)


class Here(Executor):
    """A process that is none: what it is given runs here."""

    runs = ended = 0

    def submit(self, call, *arguments):
        self.runs += 1
        done = Future()
        done.set_result(call(*arguments))
        return done

    def shutdown(self, wait=True, **options):
        self.ended += 1


def test_several_profiles_may_share_a_process_and_ranks_may_not(monkeypatch):
    asked = []

    def written(workload, chapter, options, ranks, sample, file, operations):
        asked.append(operations)
        file.write_text("{}")

    monkeypatch.setattr(kernel_profile, "_profile", written)
    shared, own = Here(), Here()
    monkeypatch.setattr(kernel_profile, "apart", lambda: own)
    workload, ranks = find_workload("demo"), Ranks(0, 2, 0, timeout=1.0)
    monkeypatch.setattr(ranks, "again", lambda: ranks)
    for process, with_ranks in ((shared, None), (shared, None), (None, None), (shared, ranks)):
        assert kernel_profile.profiled(workload, "ch1", range(3), Options(), with_ranks, process) == "{}"
    kernel_profile.profiled(workload, "ch1", range(3), Options(), operations=False)
    assert asked == [True] * 4 + [False]
    assert (shared.runs, shared.ended) == (2, 0)
    assert (own.runs, own.ended) == (3, 3)


@pytest.mark.parametrize(
    ("ms", "kept"), [([3.0], 3.0), ([5.0, 3.0, 4.0], 4.0), ([5.0, 3.0, 4.0, 6.0, 7.0], 5.0), ([None] * 3, None)]
)
def test_of_several_runs_the_median_is_kept(once, monkeypatch, ms, kept):
    demo, gpu = find_workload("demo"), SimpleNamespace(kind="cuda")
    runs = iter([once._replace(device=gpu, figures=replace(once.figures, ms_per_decode_step=each)) for each in ms])
    monkeypatch.setattr(measure_profile, "serve", lambda *arguments: next(runs))
    done = profile("ch1", demo, checkpoint=Checkpoint("counter"), method=Method(len(ms), kernels=False))
    assert done.figures.ms_per_decode_step == kept
    assert done.run_steps == [once.figures.seconds if each is None else each / 1e3 for each in ms]
    assert next(runs, None) is None


def test_the_simulator_needs_one_run():
    assert len(profile("ch1", find_workload("demo"), "sim", method=Method(runs=3)).run_steps) == 1


def test_a_table_says_how_far_runs_differ():
    demo = find_workload("demo")
    one, other = (Comparison(profile(chapter, demo, "sim"), 1.0, 1.0) for chapter in ("ch1", "ch2"))
    said = "Of 3 runs each, the one in the middle by the step on the host's clock; a chapter's runs differ by 25.0%"
    assert said not in tables.comparison(tables.entry(demo, [one, other])).caption
    one, other = (
        replace(each, profile=replace(each.profile, run_steps=runs))
        for each, runs in ((one, [0.005, 0.004, 0.0044]), (other, [0.004, 0.004, 0.0041]))
    )
    assert said in tables.comparison(tables.entry(demo, [one, other])).caption


def test_a_gap_below_zero_is_shown_as_it_was_measured():
    demo, parts = find_workload("demo"), Breakdown(0.02583, 0.02595, -0.000114, -1e-9, 1278)
    done = Comparison(replace(profile("ch1", demo, "sim"), breakdown=parts), 1.0, 1.0)
    entry = tables.entry(demo, [done])
    row = [next(iter(column.cells)) for column in tables.comparison(entry).columns]
    assert row[1:5] == ["25.83", "25.95", "-0.11", "0.00"]
    assert "**25.83** = 25.95 + -0.11 + 0.00 |" in tables.markdown({"demo": entry})


def test_chapters_run_in_turns_and_all_of_them_before_any_is_profiled(once, monkeypatch):
    demo, gpu, events, told = find_workload("demo"), SimpleNamespace(kind="cuda"), [], []
    profiled = look_into([once], demo, "ch1", Checkpoint("counter"), None, Method())

    def served(workload, chapter, device, checkpoint, options, progress):
        events.append((Path(chapter).stem, options))
        progress("warms up")
        return once._replace(device=gpu, options="what the first could have")

    def looked_into(runs, workload, chapter, checkpoint, name, method):
        events.append((name, len(runs), method.process is not None))
        return profiled

    monkeypatch.setattr(measure_compare, "serve", served)
    monkeypatch.setattr(measure_compare, "look_into", looked_into)
    chapters = ["ch1", "ch6", "ch1"]
    done = compare(demo, "cuda", chapters, Checkpoint("counter"), progress=told.append, method=Method(runs=3))
    assert len(list(done)) == 3
    turn = ["ch1_sync", "ch6_cuda_graphs", "ch1_sync"]
    asked = [None, *["what the first could have"] * 8]
    assert events == [*zip(turn * 3, asked, strict=True), *((name, 3, True) for name in turn)]
    assert told[4] == "ch6_cuda_graphs, run 2 of 3: warms up"
    assert told[9:] == [f"{name} under torch's profiler" for name in turn]
    told.clear()
    list(compare(demo, "cuda", ["ch1"], Checkpoint("counter"), progress=told.append, method=Method(kernels=False)))
    assert told == ["ch1_sync warms up"]


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """What torch's profiler was asked for; it sees nothing."""
    asked = []
    monkeypatch.setattr(measure_profile, "profiled", lambda *each: (asked.append(each), '{"traceEvents": []}')[1])
    return asked


def on_a_gpu(once: Run, slow: range = range(0)) -> Run:
    """A run on what is called a GPU; on its host these batches took a second longer."""
    late = accumulate(float(number in slow) for number in range(len(once.steps)))
    steps = [step._replace(time=step.time + more) for step, more in zip(once.steps, late, strict=True)]
    return once._replace(device=SimpleNamespace(kind="cuda"), steps=steps)


def test_a_kernel_trace_without_operations_gives_no_breakdown(once, asked):
    method = Method(batches=3, operations=False)
    done = look_into([on_a_gpu(once)], find_workload("demo"), "ch1", Checkpoint("counter"), None, method)
    assert (done.kernel_trace, done.breakdown, done.profiled_bubbles) == ('{"traceEvents": []}', None, None)
    ((*_, sample, options, ranks, process, operations),) = asked
    assert (len(sample), operations) == (3, False)


def test_batches_that_are_typical_run_under_the_profiler(once, asked):
    method, slow = Method(batches=4, operations=False), range(70, 90)
    run = on_a_gpu(once, slow)
    assert set(slow) & set(widest_decodes(run.steps))
    look_into([run], find_workload("demo"), "ch1", Checkpoint("counter"), None, method)
    ((*_, sample, options, ranks, process, operations),) = asked
    assert sample == typical_decodes(run.steps, 4)
    assert not set(sample) & set(slow)


def test_ranks_run_the_batches_under_the_profiler_that_are_typical_of_the_first(once, asked):
    """Both have the same batches, in times of their own."""
    words = []
    for rank, slow in enumerate((range(40, 90), range(10, 60))):
        ranks = SimpleNamespace(rank=rank, exchange=lambda own: (words.append(own), words)[1])
        checkpoint = SimpleNamespace(ranks=ranks, model="counter")
        method = Method(batches=4, operations=False)
        look_into([on_a_gpu(once, slow)], find_workload("demo"), "ch1", checkpoint, None, method)
    assert words[0] != words[1]
    first, second = (each[2] for each in asked)
    assert first == second == range(*map(int, words[0].split()))


@pytest.mark.parametrize("runs", [0, -1, 2])
def test_some_run_is_in_the_middle(runs):
    with pytest.raises(InputError, match=f"runs is {runs}; it must be an odd number"):
        Method(runs=runs)


def test_some_batch_is_profiled():
    with pytest.raises(InputError, match="batches is 0; it must be 1 or more"):
        Method(batches=0)


@pytest.mark.gpu
def test_chapters_are_compared_with_one_process_to_profile_in(monkeypatch):
    processes = []
    apart = kernel_profile.apart
    monkeypatch.setattr("acb_minimal.measure.compare.apart", lambda: processes.append(apart()) or processes[-1])
    done = list(compare(find_workload("demo"), "cuda", ["ch1", "ch6"], checkpoint=Checkpoint("counter")))
    assert [each.profile.breakdown.kernel_count > 100 for each in done] == [True, True]
    assert len(processes) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_profile_on_the_gpu(chapter):
    done = profile(chapter, find_workload("demo"), "cuda", Checkpoint("counter"))
    parts = done.breakdown
    assert parts.kernels + parts.launch_gaps + parts.bubbles == pytest.approx(parts.step, rel=0.02)
    assert parts.kernel_count > 100
    runs = kernel_runs(Recording.of(json.loads(done.kernel_trace)["traceEvents"]), launch_names(range(1000)))
    assert len(runs) == SAMPLE
    first, last = done.shown(6)
    assert all(span.kernels for span in done.trace.part(first, last).lane("compute"))
    assert 0 <= done.profiled_bubbles < 1


@pytest.mark.gpu
def test_so_many_batches_are_profiled_as_are_asked_for():
    done = profile("ch1", find_workload("demo"), "cuda", Checkpoint("counter"), method=Method(batches=3))
    assert len(kernel_runs(Recording.of(json.loads(done.kernel_trace)["traceEvents"]), launch_names(range(1000)))) == 3


@pytest.mark.gpu
def test_without_operations_kernels_are_recorded_and_there_is_no_breakdown():
    method = Method(batches=3, operations=False)
    done = profile("ch1", find_workload("demo"), "cuda", Checkpoint("counter"), method=method)
    sorts = {event.get("cat") for event in json.loads(done.kernel_trace)["traceEvents"]}
    assert {"kernel", "cuda_runtime"} <= sorts
    assert "cpu_op" not in sorts
    assert (done.breakdown, done.profiled_bubbles) == (None, None)
