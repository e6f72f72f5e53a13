"""Device memory of what asynchrony adds, a second slot and a second set of graphs, beside all the rest.

    python docs/results/memory.py    # on a GPU: makes memory.json anew

Each of the two entries, the model as it is and compiled, is measured in a process of its own.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from common import PAGE_SIZE, need_gpu, store

from acb_minimal.device import CudaDevice
from acb_minimal.kv_cache import KVCache
from acb_minimal.model import Model
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.compile import compile_decodes
from acb_minimal.run.warm_up import warm_up
from acb_minimal.slot import SlotSize

NAME, ROWS, CONTEXT = "llama-3.1-8b", 384, 1152
COLUMNS = {"what": "", "MB": ",.2f", "share": ".4%"}


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
    need_gpu()
    for name, compiled in ("memory", False), ("compiled", True):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found = process.submit(measure, compiled).result()
        title = f"Device memory, {NAME}, {ROWS} rows of {CONTEXT:,}{', compiled' * compiled}"
        store("memory.json", name, title, COLUMNS, found)
