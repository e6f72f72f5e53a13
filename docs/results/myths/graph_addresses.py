"""The belief: a captured graph reads its Python variables."""

import torch


def replay(what):
    """Replays the graph and prints what it computes; whether Python computes the same."""
    graph.replay()
    print(f"{what:<50} x + n is {(x + n).item():2}, the graph says {y.item():2}")
    return y.item() == (x + n).item()


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    first, other, y = (torch.tensor([value], device="cuda") for value in (1, 10, 0))
    x, n = first, 1
    torch.add(x, n, out=y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.add(x, n, out=y)
    replay("captured with x = 1, n = 1")
    x = other
    right = [replay("x = another tensor, of 10")]
    x, n = first, 5
    right.append(replay("x = the first tensor again, n = 5"))
    n = 1
    first.copy_(other)
    replay("n = 1 again, the 10 copied into the first tensor")
    print("Verdict:", "it holds here." if all(right) else "not so. It has addresses, and numbers by value.")
