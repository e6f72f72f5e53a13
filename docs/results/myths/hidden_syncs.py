"""The belief: only synchronize() makes the host wait."""

import time

import torch

CALLS = """t + 1
torch.arange(1024, device='cuda')
torch.tensor([1.0], device='cuda')
t.copy_(pinned, non_blocking=True)
t.copy_(pageable, non_blocking=True)
pinned.copy_(t, non_blocking=True)
pageable.copy_(t, non_blocking=True)
t.to('cpu', non_blocking=True)
t.cpu()
t[0].item()
t.tolist()
repr(t)
t.any()
bool(t.any())
torch.where(mask, t, 0)
t[mask]
torch.nonzero(mask)
t.repeat_interleave(counts)
t.repeat_interleave(counts, output_size=1024)
event.query()
event.synchronize()""".splitlines()

if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    t, pageable, event = torch.ones(1024, device="cuda"), torch.ones(1024), torch.cuda.Event()
    mask, counts, pinned, waited = t > 0, torch.ones_like(t, dtype=torch.int64), pageable.pin_memory(), []
    for call in CALLS:
        for _ in range(2):  # the first time, the GPU loads what it runs
            torch.cuda._sleep(90_000_000)  # cycles: some 50 ms
            event.record()
            start = time.perf_counter()
            eval(call)
            held, waits = time.perf_counter() - start, event.query()
            torch.cuda.synchronize()
        waited += [call] * waits
        print(f"{call:<46} {'waits' if waits else 'does not wait'}, {1e3 * held:.3f} ms")
    print("Verdict:", "not so." if len(waited) > 1 else "it holds here.")
