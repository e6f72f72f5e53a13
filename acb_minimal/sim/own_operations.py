"""Those of an engine's own torch operations that torch hands to its dispatcher: what is queued of them, and how."""

import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..device import Device, Work
from ..trace.spans import number_of
from .places import DEVICE, PINNED, Places
from .simulator import Limit, Operation, Queue

aten = torch.ops.aten
LOOKING_ON = (__name__, f"{__package__}.engine_code")  # modules between an engine and torch: this and its mode


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


class _Own(NamedTuple):
    """Operations that are queued as one.

    Attributes:
        operation: what is queued.
        queued: how many operations there had been by then, this one included.
        line: the engine's, by file and number.
        parts: what to run.
    """

    operation: Operation
    queued: int
    line: tuple[str, int]
    parts: list[Callable[[], None]]

    def takes_more(self, queued: int, queue: Queue, line: tuple[str, int]) -> bool:
        """Whether what this line queues now is part of it."""
        same = queued == self.queued and queue is self.operation.queue and line == self.line
        return same and not self.operation.done


class OwnOperations(TorchDispatchMode):
    """Looks at every operation, when all that torch makes of it by itself is done."""

    def __init__(self, device: Device, places: Places):
        super().__init__()
        self.device, self.places = device, places
        self._newest: _Own | None = None

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

        self._submit(run, self._owner(flat))
        return out

    def _submit(self, run: Callable[[], None], work: Work | None) -> None:
        """Queues it; in one piece with what the same line has queued, if nothing else has been since."""
        simulator, line, newest = self.device.simulator, _line(), self._newest
        if newest is not None and newest.takes_more(simulator.queued, simulator.current[-1], line):
            newest.parts.append(run)
            return
        parts = [run]

        def run_all() -> None:
            for part in parts:
                part()

        operation = simulator.submit("torch operation", "compute", run_all, work=work, more=True)
        self._newest = _Own(operation, simulator.queued, line, parts) if operation is not None else None

    def _wait_for(self, func, args, kwargs):
        """An operation with a result that the host has to know: it waits for the stream."""
        results = []
        run = lambda: results.append(func(*args, **kwargs))  # noqa: E731
        self.device.simulator.submit(_name(func), "d2h", run, wait=True, work=self._owner(args))
        return results[0]

    def _touch(self, func, args, kwargs) -> None:
        """Tells of pinned memory that the host reads and writes."""
        for number, (name, _, writes) in enumerate(arguments(func)):
            value = args[number] if number < len(args) else kwargs.get(name)
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, torch.Tensor) and self.places.kind(each) == PINNED:
                    touched(self.device, each, writes)

    def _owner(self, flat) -> Work | None:
        """Whose memory these tensors are; of several owners, the one with the newest batch."""
        places = [self.places.of(each) for each in flat if isinstance(each, torch.Tensor)]
        owners = [place.work for place in places if place is not None and place.work is not None]
        return max(owners, key=lambda work: -1 if (number := number_of(work)) is None else number, default=None)


def touched(device: Device, memory: torch.Tensor, writes: bool) -> None:
    """The host reads or writes pinned memory as a tensor."""
    device.simulator.observer.touched(device.host_view(memory), writes)


def _line() -> tuple[str, int]:
    """The engine's line that the host is in, by file and number."""
    frame = caller()
    return frame.f_code.co_filename, frame.f_lineno


def caller() -> FrameType:
    """Whoever has called torch."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") in LOOKING_ON or package(frame) == "torch":
        frame = frame.f_back
    return frame


def package(frame: FrameType) -> str:
    """The package of the code that runs there."""
    return frame.f_globals.get("__name__", "").split(".")[0]


def _meta(value: Any) -> Any:
    """The same without content."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def _name(func: torch._ops.OpOverload) -> str:
    return "item" if func is aten._local_scalar_dense.default else func._schema.name.removeprefix("aten::")
