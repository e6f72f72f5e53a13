"""The belief: a profiler costs only while it runs."""

import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch.profiler import ProfilerActivity, profile


def launch_time():
    """Microseconds of host time to launch a kernel: the median of five times 2,000."""
    x, times = torch.zeros(1, device="cuda"), []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(2000):
            x.add_(1)
        times.append(1e6 * (time.perf_counter() - start) / 2000)
    return statistics.median(times[1:])


def launch_times(environment):
    """Of a launch before torch's profiler runs, while it records, and after it."""
    os.environ |= environment
    before = launch_time()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]):
        during = launch_time()
    launch_time()  # CUPTI, by which the profiler sees the GPU, is let go by a thread, from within a launch
    time.sleep(1)
    return before, during, launch_time()


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    for environment in {"TEARDOWN_CUPTI": "1"}, {}:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:  # each in a process of its own
            before, during, after = process.submit(launch_times, environment).result()
        name = "TEARDOWN_CUPTI=1" if environment else "as it is"
        print(f"{name:<16} a launch takes {before:.1f} us before, {during:.1f} us meanwhile, {after:.1f} us afterwards")
    print("Verdict:", "not so." if after > 1.2 * before else "it holds here.")
