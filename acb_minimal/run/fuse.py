"""Fewer, larger kernels from a network whose code stays as it is: linears joined, decoder layers compiled.

Joined: linears that read one and the same input (q, k and v; gate and up) become one product with one weight. Which
they are is seen by running the network once, not listed by model. Compiled: each decoder layer goes through
torch.compile, for batches of decodes alone. One with prompts in it spends its time in products too large to gain.

How often torch compiles: the first batch of decodes is compiled as it is, and in `Model.warm_up` that is the largest.
At the next size torch compiles anew and leaves the number of tokens open (what `dynamic=None` means), which does for
all other sizes but 1, a case torch always makes its own. Three graphs, then, whatever the sizes; and all layers share
them, because what tells one layer from another are attributes of its modules.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..model import ATTENTION, PROBE, Model

# What torch.compile is told. fullgraph: a layer that cannot be taken in whole is an error, and not a slow layer.
COMPILE = {"fullgraph": True, "dynamic": None}
# How many graphs torch may keep of one function. transformers wraps the forward of every kind of layer in the same
# one, so all models of a process share these.
RECOMPILE_LIMIT = 64


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


class DecodeCompiled:
    """A decoder layer's forward: compiled for a batch of decodes, otherwise as it was.

    Attributes:
        on: whether anything is compiled at present.
    """

    def __init__(self, layer: nn.Module):
        self.on = True
        self.plain = layer.forward
        self.compiled = torch.compile(layer.forward, **COMPILE)

    def __call__(self, *args, **options):
        *_, max_query_len = options.get("batch", (None,))  # what Model.forward passes on to attention; a probe has none
        forward = self.compiled if self.on and max_query_len == 1 else self.plain
        return forward(*args, **options)


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
        _run_once(network)
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
        _run_once(network)
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


def decoder_layers(network: PreTrainedModel) -> list[nn.Module]:
    """The layers that each hold an attention: the members of the ModuleList in which it lies."""
    parents = {child: module for module in network.modules() for child in module.children()}
    layers = []
    for module in _run_once(network):
        while module in parents and not isinstance(parents[module], nn.ModuleList):
            module = parents[module]
        if module in parents and module not in layers:
            layers.append(module)
    return layers


def compile_decode(network: PreTrainedModel) -> int:
    """Has every decoder layer compiled for batches of decodes, when the first of them comes.

    Returns:
        How many layers.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    compiled = _compiled(network)
    for layer in () if compiled else decoder_layers(network):
        layer.forward = DecodeCompiled(layer)
    for forward in compiled:  # by an earlier call: what torch has compiled since then is still good
        forward.on = True
    return len(_compiled(network))


def plain(network: PreTrainedModel) -> None:
    """Stops running compiled layers, if it has any, until `fuse` is called again."""
    if network.device.type == "cuda":
        torch.backends.cuda.preferred_blas_library("default")
    for forward in _compiled(network):
        forward.on = False


def _compiled(network: PreTrainedModel) -> list[DecodeCompiled]:
    return [module.forward for module in network.modules() if isinstance(module.forward, DecodeCompiled)]


def fuse(network: PreTrainedModel) -> None:
    """Joins and compiles what can be. A network that was fused before stays as it is.

    On a GPU, products are cuBLASLt's from here on, for the whole process: for the few rows of a batch of decodes its
    choice of kernels reads weights faster than cuBLAS's, and needs no second kernel to add up what was split.
    """
    if network.device.type == "cuda":
        torch.backends.cuda.preferred_blas_library("cublaslt")
    try:
        join_linears(network)
    except RuntimeError as error:
        _say(network, str(error))
    compile_decode(network)


def warm_up(model: Model, progress: Callable[[str], None]) -> bool:
    """Model.warm_up of a network that `fuse` was called for, which is when torch compiles.

    Args:
        model: whose layers run as they are from here on if they cannot be compiled.
        progress: as Model.warm_up takes it.

    Returns:
        Whether they are compiled.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # here: importing it takes a while

    try:
        model.warm_up(lambda text: progress(f"compiling, {text}"))
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        plain(model.network)
        _say(model.network, f"its layers cannot be compiled and run as they are ({type(error).__name__}: {error})")
        model.warm_up(progress)
        return False
    return True


def _say(network: PreTrainedModel, what: str) -> None:
    line = " ".join(what.split())
    print(f"note: {type(network).__name__}: {line if len(line) <= 300 else line[:297] + '...'}", file=sys.stderr)
