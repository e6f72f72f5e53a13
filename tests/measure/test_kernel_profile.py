"""Kernels under torch's profiler, found by their launches."""

from acb_minimal.measure.kernel_profile import kernel_runs
from acb_minimal.trace.torch_profiler import Recording


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
        event("kernel", "launched before", 0.5, 0.5, args={"correlation": 5}),
    ]
    for each in events:
        each.get("args", {}).update(device=0, stream=7) if each["cat"] in ("kernel", "gpu_memcpy") else None
    zero = events[0]["ts"] / 1e6 - 0.5  # what is first, the kernel that was launched before, is at 0
    found = {key: ([*run.edges()], count) for key, (run, count) in kernel_runs(Recording.of(events)).items()}
    at = {key: [(start / 1e9 + zero, end / 1e9 + zero) for start, end in run] for key, (run, _) in found.items()}
    assert at == {(3, "forward"): [(3.0, 4.5)], (4, "replay"): [(6.0, 7.0), (8.0, 9.0)]}
    assert [count for _, count in found.values()] == [2, 2]
