"""The device of a name, and whether it can run a model: every check that comes before anything is loaded."""

import torch

from ..errors import InputError
from ..kv_cache import KVCache, PagePool
from ..sim.costs import Costs
from ..sim.device import CpuDevice, SimulatedDevice
from .checkpoint import Checkpoint
from .options import Options
from .timed import Machine, TimedCudaDevice
from .traced import TracedCudaDevice

DEVICES = ("auto", "cuda", "sim", "cpu")
# Device bytes left to activations, logits and the CUDA libraries when weights and KV cache are sized.
WORKSPACE = 2 << 30


def check_device(name: str) -> None:
    """InputError if there is no such device here."""
    if name not in DEVICES:
        raise InputError(f"unknown device {name!r}: the devices are {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' is not available here: torch finds no CUDA GPU; use sim")


def is_simulated(name: str) -> bool:
    """Whether the device of that name is the simulated GPU on this machine."""
    return name == "sim" or (name == "auto" and not torch.cuda.is_available())


def open_device(name: str, checkpoint: Checkpoint, trace: bool = False, options: Options | None = None) -> Machine:
    """The device of that name. On the simulator, the large random models only take time; they compute nothing.

    Raises:
        InputError: the simulator does not know what the model costs compiled, or it is to be told how long launching
            takes and is not what runs.
    """
    options = options or Options()
    if is_simulated(name):
        if scale := options.scale:
            costs = Costs.of(scale.model, compiled=options.compile).scaled(scale.rows, scale.positions)
        else:
            costs = Costs.of(checkpoint.name, checkpoint.weight_bytes, options.compile)
        if options.launching is not None:
            costs = costs.launched_in(options.launching)
        return SimulatedDevice(costs, arithmetic=not checkpoint.random, trace=trace)
    name = "cuda" if name == "auto" else name
    if options.launching is not None:
        asked = f"launching is {1e3 * options.launching:g} ms"
        raise InputError(f"{asked}; on device {name!r} it takes what it takes: use sim")
    return CpuDevice() if name == "cpu" else TracedCudaDevice() if trace else TimedCudaDevice()


def check_gpu(checkpoint: Checkpoint, pool: PagePool, device: Machine) -> None:
    """InputError if a CUDA device cannot run the model, for its head size or the memory of weights and KV cache."""
    if device.kind != "cuda":
        return
    model = f"model {checkpoint.name!r}"
    for head_dim in {layer.head_dim for layer in checkpoint.layers}:
        if head_dim < 16 or head_dim & (head_dim - 1):
            raise InputError(f"{model}: its head size is {head_dim}; a GPU needs a power of two, 16 or more")
    cache = KVCache.bytes_for(checkpoint.layers, pool.num_pages, pool.page_size, checkpoint.dtype)
    weights = 0 if checkpoint.is_loaded(device.torch_device) else checkpoint.weight_bytes
    torch.cuda.empty_cache()  # what an earlier run has left to torch's allocator is free too
    free, _ = torch.cuda.mem_get_info(device.torch_device)
    if weights + cache + WORKSPACE > free:
        raise InputError(
            f"too little GPU memory: {pool.num_pages} KV pages take {cache / 1e9:.1f} GB and the weights of "
            f"{checkpoint.name!r} {checkpoint.weight_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free, of which "
            f"{WORKSPACE / 1e9:.1f} GB are kept for activations"
        )
