"""A network shared out over ranks by transformers' own tensor parallelism.

transformers knows for each model which linears are cut by columns and which by rows (its plan), cuts their weights, and
puts the collectives into their forward passes. What the plan does not name, every rank has whole.
"""

import math
import re

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.distributed import DistributedConfig

from ..errors import InputError
from ..kv_cache import AttentionLayer


def check_plan(network: PreTrainedModel, name: str, layers: list[AttentionLayer], count: int) -> None:
    """InputError if so many ranks cannot share a network of that name: transformers has no plan for it, or they do not
    divide the heads of its keys and values."""
    if not network.tp_plan:
        raise InputError(f"model {name!r}: transformers has no plan to share {type(network).__name__} out over GPUs")
    heads = [layer.kv_heads for layer in layers]
    for odd in (each for each in heads if each % count):
        right = f"give a number of GPUs that divides {math.gcd(*heads)}"
        raise InputError(f"model {name!r}: {count} GPUs cannot share its {odd} KV heads evenly; {right}")


def share_of_bytes(network: PreTrainedModel, count: int) -> int:
    """Bytes of weights that each of so many ranks holds."""
    _leave_whole(network, count)
    total = 0
    for name, weight in network.named_parameters(remove_duplicate=False):  # tied weights are cut, each by its own rule
        generic = re.sub(r"\.\d+(?=\.)", ".*", name)
        style = network.tp_plan.get(generic) or network.tp_plan.get(generic.rpartition(".")[0], "replicate")
        total += weight.nbytes if style.startswith("replicate") else weight.nbytes // count
    return total


def share(network: PreTrainedModel, device: torch.device, count: int) -> PreTrainedModel:
    """This rank's part of a network, on its device and in eval mode; the `count` ranks must have joined. The network
    has its weights, on the CPU; or is on the meta device, to draw random ones. Nothing else may have it."""
    drawn = network.device.type == "meta"
    for name in network.all_tied_weights_keys:
        path, _, last = name.rpartition(".")
        module = network.get_submodule(path)
        module._parameters[last] = _parameter(module._parameters[last].detach())
    _leave_whole(network, count)
    config, _, mesh = network.prepare_distribute_model(DistributedConfig(tp_size=count))
    network = network.maybe_distribute_model(network, config, mesh)
    if drawn:
        network.to_empty(device=device)
        for module in network.modules():
            network._init_weights(module)
    for module in network.modules():
        if isinstance(module, nn.Linear):  # a plain tensor, which saves unwrapping it in every forward pass
            cut = {name: weight for name, weight in module._parameters.items() if isinstance(weight, DTensor)}
            module._parameters |= {name: _parameter(weight.to_local()) for name, weight in cut.items()}
    return network.to(device).eval()


def _leave_whole(network: PreTrainedModel, count: int) -> None:
    """Takes embedding and output out of the plan if the ranks do not divide their rows: transformers 5.17 needs it."""
    for name in [name for name in network.tp_plan if "*" not in name]:
        if any(len(weight) % count for weight in network.get_submodule(name).parameters()):
            del network.tp_plan[name]


def _parameter(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)
