"""Fewer, larger products from a network whose code stays as it is: linears that read the same input become one.

q, k and v are such, and gate and up. Which they are is seen by running the network once, not listed by model.
"""

from collections import Counter, defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..model import ATTENTION
from .model_support import PROBE


class FirstLinear(nn.Module):
    """The linear that is called first of those that were joined: computes for all, and hands the others their part."""

    def __init__(self, linear: nn.Linear, weight: Tensor, bias: Tensor | None, rest: "tuple[RestLinear, ...]"):
        """
        Args:
            linear: what it stands for; its parameters are views of the joined ones by now.
            weight: [outputs of all, inputs].
            bias: [outputs of all], or None.
            rest: those that stand for the others, in the order of the rows of `weight`.
        """
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("joined_weight", weight, persistent=False)
        self.register_buffer("joined_bias", bias, persistent=False)
        self.rest = rest  # in a tuple, or torch would take them for modules inside this one
        self.sizes = [len(each.weight) for each in (linear, *rest)]

    def forward(self, x: Tensor) -> Tensor:
        first, *others = F.linear(x, self.joined_weight, self.joined_bias).split(self.sizes, dim=-1)
        for linear, part in zip(self.rest, others, strict=True):
            linear.ready = x, part
        return first


class RestLinear(nn.Module):
    """Any other of them: what it returns is ready. If it is called with another input after all, it computes."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.ready: tuple[Tensor | None, Tensor | None] = None, None

    def forward(self, x: Tensor) -> Tensor:
        (given, part), self.ready = self.ready, (None, None)  # not kept: it would hold memory of a CUDA graph's pool
        return part if given is x else F.linear(x, self.weight, self.bias)


def join_linears(network: PreTrainedModel) -> list[tuple[str, ...]]:
    """Joins the linears of the network that read the same input.

    Their weights move into one tensor, a group at a time, and become views of it: every parameter keeps its name, shape
    and values, and memory for one group is all that it takes.

    Args:
        network: a causal LM whose attention implementation is ATTENTION, on the device where it is to run.

    Returns:
        The names of each group's linears, in the order in which the network calls them. None that were joined before.

    Raises:
        RuntimeError: the network does not run with the linears joined. It is as it was.
    """
    names = {module: name for name, module in network.named_modules()}
    groups = _groups(network)
    stand_ins = [stand_in for group in groups for stand_in in _joined(group)]
    originals = [linear for group in groups for linear in group]
    _replace(network, dict(zip(originals, stand_ins, strict=True)))
    try:
        run_once(network)
    except Exception as error:  # whatever the model's own code does with an output that is a view of a larger one
        _replace(network, dict(zip(stand_ins, originals, strict=True)))
        raise RuntimeError(f"its linears cannot be joined ({type(error).__name__}: {error})") from error
    return [tuple(names[linear] for linear in group) for group in groups]


def _groups(network: PreTrainedModel) -> list[list[nn.Linear]]:
    """The linears that read the same input, siblings in one module, group by group in the order of their calls."""
    owners = Counter(parameter for _, parameter in network.named_parameters(remove_duplicate=False))
    parents = {child: module for module in network.modules() for child in module.children()}
    calls: list[tuple[nn.Linear, Tensor, int]] = []  # the inputs stay alive, so that no other has the same id

    def note(linear: nn.Linear, inputs: tuple) -> None:
        calls.append((linear, inputs[0], inputs[0]._version))  # the version: it may be changed in place in between

    # Exactly nn.Linear and nothing hung on it: a quantised one, or one with adapters, computes something else.
    linears = [
        module
        for module in network.modules()
        if type(module) is nn.Linear
        and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
        and all(owners[parameter] == 1 for parameter in module.parameters())
    ]
    hooks = [linear.register_forward_pre_hook(note) for linear in linears]
    try:
        run_once(network)
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(linear for linear, *_ in calls)
    groups = defaultdict(list)
    for linear, given, version in calls:
        if times[linear] == 1:
            kind = linear.weight.dtype, linear.weight.device, linear.bias is None
            groups[parents[linear], id(given), version, kind].append(linear)
    return [group for group in groups.values() if len(group) > 1]


def run_once(network: PreTrainedModel) -> list[nn.Module]:
    """Runs the network on one token, without attention; the modules that would compute attention, in order."""
    calls: list = []
    ids = torch.zeros(1, 1, dtype=torch.int32, device=network.device)
    network.set_attn_implementation(PROBE)
    try:
        with torch.no_grad():  # not inference_mode, which keeps no versions
            network(input_ids=ids, position_ids=ids, use_cache=False, record=calls)
    finally:
        network.set_attn_implementation(ATTENTION)
    return [module for module, *_ in calls]


@torch.no_grad()
def _joined(group: list[nn.Linear]) -> list[nn.Module]:
    """What to put in the place of each linear of a group. The linears still work, on views of the joined weight."""
    sizes = [linear.out_features for linear in group]
    weight = torch.cat([linear.weight for linear in group])
    bias = None if group[0].bias is None else torch.cat([linear.bias for linear in group])
    for linear, view in zip(group, weight.split(sizes), strict=True):
        linear.weight.data = view
    for linear, view in zip(group, () if bias is None else bias.split(sizes), strict=bias is not None):
        linear.bias.data = view
    torch.cuda.empty_cache()  # or torch would keep the old weights' memory, which fits nothing else; no GPU, no effect
    first, *rest = group
    stand_ins = tuple(map(RestLinear, rest))
    return [FirstLinear(first, weight, bias, stand_ins), *stand_ins]


def _replace(network: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Puts other modules into the places of some."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child in new:
                setattr(module, name, new[child])
