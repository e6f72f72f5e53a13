"""The belief: work in the default stream holds up all other streams."""

import time

import torch


def arrival(slow, copying):
    """Milliseconds until a small copy has arrived that is issued right after slow work."""
    with torch.cuda.stream(slow):
        torch.cuda._sleep(90_000_000)  # cycles: some 50 ms
    start = time.perf_counter()
    with torch.cuda.stream(copying):
        target.copy_(source, non_blocking=True)
        copied = copying.record_event()
    copied.synchronize()
    arrived = time.perf_counter() - start
    torch.cuda.synchronize()
    return 1e3 * arrived


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    streams = {"default": torch.cuda.default_stream(), "side": torch.cuda.Stream()}
    source, target = torch.ones(1).pin_memory(), torch.zeros(1, device="cuda")
    for slow, copying in ("default", "default"), ("side", "side"), ("default", "side"), ("side", "default"):
        arrival(streams[slow], streams[copying])  # the first time, the GPU loads what it runs
        ms = arrival(streams[slow], streams[copying])
        print(f"slow work in the {slow} stream, a copy in the {copying} stream arrives after {ms:6.3f} ms")
    print("Verdict:", "not so." if ms < 25 else "it holds here.")
