"""The belief: the host can run ahead of the GPU as far as it likes."""

import time

import torch


def ahead(launch):
    """How many of 4,096 launches fit behind slow work until one holds the host for 10 ms; how long that one takes."""
    launch()
    torch.cuda.synchronize()
    torch.cuda._sleep(1_800_000_000)  # cycles: about a second
    count = held = 0
    while count < 4096 and held < 10:
        start = time.perf_counter()
        launch()
        held = 1e3 * (time.perf_counter() - start)
        count += 1
    torch.cuda.synchronize()
    return count - 1, held


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    x, graph = torch.zeros(1, device="cuda"), torch.cuda.CUDAGraph()
    x.add_(1)
    with torch.cuda.graph(graph):
        for _ in range(10):
            x.add_(1)
    longest = 0
    for what, launch in ("kernels", lambda: x.add_(1)), ("graphs of 10 kernels", graph.replay):
        count, ms = ahead(launch)
        print(f"{count:,} {what} were launched ahead; the next launch held the host for {ms:.3f} ms")
        longest = max(longest, ms)
    print("Verdict:", "not so." if longest > 10 else "it holds here.")
