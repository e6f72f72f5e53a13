"""The belief: a profiler costs only while it runs."""

import os
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile


def launch_time():
    """Microseconds of host time to launch a kernel: the median of five times 2,000."""
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(2000):
            x.add_(1)
        times.append(1e6 * (time.perf_counter() - start) / 2000)
    torch.cuda.synchronize()
    return statistics.median(times[1:])


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    x = torch.zeros(1, device="cuda")
    before = launch_time()
    print(f"before:                                   {before:.1f} us a launch")
    for name in "", ", with TEARDOWN_CUPTI=1":
        if name:
            os.environ["TEARDOWN_CUPTI"] = "1"  # looked up when a profile ends
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]):
            print(f"{'while it records' + name + ':':<41} {launch_time():.1f} us")
        launch_time()  # CUPTI is let go by a thread, from within a launch
        time.sleep(1)
        after = launch_time()
        print(f"{'after it' + name + ':':<41} {after:.1f} us")
        if not name:
            left = after
    print("Verdict:", "not so." if left > 1.2 * before else "it holds here.")
