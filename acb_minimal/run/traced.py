"""A CUDA GPU that records what host and device do: timing events around device work, on the host's clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from ..device import Work
from ..trace.spans import COPIES, ENGINES, SWAPS, Trace, number_of
from .clocks import host_times, moment
from .timed import TimedCudaDevice


class TracedCudaDevice(TimedCudaDevice):
    """A CUDA GPU with a trace. See timed.Machine."""

    def __init__(self):
        super().__init__()
        self.trace = Trace(self.name)
        self.cuda = traced_cuda(self)
        self.captured: Work | None = None  # what the work of the graph that is being captured is for
        self._pending: list[tuple] = []  # device spans whose events have not been read yet

    def begin(self) -> float:
        self.cuda.synchronize()
        self.trace.spans.clear()
        self._pending.clear()
        self._began = moment(self.clock)
        return self.clock()

    def finish(self) -> None:
        self.cuda.synchronize()
        if not self._pending:
            return
        events = [event for span in self._pending for event in span[2:4]]
        times = iter(host_times(self._began, moment(self.clock), events))
        for lane, name, _, _, *rest in self._pending:
            self.trace.add(lane, name, next(times), next(times), *rest)
        self._pending.clear()

    @contextmanager
    def launching(self, engine: str, name: str, work: Work | None) -> Iterator[None]:
        """Around the launch of device work on the current stream: notes when it is launched and when it runs."""
        if torch.cuda.is_current_stream_capturing():
            self.captured = work
            yield
            return
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        launched = self.clock()
        start.record()
        yield
        end.record()
        batch_number, slot = number_of(work), work.name if work else None
        self.trace.add("CPU", name, launched, self.clock(), batch_number, slot)
        self._pending.append((ENGINES[engine], name, start, end, batch_number, slot, launched))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what makes the host wait: notes how long."""
        start = self.clock()
        yield
        self.trace.add("CPU", "wait", start, self.clock())

    def copy(
        self, engine: str, target: torch.Tensor, source: torch.Tensor, non_blocking: bool, work: Work | None = None
    ) -> None:
        with self.launching(engine, COPIES[engine], work):
            super().copy(engine, target, source, True, work)
        if not non_blocking:  # all that a blocking copy from pinned memory is, but visible to the trace
            with self.waiting():
                torch.cuda.current_stream().synchronize()

    def swap(self, engine: str, run: Callable[[], None], nbytes: int, calls: int) -> None:
        with self.launching(engine, SWAPS[engine], None):
            run()

    def compute(self, what: str, work: Work, run: Callable[[], None]) -> None:
        with self.launching("compute", what, work):
            run()

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        self.trace.add("CPU", what, since, self.clock(), batch_number, slot)


def traced_cuda(device: TracedCudaDevice) -> SimpleNamespace:
    """torch.cuda for a chapter, with word to the device of what does not come by it: waits and replays."""

    class Event(torch.cuda.Event):
        def synchronize(self) -> None:
            with device.waiting():
                super().synchronize()

    class Stream(torch.cuda.Stream):
        def synchronize(self) -> None:
            with device.waiting():
                super().synchronize()

    class CUDAGraph(torch.cuda.CUDAGraph):
        def capture_end(self) -> None:
            super().capture_end()
            self.work = device.captured

        def replay(self) -> None:
            with device.launching("compute", "replay", self.work):
                super().replay()

    return SimpleNamespace(**{**vars(torch.cuda), "Event": Event, "Stream": Stream, "CUDAGraph": CUDAGraph})
