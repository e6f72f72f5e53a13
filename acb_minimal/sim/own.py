"""An engine's own torch operations, beside those of the shared parts.

On a GPU, an operation on device memory is queued on the current stream, and a copy to or from it too. Here that memory
is the CPU's, and torch would run such an operation at once. So while an engine's code runs, every torch operation is
looked at: one on device memory is queued as CUDA queues it, one that needs the result makes the host wait, and what the
host does with pinned memory is told to who looks on. All others run as they are.

What is queued takes its place and no time, but copies: they take what copies take. What cannot be told apart from
something else here is refused, and is a Limit.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..device import Device, Work
from .host_view import HostView
from .limits import Limit
from .places import DEVICE, PINNED, Places

aten = torch.ops.aten


@cache
def arguments(func: torch._ops.OpOverload) -> list[tuple[str, bool, bool]]:
    """For each argument its name, whether the result can be a view of it, and whether it is written."""
    infos = [(argument.name, argument.alias_info) for argument in func._schema.arguments]
    return [(name, info is not None, info is not None and info.is_write) for name, info in infos]


@cache
def _is_view(func: torch._ops.OpOverload) -> bool:
    """Whether it only makes a view, which touches no memory."""
    return any(alias and not writes for _, alias, writes in arguments(func))


@cache
def _gives_tensors(func: torch._ops.OpOverload) -> bool:
    return all("Tensor" in str(returned.type) for returned in func._schema.returns)


@contextmanager
def engine_code(device: Device, places: Places) -> Iterator[None]:
    """Around an engine's code: queues its own operations on device memory. Device work that runs meanwhile is left
    alone.

    Args:
        device: a simulated one.
        places: what is not ordinary memory of the host.
    """
    queues = device.cuda.queues
    with _Operations(device, places), _Calls(device, places):
        queues.around = _aside
        try:
            yield
        finally:
            queues.around = nullcontext


def _touched(device: Device, memory: torch.Tensor, writes: bool) -> None:
    """The host reads or writes pinned memory as a tensor."""
    device.cuda.queues.observer.touched(device.host_view(memory), writes)


@contextmanager
def _aside() -> Iterator[None]:
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


class _Operations(TorchDispatchMode):
    """Looks at every operation, when all that torch makes of it by itself is done."""

    def __init__(self, device: Device, places: Places):
        super().__init__()
        self.device, self.places = device, places

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch wraps what follows, against being compiled, which takes longer than what it does

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _is_view(func):
            return func(*args, **kwargs)
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        kinds = {self.places.kind(each) for each in tensors}
        if func is aten.copy_.default and DEVICE in kinds and len(kinds) > 1:
            return self._copy(*args, **kwargs)
        if DEVICE in kinds:
            for each in tensors:
                if each.dim() and self.places.kind(each) != DEVICE:
                    raise Limit(f"the simulator mixes no memory of the device and of the host in torch's {_name(func)}")
            return (self._queue if _gives_tensors(func) else self._wait_for)(func, args, kwargs)
        if PINNED in kinds:
            self._touch(func, args, kwargs)
        return func(*args, **kwargs)

    def _copy(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        """Between host and device."""
        engine = "h2d" if self.places.kind(target) == DEVICE else "d2h"
        self.device.copy(engine, target, source, non_blocking, self._owner((target, source)))
        return target

    def _queue(self, func, args, kwargs):
        """An operation on device memory alone: its results are there once it has run."""
        flat, tree = tree_flatten((args, kwargs))
        shapes = [_meta(each) for each in flat]
        like_args, like_kwargs = tree_unflatten(shapes, tree)
        try:
            like = func(*like_args, **like_kwargs)
        except NotImplementedError as error:
            text = " ".join(str(error).split())[:80]
            raise Limit(f"the simulator does not know how torch's {_name(func)} is queued ({text})") from None
        # An element that lies on the host goes along by value, as it does to a kernel.
        own = [isinstance(each, torch.Tensor) and self.places.kind(each) != DEVICE for each in flat]
        flat = [each.clone() if mine else each for each, mine in zip(flat, own, strict=True)]
        args, kwargs = tree_unflatten(flat, tree)
        given = {id(shape): each for shape, each in zip(shapes, flat, strict=True)}
        made: list[tuple[int, torch.Tensor]] = []

        def result(number: int, shape: Any) -> Any:
            if id(shape) in given or not isinstance(shape, torch.Tensor):
                return given.get(id(shape), shape)
            made.append((number, torch.empty_strided(shape.size(), shape.stride(), dtype=shape.dtype).zero_()))
            self.device.watch(f"the result of {_name(func)}", made[-1][1])
            return made[-1][1]

        leaves, out_tree = tree_flatten(like)
        out = tree_unflatten([result(*each) for each in enumerate(leaves)], out_tree)

        @torch.inference_mode()
        def run() -> None:
            values = tree_flatten(func(*args, **kwargs))[0]
            for number, target in made:
                target.copy_(values[number])

        self.device.cuda.submit(_name(func), "compute", run, work=self._owner(flat))
        return out

    def _wait_for(self, func, args, kwargs):
        """An operation with a result that the host has to know: it waits for the stream."""
        results = []
        run = lambda: results.append(func(*args, **kwargs))  # noqa: E731
        self.device.cuda.submit(_name(func), "d2h", run, wait=True, work=self._owner(args))
        return results[0]

    def _touch(self, func, args, kwargs) -> None:
        """Tells of pinned memory that the host reads and writes."""
        for number, (name, _, writes) in enumerate(arguments(func)):
            value = args[number] if number < len(args) else kwargs.get(name)
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, torch.Tensor) and self.places.kind(each) == PINNED:
                    _touched(self.device, each, writes)

    def _owner(self, flat) -> Work | None:
        """Whose memory the first of these tensors is that has an owner."""
        places = [self.places.of(each) for each in flat if isinstance(each, torch.Tensor)]
        return next((place.work for place in places if place is not None and place.work is not None), None)


class _Calls(TorchFunctionMode):
    """Looks at those calls that never become operations here, because all memory is the CPU's."""

    def __init__(self, device: Device, places: Places):
        super().__init__()
        self.device, self.places = device, places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if not kwargs and func not in _BY_POSITION:
            return func(*args)  # most of what is called are a tensor's attributes
        kwargs = kwargs or {}
        if handler := _HANDLERS.get(func):
            tensor, kind = args[0], self.places.kind(args[0])
            if kind == DEVICE:
                return handler(self, tensor, *args[1:], **kwargs)
            if kind == PINNED and func is torch.Tensor.tolist:
                _touched(self.device, tensor, False)
            if kind == PINNED and func is torch.Tensor.numpy:
                return self.device.host_view(tensor)
        if func is torch.Tensor.cuda or any(map(_is_device, (*args, *kwargs.values()))):
            self._refuse(
                "the simulator cannot tell whose memory it is if a device is given (make it from what is there, as "
                "torch.empty_like does)"
            )
        if kwargs.get("pin_memory") or func is torch.Tensor.pin_memory:
            self._refuse("the simulator knows no pinned memory but that of the slots")
        return func(*args, **kwargs)

    def _refuse(self, what: str) -> None:
        """Raises Limit, unless it is one of the shared parts that asks."""
        frame = sys._getframe()
        while (name := frame.f_globals.get("__name__", "")) == __name__ or name.split(".")[0] == "torch":
            frame = frame.f_back
        if name.split(".")[0] != __name__.split(".")[0]:
            raise Limit(what)

    def _to_host(self, tensor: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        """A copy of device memory on the host; a non-blocking one is pinned."""
        target = torch.zeros(tensor.shape, dtype=tensor.dtype)
        place = self.places.of(tensor)
        if non_blocking:
            self.places.add(target, pinned=True, work=place.work)
            self.device.watch("a pinned copy", target)
        self.device.copy("d2h", target, tensor, non_blocking, place.work)
        return target

    def _to(self, tensor: torch.Tensor, *args, non_blocking: bool = False, **kwargs) -> torch.Tensor:
        if args == ("cpu",) or (not args and kwargs == {"device": "cpu"}):
            return self._to_host(tensor, non_blocking)
        if args and args[0] == "cpu" or "device" in kwargs:
            self._refuse("the simulator knows torch's to with a device, or a dtype, and not with both")
        return tensor.to(*args, **kwargs)

    def _set(self, tensor: torch.Tensor, key: Any, value: Any) -> None:
        """A number goes to a GPU with the kernel: torch makes a tensor of it there."""
        tensor[key] = value if isinstance(value, torch.Tensor) else tensor.new_full((), value)

    def _to_list(self, tensor: torch.Tensor) -> list:
        return self._to_host(tensor).tolist()

    def _to_numpy(self, tensor: torch.Tensor, *args, **kwargs) -> HostView:
        """As torch says it of a GPU's."""
        raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() to copy it to the host first")


_HANDLERS: dict[Callable, Callable] = {
    torch.Tensor.__setitem__: _Calls._set,
    torch.Tensor.cpu: _Calls._to_host,
    torch.Tensor.to: _Calls._to,
    torch.Tensor.tolist: _Calls._to_list,
    torch.Tensor.numpy: _Calls._to_numpy,
    torch.Tensor.__array__: _Calls._to_numpy,
}
# What can be of interest without an argument that is given by its name.
_BY_POSITION = {*_HANDLERS, torch.Tensor.cuda, torch.Tensor.pin_memory}


def _is_device(value: Any) -> bool:
    """Whether it names a device, and not surely the host's memory."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))


def _meta(value: Any) -> Any:
    """The same without content."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def _name(func: torch._ops.OpOverload) -> str:
    return "item" if func is aten._local_scalar_dense.default else func._schema.name.removeprefix("aten::")
