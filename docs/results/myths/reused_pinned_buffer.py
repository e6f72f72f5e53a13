"""The belief: after a non_blocking copy has been issued, the host buffer is free again."""

import time

import torch


def arrived(second, wait):
    """What arrives of 1 and 2, sent behind slow work, and the milliseconds until the host could write the 2.

    The 2 is written to `second`, at once or after the first copy is done.
    """
    first.fill_(1)
    torch.cuda._sleep(90_000_000)  # cycles: some 50 ms
    targets[0].copy_(first, non_blocking=True)
    start = time.perf_counter()
    if wait:
        torch.cuda.current_stream().record_event().synchronize()
    second.fill_(2)
    held = time.perf_counter() - start
    targets[1].copy_(second, non_blocking=True)
    torch.cuda.synchronize()
    return targets.flatten().tolist(), 1e3 * held


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    first, other, targets = torch.zeros(1).pin_memory(), torch.zeros(1).pin_memory(), torch.zeros(2, 1, device="cuda")
    for what, second, wait in (
        ("a second buffer", other, False),
        ("the same buffer, after a wait", first, True),
        ("the same buffer, at once", first, False),
    ):
        arrived(second, wait)  # the first time, the GPU loads what it runs
        values, ms = arrived(second, wait)
        print(f"{what:<30} written after {ms:6.3f} ms: sent 1 and 2, arrived {values[0]:.0f} and {values[1]:.0f}")
    print("Verdict:", "it holds here." if values == [1, 2] else "not so. The copy reads its source when it runs.")
