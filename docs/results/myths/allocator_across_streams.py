"""The belief: del x is safe as soon as the last kernel that uses x is launched."""

import torch


def largest(care):
    """What stream b reads of a tensor of ones of stream a, freed while b's work is queued; was its memory reused?"""
    with torch.cuda.stream(a):
        x = torch.full((4 << 20,), 1, device="cuda")
    address = x.data_ptr()
    b.wait_stream(a)
    with torch.cuda.stream(b):
        torch.cuda._sleep(90_000_000)  # cycles: some 50 ms
        torch.amax(x, 0, out=seen)
    if care == "x.record_stream(b)":
        x.record_stream(b)
    elif care == "a.wait_stream(b)":
        a.wait_stream(b)
    del x
    with torch.cuda.stream(a):
        reused = torch.full((4 << 20,), 2, device="cuda").data_ptr() == address
    torch.cuda.synchronize()
    return seen.item(), reused


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    a, b, seen = torch.cuda.Stream(), torch.cuda.Stream(), torch.zeros((), dtype=torch.int64, device="cuda")
    for care in "x.record_stream(b)", "a.wait_stream(b)", "nothing":
        largest(care)  # the first time, the GPU loads what it runs
        value, reused = largest(care)
        print(f"{care:<18} before del x: b reads {value}, its memory was {'' if reused else 'not '}used again")
    print("Verdict:", "it holds here." if value == 1 else "not so. The allocator knows nothing of other streams.")
