"""What torch's profiler writes: kernels found by their launches."""

import gzip
import json
from pathlib import Path

import pytest

from acb_minimal.measure.kernel_profile import launches
from acb_minimal.trace.torch_profiler import Recording, kernel_runs

DATA = Path(__file__).parents[1] / "data"
NAMES = {name: number for name, (number, _) in launches(range(1000)).items()}


def recorded(name: str) -> dict:
    """Eight batches of the workload `demo` under torch's profiler, on an H200."""
    return json.loads(gzip.open(DATA / name).read())


@pytest.mark.parametrize(
    ("name", "first", "kernels"), [("ch1_demo_h200.json.gz", 119, 187), ("ch6_demo_h200.json.gz", 123, 193)]
)
def test_kernels_are_found_by_their_launches(name, first, kernels):
    """All of the batch's kernels, whether launched one by one or in a graph; chapter 6 has six more, to carry over."""
    events = recorded(name)["traceEvents"]
    runs = kernel_runs(Recording.of(events), NAMES)
    assert list(runs) == list(range(first, first + 8))
    assert {count for _, count in runs.values()} == {kernels}
    # They ran one after another, so their union is their sum; of a batch before, no launch was recorded.
    calls = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    launched = {call["args"]["correlation"] for call in calls}
    kernels = [event for event in events if event.get("cat") in ("kernel", "gpu_memset")]
    total = sum(kernel["dur"] for kernel in kernels if kernel["args"]["correlation"] in launched)
    assert sum(end - start for run, _ in runs.values() for start, end in run) == pytest.approx(total / 1e6, rel=0.001)


def test_kernels_of_a_name_can_be_left_out():
    recording = Recording.of(recorded("ch6_demo_h200.json.gz")["traceEvents"])
    attention = {"write_kernel", "attend_kernel", "merge_kernel"}
    all_of_them, others = kernel_runs(recording, NAMES), kernel_runs(recording, NAMES, "|".join(attention))
    assert all(others[number][1] < count for number, (_, count) in all_of_them.items())
    assert kernel_runs(recording, NAMES, "ncclDevKernel") == all_of_them


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
    runs = kernel_runs(Recording.of(events), NAMES)
    assert runs == {3: ([(3.0, 4.5)], 2), 4: ([(6.0, 7.0), (8.0, 9.0)], 2)}
