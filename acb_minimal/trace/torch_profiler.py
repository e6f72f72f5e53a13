"""What torch's profiler (Kineto) writes, as columns of numbers.

A trace of ours (spans.py) is written likewise, but for one thing: in it a kernel is all that a call launched, which is
many kernels, and has arguments that say which batch it was for and what of its time they run."""

import json
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import InputError
from .stretches import Stretches

DEVICE = ("kernel", "gpu_memset", "gpu_memcpy")
CALLS = ("cuda_runtime", "cuda_driver")
HOST = (*CALLS, "cpu_op", "user_annotation", "python_function")
CATEGORIES = (*DEVICE, *HOST, "overhead", "Trace")  # overhead is the profiler's own or the driver's
NUMBER = {category: number for number, category in enumerate(CATEGORIES)}
COLUMNS = {"category": "b", "name": "i", "start": "q", "end": "q", "thread": "i", "correlation": "q", "gpu": "h",
           "stream": "i"}  # fmt: skip
TOO_LATE = 2.0**52  # microseconds: a float of this size counts in whole ones
TO_HOST, FROM_HOST = "DtoH|DeviceToHost", "HtoD|HostToDevice"  # copies
WAIT = "Synchronize|[Mm]emcpy(?!.*Async)"
ASLEEP = r"built-in (?:method|function) (?:acquire|sleep|select|poll|recv\w*|wait)\b"
BLOCKED = 10  # times as long as the usual call of its name, and at least
SHORTEST_BLOCKED = 100_000  # ns
AT_ONCE = 20_000  # ns: a copy that the host does not wait for takes the call no longer


@dataclass(frozen=True)
class Recording:
    """The events of a trace, a row each, in the order of the file.

    Attributes:
        zero: microseconds, by the file's clock, from which `start` and `end` count: its first event.
        names: the different names.
        gpus: what the different GPUs are called.
        category: index into CATEGORIES. int8 [events].
        name: index into `names`. int32 [events].
        start, end: nanoseconds from `zero`, so that parts add up exactly. int64 [events].
        thread: index into `threads`. int32 [events].
        correlation: what a call has in common with what it launched; 0 if not known. int64 [events].
        gpu: index into `gpus`, -1 for what the host did. int16 [events].
        stream: a number for each stream of each GPU, -1 for what the host did. int32 [events].
        threads: process and thread of each, as the file has them.
        told: by row, the arguments of the kernels of a trace of ours.
        other: categories that it knows nothing of.
        header: what the file says beside its events.
    """

    zero: float
    names: list[str]
    gpus: list[str]
    category: np.ndarray
    name: np.ndarray
    start: np.ndarray
    end: np.ndarray
    thread: np.ndarray
    correlation: np.ndarray
    gpu: np.ndarray
    stream: np.ndarray
    threads: list[tuple]
    told: dict[int, dict]
    other: set[str]
    header: dict = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[dict]) -> "Recording":
        """Of the `traceEvents`; those of other categories are passed over.

        Raises:
            InputError: an event lacks what it must have, or its times are too large to tell microseconds apart.
        """
        zero, told, other = None, {}, set()
        names, threads, gpus, streams = {}, {}, {}, {}
        columns = [array(kind) for kind in COLUMNS.values()]
        for place, event in enumerate(events):
            category = event.get("cat")
            if event.get("ph") != "X" or not isinstance(category, str):
                continue
            if category not in NUMBER:
                other.add(category)
                continue
            try:
                time, length, args, name = event["ts"], event.get("dur") or 0, event.get("args") or {}, event["name"]
                if isinstance(time, float) and not abs(time) < TOO_LATE:
                    raise ValueError(f"its time is {time:g} us: a float that large does not count microseconds")
                if not isinstance(name, str):
                    raise ValueError(f"its name is {name!r}, not text")
                zero = time if zero is None else zero
                start = round(1000 * (time - zero))
                gpu = stream = -1
                if category in DEVICE:
                    which = args.get("device", event.get("pid"))
                    gpu = gpus.setdefault(which, len(gpus))
                    stream = streams.setdefault((which, args.get("stream", event.get("tid"))), len(streams))
                    if category == "kernel" and "batch" in args:
                        told[len(columns[0])] = args
                thread = threads.setdefault((event.get("pid"), event.get("tid")), len(threads))
                number, end = names.setdefault(name, len(names)), start + max(round(1000 * length), 0)
                correlation = _whole(args.get("correlation") or 0)
                row = NUMBER[category], number, start, end, thread, correlation, gpu, stream
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                raise InputError(f"event {place} is not as it should be: {what}: {json.dumps(event)[:100]}") from error
        arrays = {name: np.frombuffer(column, column.typecode) for name, column in zip(COLUMNS, columns, strict=True)}
        first = int(arrays["start"].min()) if len(arrays["start"]) else 0
        arrays["start"], arrays["end"] = arrays["start"] - first, arrays["end"] - first
        made = (zero or 0) + first / 1000, list(names), [f"GPU {gpu}" for gpu in gpus]
        return cls(*made, **arrays, threads=list(threads), told=told, other=other)

    def rows(self, *categories: str) -> np.ndarray:
        """The rows of these categories, in order. int [rows]."""
        return np.flatnonzero(np.isin(self.category, [NUMBER[category] for category in categories]))

    def named(self, pattern: str, rows: np.ndarray) -> np.ndarray:
        """Whether the name of each of the rows has the pattern in it. bool [rows]."""
        return np.array([bool(re.search(pattern, name)) for name in self.names], dtype=bool)[self.name[rows]]

    def called(self, pattern: str, *categories: str) -> np.ndarray:
        """The rows of these categories whose names have the pattern in them, in order. int [rows]."""
        rows = self.rows(*categories)
        return rows[self.named(pattern, rows)]

    def text(self, row: int) -> str:
        """The name of a row."""
        return self.names[self.name[row]]

    def when(self, rows: np.ndarray) -> Stretches:
        """The time that any of the rows takes."""
        return Stretches.union(self.start[rows], self.end[rows])

    @cached_property
    def _calls(self) -> tuple[np.ndarray, np.ndarray]:
        """The correlation numbers of calls, in order, and the row of the last call with each."""
        rows = self.rows(*CALLS)[::-1]
        rows = rows[self.correlation[rows] != 0]
        numbers, last = np.unique(self.correlation[rows], return_index=True)
        return numbers, rows[last]

    def call_of(self, rows: np.ndarray) -> np.ndarray:
        """The row of the call that launched each of the rows; -1 if it is not in the trace. int [rows]."""
        numbers, calls = self._calls
        place = np.searchsorted(numbers, self.correlation[rows])
        known = np.append(numbers, 0)[place] == self.correlation[rows]
        return np.where(known, np.append(calls, -1)[place], -1)

    def work(self) -> np.ndarray:
        """The rows of what keeps a GPU busy: kernels, memsets and copies within devices; a copy to or from the host
        leaves its SMs free. int [rows]."""
        return np.setdiff1d(self.rows(*DEVICE), self.called(f"{TO_HOST}|{FROM_HOST}", "gpu_memcpy"))

    def copies(self, to_host: bool) -> np.ndarray:
        """The rows of the copies to the host, or from it. int [rows]."""
        return self.called(TO_HOST if to_host else FROM_HOST, "gpu_memcpy")

    @cached_property
    def waits(self) -> np.ndarray:
        """The rows of calls in which the host waits for a GPU. int [rows]."""
        return self.called(WAIT, *CALLS)

    def blocked(self) -> np.ndarray:
        """The rows in which the host had to wait for something else, or was asleep. int [rows].

        A call that should return at once, but took many times as long as others of its name, was made to wait: for room
        in the queue of launches, or for memory that is not pinned. Python's own waits show if its frames are recorded.
        """
        calls = np.setdiff1d(self.called("Launch|Memcpy.*Async", *CALLS), self.waits)
        length, blocked = self.end[calls] - self.start[calls], np.zeros(len(calls), dtype=bool)
        for name in np.unique(self.name[calls]):
            same = self.name[calls] == name
            blocked[same] = length[same] > max(BLOCKED * np.median(length[same]), SHORTEST_BLOCKED)
        slept = self.called(ASLEEP, "python_function")
        return np.unique(np.concatenate((calls[blocked], slept, self.copied_by_waiting())))

    def copied_by_waiting(self) -> np.ndarray:
        """The rows of calls that copied to the host and returned when that was done: `.item()`, `.cpu()`. int [rows].
        They are called asynchronous, and are not, where the memory is not pinned."""
        copies = self.copies(to_host=True)
        calls = self.call_of(copies)
        waited = (self.end[calls] >= self.end[copies]) & (self.end[calls] - self.start[calls] > AT_ONCE)
        return np.unique(calls[(calls >= 0) & waited & self.named("Async", calls)])

    @property
    def rank(self) -> tuple[int, int] | None:
        """Of the process, among how many of one run; None if the trace does not say."""
        told = self.header.get("distributedInfo")
        rank, size = (told.get(name) for name in ("rank", "world_size")) if isinstance(told, dict) else (None, None)
        return None if rank is None else (rank, size)


def _whole(number) -> int:
    """Of a correlation number: some tools write whole ones as floats."""
    if isinstance(number, float) and not number.is_integer():
        raise ValueError(f"its correlation is {number!r}, no whole number")
    return int(number)
