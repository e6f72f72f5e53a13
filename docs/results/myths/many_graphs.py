"""The belief: how fast a graph replays does not depend on how many others there are."""

import statistics

import torch


def captured(kernels):
    """A graph of so many tiny kernels."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(kernels):
            x.add_(1)
    return graph


def replay_time(graph):
    """Milliseconds of a replay by the GPU's clock: the median of 50."""
    times = []
    for _ in range(50):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    x = torch.zeros(1, device="cuda")
    x.add_(1)
    graphs = [captured(1000)]
    graphs[0].replay()
    found = []
    for number in range(1, 11):
        found.append(replay_time(graphs[0]))
        print(f"{number:2} graphs captured: a replay of the first, of 1,000 kernels, takes {found[-1]:.3f} ms")
        graphs.append(captured(1))
        graphs[-1].replay()
    print("Verdict:", "not so." if max(found) > 1.05 * found[0] else "it holds here.")
