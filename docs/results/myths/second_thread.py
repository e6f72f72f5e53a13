"""The belief: a second Python thread can keep the books while the first one launches."""

import sys
import threading
import time

import torch

LAUNCHES = 1_000


def books():
    """Bookkeeping without an end."""
    count = 0
    while running:
        count += 1


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    x, us = torch.zeros(1, device="cuda"), {}
    for others in 0, 0, 1:  # the first time warms up
        running = True
        threads = [threading.Thread(target=books) for _ in range(others)]
        for thread in threads:
            thread.start()
        began = time.perf_counter()
        for _ in range(LAUNCHES):
            x.add_(1)
        us[others] = 1e6 * (time.perf_counter() - began) / LAUNCHES
        running = False
        for thread in threads:
            thread.join()
        torch.cuda.synchronize()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"with the GIL: {gil}")
    print(f"launching, no other thread running:  {us[0]:8.1f} us a kernel")
    print(f"launching, another one that counts:  {us[1]:8.1f} us a kernel")
    slower = us[1] > 1.5 * us[0]
    print("Verdict:", "not so: the two take turns, and launching waits." if slower else "it holds here.")
