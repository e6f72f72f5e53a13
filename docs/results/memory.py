"""Device memory of what asynchrony adds, a second slot and a second set of graphs, beside all the rest.

    python docs/results/memory.py               # on a GPU: makes memory.json anew
    python docs/results/memory.py part_two      # only what the chapters of part two add, which needs no GPU

Each of the two entries, the model as it is and compiled, is measured in a process of its own. What part two adds is
counted: the bytes of all tensors that models and slots have, at the same size. The simulator makes those of a model as
shapes alone.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from common import PAGE_SIZE, machine, need_gpu, store

from acb_minimal.device import CudaDevice
from acb_minimal.kv_cache import KVCache
from acb_minimal.model import Model
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.compile import compile_decodes
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.warm_up import warm_up
from acb_minimal.run.workload import workload
from acb_minimal.sampling import Sampling
from acb_minimal.slot import SlotSize

NAME, ROWS, CONTEXT = "llama-3.1-8b", 384, 1152
COLUMNS = {"what": "", "MB": ",.2f", "share": ".4%"}
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


def measure(compiled: bool) -> list[list]:
    """Rows of the table: what is taken, in the order in which it is; the slots' share of that comes last."""
    device, taken, slots, graphs = CudaDevice(), {}, {}, []

    def took(what: str) -> None:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        taken[what] = total - free - sum(taken.values())

    torch.zeros(1, device="cuda")
    took("CUDA context, others")
    checkpoint = Checkpoint(NAME)
    network = checkpoint.load(device.torch_device)
    if compiled:
        compile_decodes(network)
    took("weights")
    pages = -(-CONTEXT // PAGE_SIZE)
    cache = KVCache(checkpoint.layers, ROWS * pages, PAGE_SIZE, checkpoint.dtype, device.torch_device)
    took("KV cache")
    model = Model(network, checkpoint.layers, cache, SlotSize(ROWS, 8192, pages), device)
    warm_up(model)
    torch.cuda.empty_cache()
    took("kernels, libraries")
    pool, first = torch.cuda.graph_pool_handle(), None
    for which in ("first", "second"):
        before = torch.cuda.memory_allocated()  # a slot is too small to make torch ask the driver for memory
        slot = model.new_slot()
        first = first or slot
        slots[f"{which} slot"] = torch.cuda.memory_allocated() - before
        for size in model.decode_sizes:
            slot.pad(size)
            graphs.append(torch.cuda.CUDAGraph())
            with torch.cuda.graph(graphs[-1], pool=pool):
                model.carry_over(slot, first)
                model.forward(slot)
        took(f"{which} set of {len(model.decode_sizes)} graphs")
    total = sum(taken.values())
    return [[what, count / 1e6, count / total] for what, count in (taken | slots).items()]


if __name__ == "__main__":
    if sys.argv[1:] != ["part_two"]:
        need_gpu()
    found = part_two()
    title = f"Memory that part two takes, {NAME}, {ROWS} rows of {CONTEXT:,}, MB"
    note = (
        "Counted, not measured: bytes of tensors. State: what a model keeps besides the KV cache. All of it is on the "
        "device but for what is pinned, which is host memory."
    )
    store("memory.json", "part_two", title, COUNTED, found, note, machine())
    if sys.argv[1:] == ["part_two"]:
        sys.exit()
    for name, compiled in ("memory", False), ("compiled", True):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found = process.submit(measure, compiled).result()
        title = f"Device memory, {NAME}, {ROWS} rows of {CONTEXT:,}{', compiled' * compiled}"
        store("memory.json", name, title, COLUMNS, found)
