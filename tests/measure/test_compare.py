"""Chapters side by side: the breakdown of a step, the runs it takes, and what is said of it."""

import gzip
import json
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure import compare as measure_compare
from acb_minimal.measure import kernel_profile, result_table
from acb_minimal.measure.compare import SAMPLE, Method, Run, _same, compare, entry, look_into, profile, serve
from acb_minimal.measure.kernel_profile import kernel_runs, sample, with_kernels
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_path, chapter_paths
from acb_minimal.run.options import Options
from acb_minimal.run.session import Completion
from acb_minimal.run.timed import BatchDone
from acb_minimal.run.workload import workload as find_workload
from acb_minimal.sim.device import CpuDevice
from acb_minimal.trace.idle import analyse, read, typical_of
from acb_minimal.trace.law import EAGER_GAP
from acb_minimal.trace.spans import Trace
from acb_minimal.trace.steps import typical_decodes
from acb_minimal.trace.torch_profiler import Recording

DATA = Path(__file__).parents[1] / "data"
DEMO = find_workload("demo")
CH1 = chapter_path("ch1")


@pytest.fixture(scope="module")
def once() -> Run:
    """Chapter 1's run of `demo`, simulated."""
    return serve(DEMO, CH1, "sim", Checkpoint("counter"), None)


def test_one_run_has_the_same_k_l_and_h_whoever_looks_at_it(tmp_path):
    """`acb compare`, `acb profile`, and `acb idle` of the trace that was saved."""
    demo, options = DEMO.override(requests=20), Options(scale=DEMO.scale, host_work=DEMO.host_work)
    first = next(compare(demo, "sim", ["ch1", "ch5"], options=options))
    done = profile("ch1", demo, "sim", options=options)
    done.trace.save_chrome(tmp_path / "trace.json")
    (report,) = analyse(read(tmp_path / "trace.json"))
    assert first.typical == done.typical == report.typical
    law, parts = report.typical.law, report.typical.parts
    assert law.on_gpu == pytest.approx(parts.kernels + parts.kernel_gaps)
    assert law.synchronous == pytest.approx(parts.step, rel=1e-3)
    assert law.host == pytest.approx(parts.bubbles, rel=1e-2)
    assert law.on_gpu > 30e-3  # it is timed as the 8B model


@pytest.mark.parametrize(("name", "chapter"), [("demo", "ch1"), ("long", "ch5"), ("demo", "ch6")])
def test_a_breakdown_adds_up_to_the_step(chapter, name):
    """By the clock of the GPU; a step by the clock of the host is as long."""
    workload = find_workload(name).override(new_tokens=48, requests=20)
    done = profile(chapter, workload, "sim")
    parts = done.breakdown
    assert parts.step == pytest.approx(done.metrics.ms_per_decode_step / 1e3, rel=0.02)
    assert min(parts.kernels, parts.kernel_gaps) > 0
    assert min(parts.launch_gaps, parts.bubbles) > -1e-9
    assert len(done.completions) == workload.requests
    assert (done.kernel_trace, parts.kernel_count, done.speedup) == (None, None, 1.0)


def test_what_cannot_be_profiled():
    with pytest.raises(InputError, match="there is no profile of device 'cpu'"):
        profile("ch1", DEMO, "cpu")
    with pytest.raises(InputError, match="there is no profile of device 'cpu'"):
        profile("ch1", DEMO, CpuDevice())
    with pytest.raises(InputError, match="request '0': max_new_tokens is 0"):
        profile("ch1", DEMO.override(new_tokens=0), "sim")


def test_without_decodes_there_is_no_breakdown():
    done = list(compare(DEMO.override(requests=2, new_tokens=1), "sim", ["ch1", "ch5"]))
    assert [(each.typical, each.breakdown) for each in done] == [(None, None)] * 2
    assert done[1].speedup is None
    cells = [next(iter(column.cells)) for column in result_table.comparison(entry(DEMO, done)).columns]
    assert cells[1:7] == ["-"] * 6


def told(chapter: str, known: int = 8) -> tuple[Trace, Recording]:
    """A made-up trace of ten batches, told what those took that were recorded on an H200: eight of `demo`.

    Args:
        known: so many of them, the last, are in the trace.
    """
    recorded = json.loads(gzip.decompress((DATA / f"{chapter}_demo_h200.json.gz").read_bytes()))
    what, first = ("replay", 123) if chapter == "ch6" else ("forward", 119)
    made_up = Trace("a GPU")
    for number in range(first - 10 + known, first + known):
        made_up.add("CPU", what, number, number + 0.1, number, "A")
        made_up.add("compute", what, number, number + 0.01, number, "A", launched=number)
    return with_kernels(made_up, json.dumps(recorded)), Recording.of(recorded["traceEvents"])


def test_a_trace_is_told_what_kernels_take_in_another_run():
    found, recording = told("ch6")
    runs = kernel_runs(recording)
    known = {span.batch_number: span for span in found.lane("compute") if span.kernels is not None}
    assert list(known) == list(range(123, 131))
    for number, span in known.items():
        run, count = runs[number, "replay"]
        assert (span.kernels, span.kernel_count) == (pytest.approx(run.seconds), count)
        assert span.kernel_gaps == pytest.approx(span.seconds - span.kernels)  # all of a graph is queued at once
    assert all(span.kernels is None for span in found.lane("CPU"))


def test_gaps_of_kernels_launched_one_by_one_are_the_gpus_own_times_their_number():
    found, _ = told("ch1")
    for span in found.lane("compute"):
        if span.kernels is not None:
            assert 0.5 * EAGER_GAP < span.kernel_gaps / span.kernel_count < 1.5 * EAGER_GAP
    parts = typical_of(found).parts
    assert parts.launch_gaps == pytest.approx(0.01 - parts.kernels - parts.kernel_gaps, rel=0.01)


def test_the_batches_shown_are_those_whose_kernels_are_known():
    done = profile("ch1", DEMO.override(new_tokens=4, requests=2), "sim")
    some, few = told("ch6")[0], told("ch6", known=3)[0]
    assert replace(done, trace=some).shown(6) == (125, 130)
    assert replace(done, trace=few).shown(6) == (123, 125)


@pytest.mark.parametrize(
    ("ms", "kept"), [([3.0], 3.0), ([5.0, 3.0, 4.0], 4.0), ([5.0, 3.0, 4.0, 6.0, 7.0], 5.0), ([None] * 3, None)]
)
def test_of_several_runs_the_median_is_kept(once, monkeypatch, ms, kept):
    gpu = SimpleNamespace(kind="cuda")
    runs = iter([replace(once, device=gpu, metrics=replace(once.metrics, ms_per_decode_step=each)) for each in ms])
    monkeypatch.setattr(measure_compare, "serve", lambda *arguments: next(runs))
    done = profile("ch1", DEMO, checkpoint=Checkpoint("counter"), method=Method(len(ms), kernels=False))
    assert done.metrics.ms_per_decode_step == kept
    assert done.run_steps == [once.metrics.seconds if each is None else each / 1e3 for each in ms]
    assert next(runs, None) is None


def test_chapters_run_in_turns_and_all_of_them_before_any_is_profiled(once, monkeypatch):
    gpu, events, said = SimpleNamespace(kind="cuda"), [], []
    profiled = look_into([once], DEMO, CH1, Checkpoint("counter"), Method())

    def served(workload, chapter, device, checkpoint, options, progress):
        events.append((Path(chapter).stem, options))
        progress("warms up")
        return replace(once, device=gpu, options="what the first could have")

    def looked_into(runs, workload, chapter, checkpoint, method, process, first):
        events.append((chapter.stem, len(runs), process is not None))
        return profiled

    monkeypatch.setattr(measure_compare, "serve", served)
    monkeypatch.setattr(measure_compare, "look_into", looked_into)
    monkeypatch.setattr(measure_compare, "apart", lambda: nullcontext("a process"))
    chapters = ["ch1", "ch6", "ch1"]
    done = compare(DEMO, "cuda", chapters, Checkpoint("counter"), progress=said.append, method=Method(runs=3))
    assert len(list(done)) == 3
    turn = ["ch1_sync", "ch6_cuda_graphs", "ch1_sync"]
    asked = [None, *["what the first could have"] * 8]
    assert events == [*zip(turn * 3, asked, strict=True), *((name, 3, True) for name in turn)]
    assert said[4] == "ch6_cuda_graphs, run 2 of 3: warms up"
    assert said[9:] == [f"{name} under torch's profiler" for name in turn]
    said.clear()
    list(compare(DEMO, "cuda", ["ch1"], Checkpoint("counter"), progress=said.append, method=Method(kernels=False)))
    assert said == ["ch1_sync warms up"]
    assert events[-1] == ("ch1_sync", 1, False)


def late(once: Run, slow: range) -> Run:
    """A run whose host took a second longer for these batches."""
    more = accumulate(float(number in slow) for number in range(len(once.done)))
    done = [step._replace(time=step.time + seconds) for step, seconds in zip(once.done, more, strict=True)]
    return replace(once, device=SimpleNamespace(kind="cuda"), done=done)


def test_ranks_run_the_batches_under_the_profiler_that_are_typical_of_the_first(once, monkeypatch):
    """Both have the same batches, in times of their own."""
    words, asked = [], []
    monkeypatch.setattr(measure_compare, "profiled", lambda *each: asked.append(each[2]))
    monkeypatch.setattr(measure_compare, "with_kernels", lambda trace, *_: trace)
    for rank, slow in enumerate((range(40, 90), range(10, 60))):
        ranks = SimpleNamespace(rank=rank, exchange=lambda own: (words.append(own), words)[1])
        checkpoint = SimpleNamespace(ranks=ranks, model="counter")
        look_into([late(once, slow)], DEMO, CH1, checkpoint, Method(batches=4), "a process")
    assert words[0] != words[1]
    assert asked == [range(*map(int, words[0].split()))] * 2


def steps_of(times: list[float]) -> list[BatchDone]:
    """A batch with a prompt, and batches of decodes with these times between them."""
    return [BatchDone(end, 2, 2, number > 0) for number, end in enumerate(accumulate(times, initial=0.0))]


def test_a_sample_is_in_a_row_nearest_to_the_median_and_from_the_middle_half():
    slow_in_the_middle = [1.0] * 20 + [1.5] * 12 + [1.2, 1.1, 1.01, 1.02, 1.01, 1.3] + [1.01] * 12
    steps = steps_of(slow_in_the_middle)  # median 1.01 of batches 2 to 50, since 1 has a prompt before it
    assert (sample(steps, 3), sample(steps, 1)) == (range(35, 38), range(35, 36))
    at_first = steps_of([1.0] * 12 + [1.4] * 4 + [1.6] * 4)  # 19 batches, from 2 on; the median is 1.0
    assert (sample(at_first, 4), sample(at_first, 10)) == (range(6, 10), range(6, 16))
    few = steps_of([1.0] * 2 + [1.5] * 2 + [1.0] * 6)  # batches 2 to 10: the middle half has not so many
    assert (sample(few, 5), sample(few, 6), sample(few, 24)) == (range(4, 9), range(5, 11), range(2, 11))


def test_a_sample_has_no_batch_with_prompts_in_it_where_so_many_decodes_are_in_a_row():
    """They are in rows of 3, 3 and 6, and those with prompts take as long."""
    steps = [BatchDone(float(number), 2, 2, number not in (0, 6, 12)) for number in range(20)]
    assert typical_decodes(steps) == [2, 3, 4, 8, 9, 10, 14, 15, 16, 17, 18, 19]
    assert [sample(steps, count) for count in (3, 6)] == [range(8, 11), range(14, 20)]


@pytest.mark.parametrize("runs", [0, -1, 2])
def test_some_run_is_in_the_middle(runs):
    with pytest.raises(InputError, match=f"runs is {runs}; it must be an odd number"):
        Method(runs=runs)


def test_same_is_the_share_of_tokens_that_agree_place_by_place():
    def answers(*tokens):
        return [Completion(str(number), list(ids), None, "length") for number, ids in enumerate(tokens)]

    assert _same(answers([1, 2], [3]), answers([1, 2], [3])) == 1
    assert _same(answers([1, 2], [3, 4]), answers([1, 9], [3, 4])) == 3 / 4
    assert _same(answers([1, 2, 3]), answers([1, 2])) == 2 / 3


@pytest.mark.gpu
def test_chapters_are_compared_with_one_process_to_profile_in(monkeypatch):
    processes = []
    apart = kernel_profile.apart
    monkeypatch.setattr("acb_minimal.measure.compare.apart", lambda: processes.append(apart()) or processes[-1])
    done = list(compare(DEMO, "cuda", ["ch1", "ch6"], checkpoint=Checkpoint("counter")))
    assert [each.breakdown.kernel_count > 100 for each in done] == [True, True]
    assert len(processes) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_profile_on_the_gpu(chapter):
    done = profile(chapter, DEMO, "cuda", Checkpoint("counter"))
    parts = done.breakdown
    assert parts.kernel_count > 100
    assert parts.kernel_gaps > 0
    runs = kernel_runs(Recording.of(json.loads(done.kernel_trace)["traceEvents"]))
    assert len({number for number, _ in runs}) == SAMPLE
    first, last = done.shown(6)
    assert all(span.kernels for span in done.trace.part(first, last).lane("compute"))
