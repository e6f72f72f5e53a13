"""The belief: non_blocking=True means that the host does not wait."""

import time

import torch

if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    target = torch.zeros(64_000_000, dtype=torch.uint8, device="cuda")
    pageable = torch.ones(64_000_000, dtype=torch.uint8)
    for name, source in ("pinned", pageable.pin_memory()), ("pageable", pageable):
        for _ in range(2):  # the second time counts
            torch.cuda.synchronize()
            start = time.perf_counter()
            target.copy_(source, non_blocking=True)
            held = 1e3 * (time.perf_counter() - start)
            torch.cuda.synchronize()
            done = 1e3 * (time.perf_counter() - start)
        print(f"64 MB from {name} memory: held the host for {held:.3f} ms, done after {done:.3f} ms")
    print("Verdict:", "not so, from pageable memory." if held > done / 2 else "it holds here.")
