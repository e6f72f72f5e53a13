"""Fewer, larger kernels from a network whose code stays as it is: linears joined, and much of it compiled.

Linears that read the same input become one: q, k and v, and gate and up, by the names that transformers gives them.
Each decoder layer goes through torch.compile, for batches of decodes alone: one with prompts in it spends its time in
products too large to gain. What lies beside the layers and is no module of torch's own, such as the last norm and the
rotary embedding, is compiled for all batches: a dozen small kernels, whatever they compute.

How often torch compiles: the first batch of decodes is compiled as it is, and in `warm_up` that is the largest. At the
next size torch compiles anew and leaves the number of tokens open (what `dynamic=None` means), which does for all other
sizes but 1, a case torch always makes its own. Three graphs of a layer, then, whatever the sizes; and all layers share
them, because what tells one layer from another are attributes of its modules.
"""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..model import ATTENTION, Model
from .model_support import PROBE
from .warm_up import warm_up

SAME_INPUT = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")  # in the order in which they are called
COMPILE = {"dynamic": None}  # what torch.compile is told
# How many graphs torch may keep of one function. transformers wraps the forward of every kind of layer in the same
# one, so all models of a process share these.
RECOMPILE_LIMIT = 64


class Compiled:
    """A module's forward, compiled: for every batch, or for batches of decodes alone; unless `on` is False."""

    def __init__(self, module: nn.Module, decodes: bool):
        self.on, self.decodes, self.plain = True, decodes, module.forward
        # fullgraph: a layer that cannot be taken in whole is an error, and not a slow layer.
        self.compiled = torch.compile(module.forward, fullgraph=decodes, **COMPILE)

    def __call__(self, *args, **options):
        *_, max_query_len = options.get("batch", (None,))  # what Model.forward passes on to attention; a probe has none
        return (self.compiled if self.on and (max_query_len == 1 or not self.decodes) else self.plain)(*args, **options)


def compile_decodes(network: PreTrainedModel) -> None:
    """Joins what can be of a network on the device where it is to run, and has it compiled when the first batch comes.
    What was joined and compiled before is used again.

    On a GPU, products are cuBLASLt's from here on, for the whole process: for the few rows of a batch of decodes its
    choice of kernels reads weights faster than cuBLAS's, and needs no second kernel to add up what was split.
    """
    _turn(network, True)
    if not _compiled(network):
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
        join_linears(network)
        layers, beside = layers_and_beside(network)
        for module in layers + beside:
            module.forward = Compiled(module, decodes=module in layers)


def run_plain(network: PreTrainedModel) -> None:
    """Stops running what is compiled, if anything is, until `compile_decodes` is called again."""
    _turn(network, False)


def _turn(network: PreTrainedModel, on: bool) -> None:
    if network.device.type == "cuda":
        torch.backends.cuda.preferred_blas_library("cublaslt" if on else "default")
    for compiled in _compiled(network):
        compiled.on = on


def _compiled(network: nn.Module) -> list[Compiled]:
    return [module.forward for module in network.modules() if isinstance(module.forward, Compiled)]


def warm_up_compiled(model: Model, progress: Callable[[str], None]) -> bool:
    """Runs every kind of batch (warm_up.py) of a network that is to be compiled, which is when torch does it. False if
    it cannot be: then its layers run as they are from here on."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # here: importing it takes a while

    try:
        warm_up(model, lambda text: progress(f"compiling, {text}"))
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        run_plain(model.network)
        _note(model.network, "its layers cannot be compiled and run as they are", error)
        warm_up(model, progress)
        return False
    return True


def _note(network: PreTrainedModel, what: str, error: Exception) -> None:
    line = " ".join(f"{what} ({type(error).__name__}: {error})".split())
    print(f"note: {type(network).__name__}: {line if len(line) <= 300 else line[:297] + '...'}", file=sys.stderr)


def layers_and_beside(network: PreTrainedModel) -> tuple[list[nn.Module], list[nn.Module]]:
    """The decoder layers, each a member of the ModuleList in which an attention lies; and what runs before and after
    them in the module that holds them and has code of the model's own. An embedding of torch's is one kernel as it is.
    """
    parents = {child: module for module in network.modules() for child in module.children()}
    layers: dict[nn.Module, None] = {}
    for module in _run_once(network):
        while module in parents and not isinstance(parents[module], nn.ModuleList):
            module = parents[module]
        if module in parents:
            layers[module] = None
    holders = dict.fromkeys(parents[parents[layer]] for layer in layers)
    beside = [module for holder in holders for module in holder.children()]
    return list(layers), [module for module in beside if not type(module).__module__.startswith("torch.nn.")]


def _run_once(network: PreTrainedModel) -> list[nn.Module]:
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


class FirstLinear(nn.Module):
    """The linear that is called first of those that were joined: computes for all, and hands the others their part.

    The parameters of all are views of `weight` [outputs of all, inputs] and `bias`, in the order of their calls.
    """

    def __init__(self, linear: nn.Linear, weight: Tensor, bias: Tensor | None, rest: "tuple[RestLinear, ...]"):
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


def join_linears(network: PreTrainedModel) -> None:
    """Joins the linears of the network that read the same input. If it does not run with them joined, it is as it was,
    and a line says so.

    Their weights move into one tensor, a group at a time, and become views of it: every parameter keeps its name, shape
    and values, and memory for one group is all that it takes.
    """
    groups = [
        group
        for module in network.modules()
        for names in SAME_INPUT
        if _alike(group := [getattr(module, name, None) for name in names])
    ]
    stand_ins = {linear: each for group in groups for linear, each in zip(group, _joined(group), strict=True)}
    _replace(network, stand_ins)
    try:
        _run_once(network)
    except Exception as error:  # whatever the model's own code does with an output that is a view of a larger one
        _replace(network, {each: linear for linear, each in stand_ins.items()})
        _note(network, "its linears cannot be joined", error)


def _alike(group: list[nn.Module | None]) -> bool:
    """Whether linears can become one. A quantised one, or one with adapters, is of another class than torch's own; one
    that ranks share has a forward of its own, which transformers has given it, and a part of the outputs it tells."""
    plain = all(type(linear) is nn.Linear and "forward" not in vars(linear) for linear in group)
    return plain and len({(linear.weight.dtype, linear.bias is None) for linear in group}) == 1


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
