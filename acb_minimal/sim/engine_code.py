"""An engine's own torch operations, beside those of the shared parts.

On a GPU, an operation on device memory is queued on the current stream, and a copy to or from it too. Here that memory
is the CPU's, and torch would run such an operation at once. So while an engine's code runs, every torch operation is
looked at: one on device memory is queued as CUDA queues it, one that needs the result makes the host wait, and what the
host does with pinned memory is told to who looks on. All others run as they are.

What is queued takes its place and no time, but copies: they take what copies take. What cannot be told apart from
something else here is refused, and is a Limit.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import zip_longest
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from ..device import Work
from ..trace.spans import number_of
from .memory import DEVICE, HOST, PINNED
from .operations import Limit, Operation

aten, PACKAGE = torch.ops.aten, __name__.partition(".")[0]


@contextmanager
def engine_code(device: Any) -> Iterator[None]:
    """Around an engine's code on a SimulatedDevice: queues its own operations on device memory. Device work that runs
    meanwhile is left alone."""
    nothing = patch.object(torch.Tensor, "record_stream", lambda tensor, stream: None)  # nobody frees memory here
    with _Operations(device), _Calls(device), nothing:
        device.simulator.around = _aside
        try:
            yield
        finally:
            device.simulator.around = nullcontext


@contextmanager
def _aside() -> Iterator[None]:
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


# --- what torch hands to its dispatcher ---


def accesses(func: torch._ops.OpOverload, args: tuple, kwargs: dict) -> Iterator[tuple[torch.Tensor, bool, bool]]:
    """Each tensor that an operation is given, whether the result can be a view of it, and whether it is written."""
    for value, (name, viewed, writes) in zip_longest(args, _arguments(func)):
        value = kwargs.get(name) if value is None else value
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, torch.Tensor):
                yield each, viewed, writes


@cache
def _arguments(func: torch._ops.OpOverload) -> list[tuple[str, bool, bool]]:
    infos = [(argument.name, argument.alias_info) for argument in func._schema.arguments]
    return [(name, bool(info and not info.is_write), bool(info and info.is_write)) for name, info in infos]


@cache
def _kind(func: torch._ops.OpOverload) -> tuple[bool, bool]:
    """Whether it only makes a view, which touches no memory; and whether all that it gives are tensors."""
    views = any(viewed for _, viewed, _ in _arguments(func))
    return views, all("Tensor" in str(returned.type) for returned in func._schema.returns)


class _Operations(TorchDispatchMode):
    """Looks at every operation, when all that torch makes of it by itself is done."""

    def __init__(self, device: Any):
        super().__init__()
        self.device = device
        # What was queued last, its parts, and in which line, in which queue and as which operation that was.
        self._newest: tuple[Operation | None, list[Callable[[], None]], tuple] = None, [], ()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch wraps what follows, against being compiled, which takes longer than what it does

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, (is_view, gives_tensors) = kwargs or {}, _kind(func)
        if is_view:
            return func(*args, **kwargs)
        given = [(each, self.device.places.kind(each), writes) for each, _, writes in accesses(func, args, kwargs)]
        kinds = {kind for _, kind, _ in given}
        if func is aten.copy_.default and DEVICE in kinds and len(kinds) > 1:
            return self._copy(*args, **kwargs)
        if DEVICE in kinds:
            if any(each.dim() and kind != DEVICE for each, kind, _ in given):
                raise Limit(f"the simulator mixes no memory of the device and of the host in torch's {_name(func)}")
            owner = self._owner(each for each, _, _ in given)
            return (self._queue if gives_tensors else self._wait_for)(func, args, kwargs, owner)
        for each, kind, writes in given:
            if kind == PINNED:
                touched(self.device, each, writes)
        return func(*args, **kwargs)

    def _copy(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        """Between host and device."""
        engine = "h2d" if self.device.places.kind(target) == DEVICE else "d2h"
        self.device.copy(engine, target, source, non_blocking, self._owner((target, source)))
        return target

    def _queue(self, func, args, kwargs, owner: Work | None):
        """An operation on device memory alone: its results are there once it has run."""
        args, kwargs = tree_map(self._by_value, (args, kwargs))
        shapes = tree_map(_shape, (args, kwargs))
        given = dict(zip(map(id, tree_leaves(shapes)), tree_leaves((args, kwargs)), strict=True))
        try:
            like = func(*shapes[0], **shapes[1])
        except NotImplementedError as error:
            text = " ".join(str(error).split())[:80]
            raise Limit(f"the simulator does not know how torch's {_name(func)} is queued ({text})") from None

        def result(shape: Any) -> Any:
            if id(shape) in given or not isinstance(shape, torch.Tensor):
                return given.get(id(shape), shape)
            made = torch.empty_strided(shape.size(), shape.stride(), dtype=shape.dtype).zero_()
            self.device.watch(f"the result of {_name(func)}", made)
            return made

        results = tree_map(result, like)

        @torch.inference_mode()
        def run() -> None:
            for target, value in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                if target is not value:
                    target.copy_(value)

        self._submit(run, owner)
        return results

    def _submit(self, run: Callable[[], None], owner: Work | None) -> None:
        """Queues it; in one piece with what the same line has queued, if nothing else has been since."""
        simulator, frame, (operation, parts, place) = self.device.simulator, caller(), self._newest
        here = frame.f_code.co_filename, frame.f_lineno, simulator.current[-1]
        if operation is not None and not operation.done and place == (*here, simulator.queued):
            parts.append(run)
            return
        parts = [run]
        run_all = lambda: [part() for part in parts]  # noqa: E731
        operation = simulator.submit("torch operation", "compute", run_all, work=owner, more=True)
        self._newest = operation, parts, (*here, simulator.queued)

    def _wait_for(self, func, args, kwargs, owner: Work | None):
        """An operation with a result that the host has to know: it waits for the stream."""
        results = []
        run = lambda: results.append(func(*args, **kwargs))  # noqa: E731
        self.device.simulator.submit(_name(func), "d2h", run, wait=True, work=owner)
        return results[0]

    def _by_value(self, value: Any) -> Any:
        """An element that lies on the host goes along by value, as it does to a kernel."""
        on_host = isinstance(value, torch.Tensor) and self.device.places.kind(value) != DEVICE
        return value.clone() if on_host else value

    def _owner(self, tensors: Iterable[torch.Tensor]) -> Work | None:
        """Whose memory these tensors are; of several owners, the one with the newest batch."""
        places = filter(None, map(self.device.places.of, tensors))
        owners = [place.work for place in places if place.work is not None]
        return max(owners, key=lambda work: -1 if (number := number_of(work)) is None else number, default=None)


def touched(device: Any, memory: torch.Tensor, writes: bool) -> None:
    """The host reads or writes pinned memory as a tensor."""
    device.simulator.observer.touched(device.host_view(memory), writes)


def _shape(value: Any) -> Any:
    """The same without content."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def _name(func: torch._ops.OpOverload) -> str:
    return "item" if func is aten._local_scalar_dense.default else func._schema.name.removeprefix("aten::")


# --- calls that never become operations here, because all memory is the CPU's ---


class _Calls(TorchFunctionMode):
    """Looks at these."""

    def __init__(self, device: Any):
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if not kwargs and func not in _BY_POSITION:
            return func(*args)  # most of what is called are a tensor's attributes
        kwargs = kwargs or {}
        if _package(caller()) == PACKAGE:  # asked by the shared parts
            return func(*args, **kwargs)
        handler = _HANDLERS.get(func)
        kind = self.device.places.kind(args[0]) if handler else HOST
        if kind == DEVICE:
            return handler(self, *args, **kwargs)
        if kind == PINNED and func in (torch.Tensor.tolist, torch.Tensor.__array__):
            touched(self.device, args[0], False)
        if kind == PINNED and func is torch.Tensor.numpy:
            return self.device.host_view(args[0])
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
        place = self.device.places.of(tensor)
        if non_blocking:
            self.device.places.add(target, PINNED, place.work)
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

    def _to_numpy(self, tensor: torch.Tensor, *args, **kwargs):
        """As torch says it of a GPU's."""
        raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() to copy it to the host first")


_HANDLERS: dict[Callable, Callable] = {
    torch.Tensor.__setitem__: _Calls._set,
    torch.Tensor.cpu: _Calls._to_host,
    torch.Tensor.to: _Calls._to,
    torch.Tensor.tolist: lambda calls, tensor: calls._to_host(tensor).tolist(),
    torch.Tensor.numpy: _Calls._to_numpy,
    torch.Tensor.__array__: _Calls._to_numpy,
}
# What can be of interest without an argument that is given by its name.
_BY_POSITION = {*_HANDLERS, torch.Tensor.cuda, torch.Tensor.pin_memory}


def _is_device(value: Any) -> bool:
    """Whether it names a device, and not surely the host's memory."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))


def caller() -> FrameType:
    """Whoever has called torch."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") == __name__ or _package(frame) == "torch":
        frame = frame.f_back
    return frame


def _package(frame: FrameType) -> str:
    """The package of the code that runs there."""
    return frame.f_globals.get("__name__", "").partition(".")[0]
