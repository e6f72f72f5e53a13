"""Memory that the chapters of part two take beside chapter 5, at the size of memory.py.

    python docs/results/memory_part_two.py    # any machine: makes `part_two` in memory.json anew

Counted, not measured: the bytes of all tensors that models and slots have. The simulator makes those of a model as
shapes alone.
"""

import torch
from common import machine, store
from memory import CONTEXT, NAME, ROWS

from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload
from acb_minimal.sampling import Sampling

ASKED = (
    ("ch5", "", Options()),
    ("ch5", "table of a grammar", Options(grammar="table:any")),
    ("ch7", "masks", Options(grammar="any")),
    ("ch8", "temperature", Options(sampling=Sampling(temperature=1.0))),
    ("ch8", "penalties", Options(sampling=Sampling(temperature=1.0, frequency_penalty=0.5))),
    ("ch9", "pages on demand", Options(preempt="recompute")),
    ("ch9", "pages swapped out", Options(preempt="swap")),
    ("ch10", "3 drafts", Options(speculate=3, acceptance=0.0)),
)
COUNTED = {"chapter": "", "asked for": "", "KV pages": ",d"} | dict.fromkeys(
    ("KV cache", "state", "two slots", "pinned, two slots", "pinned, pages"), ",.2f"
)


def part_two() -> list[list]:
    """Rows of what the chapters of part two have."""
    load = workload("wide").override(requests=ROWS, prompt_tokens=CONTEXT - 128, new_tokens=128, max_running=ROWS)
    checkpoint, rows = Checkpoint(NAME), []
    for chapter, asked, options in ASKED:
        session = Session(load.job(checkpoint.vocab_size), chapter, checkpoint, "sim", options)
        model = session.load_model()
        if chapter == "ch8":
            model.state  # noqa: B018, made when it is first asked for
        cache = sum(tensor.nbytes for tensor in (*model.cache.keys, *model.cache.values))
        (once, pinned), (first, other) = held(model), held(model.new_slot())
        sizes = cache, once, 2 * first, 2 * other, pinned
        rows.append([chapter, asked, session.pool.num_pages, *(size / 1e6 for size in sizes)])
    return rows


def held(part: object) -> tuple[int, int]:
    """Bytes of the tensors that are a part's own: on the device, and in pinned host memory."""
    device, host = {}, {}
    for name, value in vars(part).items():
        for tensor in value if isinstance(value, list) else [value]:
            if isinstance(tensor, torch.Tensor):
                (host if name.startswith(("host_", "berths")) else device)[id(tensor)] = tensor.nbytes
    return sum(device.values()), sum(host.values())


if __name__ == "__main__":
    note = (
        "Counted, not measured: bytes of tensors. State: what a model keeps besides the KV cache. All of it is on the "
        "device but for what is pinned, which is host memory."
    )
    title = f"Memory that part two takes, {NAME}, {ROWS} rows of {CONTEXT:,}, MB"
    store("memory.json", "part_two", title, COUNTED, part_two(), note, machine())
