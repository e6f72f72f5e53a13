"""The belief: wait_event waits until the event is recorded."""

import torch


def value_read(*order):
    """What `reader` reads of a number that `writer` sets to 1 behind slow work, by the order of the host's calls."""
    data.zero_()
    event = torch.cuda.Event()
    torch.cuda.synchronize()
    for call in order:
        if call == "write":
            with torch.cuda.stream(writer):
                torch.cuda._sleep(90_000_000)  # cycles: some 50 ms
                data.fill_(1)
        elif call == "record":
            event.record(writer)
        elif call == "wait_event":
            reader.wait_event(event)
        elif call == "read":
            with torch.cuda.stream(reader):
                seen.copy_(data, non_blocking=True)
    torch.cuda.synchronize()
    return seen.item()


if __name__ == "__main__":
    torch.cuda.is_available() or exit("needs a CUDA GPU; torch finds none")
    writer, reader = torch.cuda.Stream(), torch.cuda.Stream()
    data, seen = torch.zeros(1, device="cuda"), torch.zeros(1).pin_memory()
    found = []
    for order in (
        ("write", "record", "wait_event", "read"),
        ("wait_event", "write", "record", "read"),
        ("record", "write", "record", "wait_event", "read"),
        ("record", "wait_event", "write", "record", "read"),
    ):
        found.append(value_read(*order))
        print(f"{', '.join(order):<43} reads {found[-1]:.0f}")
    print("Verdict:", "not so. It waits for what has been recorded by then." if 0 in found else "it holds here.")
