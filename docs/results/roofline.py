"""How close a decode step comes to the floor that memory sets: what it must read, and how fast it is read.

    python docs/results/roofline.py    # on a GPU: makes roofline.json anew

A step of decodes does so little arithmetic with each weight, and with each key and value, that reading them once is
what it cannot do without. Over the rate of a plain sum, measured in the same run, that makes the floor of a step. What
it reads falls to two groups of kernels; the rest work on activations that have not left the GPU's cache.

    attention   every key and value of every row: rows * positions * 2 * kv_heads * head_dim, in every layer
    GEMMs       every weight and bias of a linear, once
    rest        nothing that counts: norms, rotary embedding, activation function, sampling

Left out is what GEMMs and attention read and write besides: activations, of a size with rows * hidden_size.
"""

import re
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from calibrate import ready_model, written
from common import gpu_seconds, need_gpu, profiled, reading_rate, store
from torch import nn

from acb_minimal.device import CudaDevice
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.compile import compile_decodes

CASES = (  # workload, model, rows, positions of each
    ("long", "llama-3.1-8b", 32, (512, 4096, 8000)),
    ("small", "llama-3.2-1b", 128, (1152,)),  # half of the new tokens are there
    ("wide", "llama-3.1-8b", 384, (1024,)),
    ("long", "qwen3-8b", 32, (4096,)),
)
GROUPS = {  # of kernels, by their names
    "attention": re.compile("^(write|attend|merge)_kernel$"),  # of attention_triton.py
    # cuBLAS's and CUTLASS's, with those of what adds up the parts of a product that was split, and Inductor's own
    "GEMMs": re.compile("nvjet|gemm|gemv|cutlass|splitk|triton_tem_", re.IGNORECASE),
    "rest": re.compile(""),
}
REPLAYS = 5  # under the profiler
COLUMNS = {
    "workload": "", "rows": "d", "context": ",d", "compiled": "", "kernels of": "", "kernels": "d", "GB": ".2f",
    "ms": ".3f", "floor, ms": ".3f", "TB/s": ".2f", "of a sum's": ".0%",
}  # fmt: skip
NOTE = (
    "A plain sum reads {:.2f} TB/s in the same run (median; each model is held to its own). floor: the bytes a step "
    "must read, weights of linears and keys and values, at that rate; activations are left out."
)


def weights(network: nn.Module) -> int:
    """Bytes of what linears read. A matrix is read whole if it belongs to one; of an embedding's, a row for each token,
    which does not count. Tied to the last linear, it is that one's, and counts."""
    found = {}
    for module in network.modules():
        mine = list(module.parameters(recurse=False))
        if not isinstance(module, nn.Embedding) and any(parameter.ndim > 1 for parameter in mine):
            found |= {id(parameter): parameter.nbytes for parameter in mine}
    return sum(found.values())


def measure(workload: str, name: str, rows: int, contexts: tuple[int, ...]) -> tuple[list[list], float]:
    """Rows of the table for a case, as it is and compiled; and the bytes per second that a plain sum reads."""
    checkpoint, rate, table = Checkpoint(name), reading_rate(), []
    model = ready_model(checkpoint, CudaDevice(), rows, rows * (max(contexts) + 64))
    positions = sum(2 * layer.kv_heads * layer.head_dim * checkpoint.dtype.itemsize for layer in checkpoint.layers)
    read = {"GEMMs": weights(model.network)}
    calls = {context: partial(model.forward, written(model, rows, 1, context)) for context in contexts}
    for compiled in ("no", "yes"):
        if compiled == "yes":
            compile_decodes(model.network)
        seconds = {context: gpu_seconds(call, calls=3, repeats=10) for context, call in calls.items()}
        for context, call in calls.items():
            read["attention"] = rows * context * positions
            times = {group: [] for group in GROUPS}
            for kernel in profiled(call, REPLAYS):
                group = next(group for group, names in GROUPS.items() if names.search(kernel.name))
                times[group].append(kernel.time_range.elapsed_us() / 1e6 / REPLAYS)
            lines = [(group, found, sum(found), read.get(group)) for group, found in times.items()]
            every = sum(times.values(), [])
            lines.append(("between kernels", None, seconds[context] - sum(every), None))
            lines.append(("the step", every, seconds[context], sum(read.values())))
            for what, kernels, took, count in lines:
                floor = count and count / rate
                least = [1e3 * floor, count / took / 1e12, floor / took] if count else [None] * 3
                number = None if kernels is None else round(len(kernels) / REPLAYS)
                gigabytes = count and count / 1e9
                case = [f"{workload}, {name}", rows, context, compiled, what]
                table.append([*case, number, gigabytes, 1e3 * took, *least])
    return table, rate


if __name__ == "__main__":
    need_gpu()
    found, rates = [], []
    for case in CASES:  # each in a process of its own, for the profiler's sake
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            rows, rate = process.submit(measure, *case).result()
        found += rows
        rates.append(rate)
    note = NOTE.format(statistics.median(rates) / 1e12)
    store("roofline.json", "roofline", "Decode steps and the floor memory sets", COLUMNS, found, note)
