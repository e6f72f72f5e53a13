"""Profiles: the breakdown of a step, and kernels found in what torch's profiler writes."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acb_minimal.errors import InputError
from acb_minimal.measure.profile import SAMPLE, bubble_share, kernel_runs, merged, profile
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.workload import workload as find_workload
from acb_minimal.sim.device import CpuDevice

DATA = Path(__file__).parents[1] / "data"


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


def recorded(name: str) -> dict:
    """Eight batches of the workload `demo` under torch's profiler, on an H200."""
    return json.loads(gzip.open(DATA / name).read())


@pytest.mark.parametrize(
    ("name", "first", "kernels"), [("ch1_demo_h200.json.gz", 119, 187), ("ch6_demo_h200.json.gz", 123, 193)]
)
def test_kernels_are_found_by_their_launches(name, first, kernels):
    """All of the batch's kernels, whether launched one by one or in a graph; chapter 6 has six more, to carry over."""
    events = recorded(name)
    runs = kernel_runs(events, range(1000))
    assert list(runs) == list(range(first, first + 8))
    assert {count for _, count in runs.values()} == {kernels}
    # They ran one after another, so their union is their sum; of a batch before, no launch was recorded.
    found = {cat: [e for e in events["traceEvents"] if e.get("cat") == cat] for cat in ("cuda_runtime", "cuda_driver")}
    launched = {call["args"]["correlation"] for calls in found.values() for call in calls}
    kernels = [e for e in events["traceEvents"] if e.get("cat") in ("kernel", "gpu_memset")]
    total = sum(kernel["dur"] for kernel in kernels if kernel["args"]["correlation"] in launched)
    assert sum(end - start for run, _ in runs.values() for start, end in run) == pytest.approx(total / 1e6, rel=0.001)


def test_a_recorded_run_shows_its_bubbles():
    share = {
        name: bubble_share([run for run, _ in kernel_runs(recorded(name), range(1000)).values()])
        for name in ("ch1_demo_h200.json.gz", "ch6_demo_h200.json.gz")
    }
    assert share["ch1_demo_h200.json.gz"] > 0.05 > 0.01 > share["ch6_demo_h200.json.gz"] > 0


def event(cat: str, name: str, start: float, seconds: float, **details) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": 1e6 * start, "dur": 1e6 * seconds, **details}


def test_a_kernel_belongs_to_the_batch_that_launched_it():
    """However late it runs; and one that no batch launched, or whose launch was not recorded, belongs to none."""
    events = [
        event("user_annotation", "forward of batch 3", 1.0, 1.0, tid=7),
        event("user_annotation", "upload of batch 4", 2.1, 0.1, tid=7),
        event("user_annotation", "replay of batch 4", 2.5, 0.5, tid=7),
        event("cuda_runtime", "cudaLaunchKernel", 1.5, 0.1, tid=7, args={"correlation": 1}),
        event("cuda_runtime", "cudaMemcpyAsync", 2.15, 0.01, tid=7, args={"correlation": 2}),
        event("cuda_driver", "cuLaunchKernel", 2.6, 0.1, tid=7, args={"correlation": 3}),
        event("cuda_runtime", "cudaLaunchKernel", 2.6, 0.1, tid=8, args={"correlation": 4}),
        event("cuda_runtime", "cudaLaunchKernel", 2.05, 0.01, tid=7, args={"correlation": 6}),
        event("kernel", "matmul", 3.0, 1.0, args={"correlation": 1}),
        event("kernel", "add", 3.5, 1.0, args={"correlation": 1}),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 4.0, 1.0, args={"correlation": 2}),
        event("kernel", "matmul", 6.0, 1.0, args={"correlation": 3}),
        event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 8.0, 1.0, args={"correlation": 3}),
        event("kernel", "another thread's", 9.0, 1.0, args={"correlation": 4}),
        event("kernel", "launched between two batches", 2.1, 0.5, args={"correlation": 6}),
        event("kernel", "launched before", 0.0, 1.0, args={"correlation": 5}),
    ]
    runs = kernel_runs({"traceEvents": events}, range(10))
    assert runs == {3: ([(3.0, 4.5)], 2), 4: ([(6.0, 7.0), (8.0, 9.0)], 2)}
    assert bubble_share([run for run, _ in runs.values()]) == pytest.approx(1.5 / 6)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair)))))
def test_a_union_covers_what_its_parts_cover_and_nothing_twice(stretches):
    union = merged(stretches)
    assert union == sorted(union)
    assert sum(end - start for start, end in union) == len({t for start, end in stretches for t in range(start, end)})


@pytest.mark.gpu
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_profile_on_the_gpu(chapter):
    done = profile(chapter, find_workload("demo"), "cuda", Checkpoint("counter"))
    parts = done.breakdown
    assert parts.kernels + parts.launch_gaps + parts.bubbles == pytest.approx(parts.step, rel=0.02)
    assert parts.kernel_count > 100
    assert len(kernel_runs(done.kernel_trace, range(1000))) == SAMPLE
    assert 0 <= done.profiled_bubbles < 1
