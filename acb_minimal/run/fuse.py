"""Fewer, larger kernels from a network whose code stays as it is: joined linears, and much of it compiled.

How linears are joined is in joined_linears.py. Each decoder layer goes through torch.compile, for batches of decodes
alone: one with prompts in it spends its time in products too large to gain. What lies beside the layers and is no
module of torch's own, such as the last norm and the rotary embedding, is compiled for all batches: a dozen small
kernels, whatever they compute.

How often torch compiles: the first batch of decodes is compiled as it is, and in `warm_up` that is the largest.
At the next size torch compiles anew and leaves the number of tokens open (what `dynamic=None` means), which does for
all other sizes but 1, a case torch always makes its own. Three graphs of a layer, then, whatever the sizes; and all
layers share them, because what tells one layer from another are attributes of its modules.
"""

import sys
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from ..model import Model
from . import warm_up as every_batch
from .joined_linears import join_linears, run_once

COMPILE = {"dynamic": None}  # what torch.compile is told
# How many graphs torch may keep of one function. transformers wraps the forward of every kind of layer in the same
# one, so all models of a process share these.
RECOMPILE_LIMIT = 64


class Compiled:
    """A module's forward, compiled.

    Attributes:
        on: whether anything is compiled at present.
    """

    def __init__(self, module: nn.Module, **options):
        """
        Args:
            module: whose forward it becomes.
            options: of torch.compile.
        """
        self.on = True
        self.own = vars(module).get("forward")  # what the module had in place of its class's
        self.plain = module.forward
        self.compiled = torch.compile(module.forward, **COMPILE | options)

    def __call__(self, *args, **options):
        return (self.compiled if self.on else self.plain)(*args, **options)


class DecodeCompiled(Compiled):
    """A decoder layer's forward: compiled for a batch of decodes, otherwise as it was."""

    def __call__(self, *args, **options):
        *_, max_query_len = options.get("batch", (None,))  # what Model.forward passes on to attention; a probe has none
        return super().__call__(*args, **options) if max_query_len == 1 else self.plain(*args, **options)


def decoder_layers(network: PreTrainedModel) -> list[nn.Module]:
    """The layers that each hold an attention: the members of the ModuleList in which it lies."""
    parents = {child: module for module in network.modules() for child in module.children()}
    layers = []
    for module in run_once(network):
        while module in parents and not isinstance(parents[module], nn.ModuleList):
            module = parents[module]
        if module in parents and module not in layers:
            layers.append(module)
    return layers


def beside(layers: list[nn.Module], network: PreTrainedModel) -> list[nn.Module]:
    """What runs before and after the layers, in the module that holds them, and has code of the model's own.

    Modules of torch's own, such as an embedding, are one kernel as they are.
    """
    parents = {child: module for module in network.modules() for child in module.children()}
    holders = dict.fromkeys(parents[parents[layer]] for layer in layers)
    theirs = dict.fromkeys(child for holder in holders for child in holder.children())
    return [module for module in theirs if not type(module).__module__.startswith("torch.nn.")]


def compile_decode(network: PreTrainedModel, around: bool = True, **options) -> int:
    """Has every decoder layer compiled for batches of decodes, when the first of them comes.

    Args:
        network: a causal LM whose attention implementation is ATTENTION.
        around: compile what is beside the layers, too.
        options: of torch.compile, beside COMPILE.

    Returns:
        How many layers.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    compiled = _compiled(network)
    for module in compiled:  # by an earlier call: what torch has compiled since then is still good
        module.forward.on = True
    if not compiled:
        layers = decoder_layers(network)
        for layer in layers:
            # fullgraph: a layer that cannot be taken in whole is an error, and not a slow layer.
            layer.forward = DecodeCompiled(layer, fullgraph=True, **options)
        for module in beside(layers, network) if around else ():
            module.forward = Compiled(module, **options)
    return sum(isinstance(module.forward, DecodeCompiled) for module in _compiled(network))


def use_blas(network: PreTrainedModel, library: str) -> None:
    """Has a library compute all products of this process, if the network is on a GPU.

    Args:
        network: where it is counts, nothing else.
        library: "cublas", "cublaslt" or "default".
    """
    if network.device.type == "cuda":
        torch.backends.cuda.preferred_blas_library(library)


def plain(network: PreTrainedModel) -> None:
    """Stops running what is compiled, if anything is, until `fuse` is called again."""
    use_blas(network, "default")
    for module in _compiled(network):
        module.forward.on = False


def forget(network: PreTrainedModel) -> None:
    """Undoes `compile_decode`, and has torch drop all that it has compiled in this process."""
    for module in _compiled(network):
        own = module.forward.own
        del module.forward
        if own:
            module.forward = own
    torch._dynamo.reset()


def _compiled(network: PreTrainedModel) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module.forward, Compiled)]


def fuse(network: PreTrainedModel) -> None:
    """Joins and compiles what can be. A network that was fused before stays as it is.

    On a GPU, products are cuBLASLt's from here on, for the whole process: for the few rows of a batch of decodes its
    choice of kernels reads weights faster than cuBLAS's, and needs no second kernel to add up what was split.
    """
    use_blas(network, "cublaslt")
    try:
        join_linears(network)
    except RuntimeError as error:
        _say(network, str(error))
    compile_decode(network)


def warm_up(model: Model, progress: Callable[[str], None]) -> bool:
    """Runs every kind of batch (warm_up.py) of a network that `fuse` was called for, which is when torch compiles.

    Args:
        model: whose layers run as they are from here on if they cannot be compiled.
        progress: as warm_up.warm_up takes it.

    Returns:
        Whether they are compiled.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # here: importing it takes a while

    try:
        every_batch.warm_up(model, lambda text: progress(f"compiling, {text}"))
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        plain(model.network)
        _say(model.network, f"its layers cannot be compiled and run as they are ({type(error).__name__}: {error})")
        every_batch.warm_up(model, progress)
        return False
    return True


def _say(network: PreTrainedModel, what: str) -> None:
    line = " ".join(what.split())
    print(f"note: {type(network).__name__}: {line if len(line) <= 300 else line[:297] + '...'}", file=sys.stderr)
