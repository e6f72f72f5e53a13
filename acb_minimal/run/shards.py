"""A network's weights, shared out over ranks by transformers' own tensor parallelism.

transformers knows for each model which linears are cut by columns and which by rows (its plan), puts the collectives
into their forward passes, and says of each weight which part is this rank's. The weights themselves are put in here,
one after another, so that a model that no single GPU could hold is never whole on one. They are those that one GPU
would have: random ones too, which every rank draws in the same order, to keep its part of each.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.distributed import DistributedConfig
from transformers.distributed.tensor_parallel import replace_layer_number_by_wildcard

from ..errors import InputError
from ..kv_cache import AttentionLayer


def check_plan(network: PreTrainedModel, name: str, layers: list[AttentionLayer], count: int) -> None:
    """Whether a network can be shared out over so many ranks.

    Args:
        network: on any device, the meta device included.
        name: what to call it.
        layers: its attention layers, whole.

    Raises:
        InputError: transformers has no plan for it, or they do not divide the heads of its keys and values.
    """
    if not network.tp_plan:
        raise InputError(f"model {name!r}: transformers has no plan to share {type(network).__name__} out over GPUs")
    for layer in layers:
        if layer.kv_heads % count:
            raise InputError(
                f"model {name!r}: {count} GPUs cannot share its {layer.kv_heads} KV heads evenly; give a number of "
                f"GPUs that divides {math.gcd(*(layer.kv_heads for layer in layers))}"
            )


def share_of_bytes(network: PreTrainedModel, count: int) -> int:
    """Bytes of weights that each of so many ranks holds."""
    _leave_whole(network, count)
    total = 0
    for name, weight in network.named_parameters(remove_duplicate=False):  # tied weights are cut, each by its own rule
        generic = replace_layer_number_by_wildcard(name)
        style = network.tp_plan.get(generic) or network.tp_plan.get(generic.rpartition(".")[0], "replicate")
        total += weight.nbytes if style.startswith("replicate") else weight.nbytes // count
    return total


def put_in(
    network: PreTrainedModel, device: torch.device, count: int = 1, source: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Gives a network of the meta device its weights: all of them, or this rank's part.

    Args:
        network: nothing else may have it.
        count: how many ranks share it. They must have joined.
        source: the same network with its weights, on the CPU; None to draw random ones.

    Returns:
        The network, in eval mode.
    """
    tied = _untie(network)
    if count > 1:
        _leave_whole(network, count)
        config, _, mesh = network.prepare_distribute_model(DistributedConfig(tp_size=count))
        network = network.maybe_distribute_model(network, config, mesh)
    whole: dict[str, Tensor] = {}  # weights that others are tied to
    for path, module in network.named_modules():
        places = {name: weight for name, weight in module._parameters.items() if weight is not None}
        for name, place in places.items():
            module._parameters[name] = _parameter(torch.empty(place.shape, dtype=place.dtype, device=device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)
        if source is None:
            network._init_weights(module)
            for name in places:
                if (owner := tied.get(f"{path}.{name}")) is not None:
                    module._parameters[name] = _parameter(whole[owner])
                elif f"{path}.{name}" in tied.values():
                    whole[f"{path}.{name}"] = module._parameters[name].data
        else:
            _copy(source.get_submodule(path), module)
        for name, place in places.items():
            if isinstance(place, DTensor):
                module._parameters[name] = _parameter(_part(module._parameters[name].data, place, module))
    if count == 1:
        network.tie_weights()
    return network.eval()


def _leave_whole(network: PreTrainedModel, count: int) -> None:
    """Takes out of the plan what lies outside the layers, embedding and output, if the ranks do not divide its rows."""
    for name in list(network.tp_plan):
        if "*" not in name and any(len(weight) % count for weight in network.get_submodule(name).parameters()):
            del network.tp_plan[name]


def _untie(network: PreTrainedModel) -> dict[str, str]:
    """Gives each tied weight a place of its own; from its name to that of the weight it is tied to."""
    names: dict[nn.Parameter, str] = {}
    tied: dict[str, str] = {}
    for path, name, weight in list(_weights(network)):
        full = f"{path}.{name}"
        if names.setdefault(weight, full) != full:
            tied[full] = names[weight]
            network.get_submodule(path)._parameters[name] = _parameter(torch.empty_like(weight))
    return tied


def _weights(network: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    for path, module in network.named_modules():
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            yield path, name, weight


def _copy(source: nn.Module, module: nn.Module) -> None:
    for mine, theirs in ((module._parameters, source._parameters), (module._buffers, source._buffers)):
        for name, target in mine.items():
            if target is not None:
                target.data.copy_(theirs[name].data)


def _part(weight: Tensor, place: DTensor, module: nn.Module) -> Tensor:
    """This rank's part of a weight. Of a linear as a plain tensor, which saves unwrapping it in every forward pass."""
    part = distribute_tensor(weight, place.device_mesh, place.placements, src_data_rank=None)  # None: nothing is sent
    return part.to_local() if isinstance(module, nn.Linear) else part


def _parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)
