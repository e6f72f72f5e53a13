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
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ..device import Device
from .host_view import HostView
from .own_operations import OwnOperations, caller, package, touched
from .places import DEVICE, PINNED, Places
from .simulator import Limit


@contextmanager
def engine_code(device: Device, places: Places) -> Iterator[None]:
    """Around an engine's code: queues its own operations on device memory. Device work that runs meanwhile is left
    alone.

    Args:
        device: a simulated one.
        places: what is not ordinary memory of the host.
    """
    with OwnOperations(device, places), _Calls(device, places):
        device.simulator.around = _aside
        try:
            yield
        finally:
            device.simulator.around = nullcontext


@contextmanager
def _aside() -> Iterator[None]:
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


class _Calls(TorchFunctionMode):
    """Looks at those calls that never become operations here, because all memory is the CPU's."""

    def __init__(self, device: Device, places: Places):
        super().__init__()
        self.device, self.places = device, places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if not kwargs and func not in _BY_POSITION:
            return func(*args)  # most of what is called are a tensor's attributes
        kwargs = kwargs or {}
        if _asked_by_the_shared_parts():
            return func(*args, **kwargs)
        if handler := _HANDLERS.get(func):
            tensor, kind = args[0], self.places.kind(args[0])
            if kind == DEVICE:
                return handler(self, tensor, *args[1:], **kwargs)
            if kind == PINNED and func in (torch.Tensor.tolist, torch.Tensor.__array__):
                touched(self.device, tensor, False)
            if kind == PINNED and func is torch.Tensor.numpy:
                return self.device.host_view(tensor)
        if func is torch.Tensor.cuda or any(map(_is_device, (*args, *kwargs.values()))):
            raise Limit(
                "the simulator cannot tell whose memory it is if a device is given (make it from what is there, as "
                "torch.empty_like does)"
            )
        if kwargs.get("pin_memory") or func is torch.Tensor.pin_memory:
            raise Limit("the simulator knows no pinned memory but that of the slots")
        return func(*args, **kwargs)

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
        if args and args[0] == "cpu" or "device" in kwargs or any(map(_is_device, args)):
            raise Limit("the simulator knows torch's to with 'cpu', or with a dtype, and not with more")
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


def _asked_by_the_shared_parts() -> bool:
    """Whether a call comes from this package, and so from no engine."""
    return package(caller()) == package(sys._getframe())


def _is_device(value: Any) -> bool:
    """Whether it names a device, and not surely the host's memory."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))
