"""The belief: several steps a launch do as well as asynchrony."""

import time

import torch

KERNELS, HOST, STEPS = 300, 1e-3, 240  # of a step; seconds of the host's work for each launch; in all


def step():
    for _ in range(KERNELS):
        x.mul_(1.0001)


def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    x, ms = torch.ones(1 << 20, device="cuda"), {}
    step()
    torch.cuda.synchronize()
    for steps in 1, 2, 4, 8:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                step()
        for ahead in False, True:
            graph.replay()
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(STEPS // steps):
                graph.replay()
                if not ahead:
                    torch.cuda.synchronize()  # the host keeps the books when the GPU is done
                busy(HOST)
            torch.cuda.synchronize()
            ms[steps, ahead] = 1e3 * (time.perf_counter() - began) / STEPS
    print("ms a step:      synchronous   asynchronous   a token is seen after")
    for steps in 1, 2, 4, 8:
        late = f"{steps} steps" if steps > 1 else "its step"
        print(f"{steps} steps a launch   {ms[steps, False]:6.2f}       {ms[steps, True]:6.2f}        {late} at most")
    print("Verdict:", "it divides the host's work, and asynchrony hides it; tokens come in lumps, and late."
          if ms[8, False] > 1.02 * ms[1, True] else "it holds here.")  # fmt: skip
