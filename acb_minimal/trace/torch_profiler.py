"""The gaps of a GPU in a trace of torch's profiler (Kineto), and what each of them was.

A GPU is busy while a kernel, a memset or a copy within devices runs on it. A copy to or from the host leaves
its SMs free and does not count, as in `Trace`. Every other moment from the first such work to the last is in a gap,
and the launch of the kernel that ends a gap tells what it was:

    device gap   its call had returned 10 us before the gap began, or had launched other kernels before: the GPU had
                 work, and took its time. So it does between any two kernels: under 2 us the host is not at fault.
    bubble       between the call before and this one, the host was done with a batch: it returned from a wait, or
                 launched a copy of tokens to the host. Every engine has such a copy once for every batch, and an
                 asynchronous one has it between the launches of two batches too, though it waits elsewhere.
    launch gap   any other: the host was in the middle of launching a batch.

Of waits, only those of the thread that launches count: what a second thread waits for says nothing about the first.
Its copies count if the first launches none. A kernel whose launch is not in the trace is taken to be launched as late
as can be: as it starts, or by the next known launch on its stream.

What a profiler says is not what runs without it: launching is slower, and kernels of a graph replay get gaps of their
own. Hold its step time against that of a run without it. A kernel that waits for another GPU counts as busy.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..errors import InputError

Kind = Literal["bubble", "launch gap", "device gap"]
KINDS: tuple[Kind, ...] = ("bubble", "launch gap", "device gap")
DEVICE = ("kernel", "gpu_memset", "gpu_memcpy")
CALLS = ("cuda_runtime", "cuda_driver")
HOST = (*CALLS, "cpu_op", "user_annotation", "python_function")
NOTHING = "(nothing recorded: Python, or another process)"
SHORT = 2_000  # ns: no longer does a GPU take from one kernel to the next when both are queued
ON_ITS_WAY = 10_000  # ns: a call that returned later than this before a gap may not have reached the GPU by then
LARGEST = 5  # gaps that are looked into


class Idle(NamedTuple):
    """Gaps of one kind: their seconds, and how many they are."""

    seconds: float
    count: int


@dataclass(frozen=True)
class Gap:
    """A stretch of time without work on the GPU.

    start   seconds since the trace's first event, as Perfetto counts them
    host    what the host did in it and for how long, at most three names; threads are added up
    """

    start: float
    seconds: float
    kind: Kind
    host: list[tuple[str, float]]


@dataclass(frozen=True)
class Report:
    """How one GPU spent its time; `kernel_seconds` and all gaps add up to `window`.

    gpu             its name in the trace
    window          seconds from the start of its first work to the end of its last
    kernels         how many there are, memsets and copies within devices included; launches, in a trace of ours
    kernel_seconds  with any of them running; in a trace of ours that lacks kernel times, with a batch on the GPU
    launch_gaps     None if the trace cannot show them
    batches         how many batches were told apart; None if nothing tells them apart
    told_apart      by what
    assumed         share of kernels, 0 to 1, whose launch is not in the trace
    largest         the largest gaps, first the largest; in a trace of ours, of bubbles alone
    """

    gpu: str
    window: float
    kernels: int
    kernel_seconds: float
    bubbles: Idle
    launch_gaps: Idle | None
    device_gaps: Idle
    batches: int | None
    told_apart: str
    assumed: float
    largest: list[Gap]

    @property
    def busy(self) -> float:
        """Share of the window, 0 to 1."""
        return self.kernel_seconds / self.window if self.window else 1.0

    def gaps(self) -> dict[Kind, Idle]:
        """The gaps of each kind that the trace can show."""
        kinds = zip(KINDS, (self.bubbles, self.launch_gaps, self.device_gaps), strict=True)
        return {kind: idle for kind, idle in kinds if idle is not None}


def profiled(spans: dict[str, list[dict]]) -> list[Report]:
    """Of a trace that torch's profiler wrote."""
    zero = min(event["ts"] for category in (*DEVICE, *HOST, "Trace") for event in spans[category])
    host = Columns.of([event for category in HOST for event in spans[category]], zero)
    calls = [event for category in CALLS for event in spans[category]]  # as many of the first rows of `host`
    row_of = {number: row for row, event in enumerate(calls) if (number := _args(event).get("correlation"))}
    waiting = {name for name in set(host.name) if re.search("Synchronize|[Mm]emcpy(?!.*Async)", name)}
    waits = np.array([row for row, event in enumerate(calls) if event["name"] in waiting], dtype=int)
    work, downloads = defaultdict(list), defaultdict(list)
    for category in DEVICE:
        for event in spans[category]:
            gpu = _args(event).get("device", event["pid"])
            if category != "gpu_memcpy" or not re.search("HtoD|DtoH|HostToDevice|DeviceToHost", event["name"]):
                work[gpu].append(event)
            elif re.search("DtoH|DeviceToHost", event["name"]):
                downloads[gpu].append(event)
    if not work:
        raise InputError("no kernel runs in this trace, only copies to and from the host do")
    return [
        _report(
            f"GPU {gpu}",
            _Work.of(work[gpu], zero, host, row_of),
            _Work.of(downloads[gpu], zero, host, row_of),
            host,
            waits,
        )
        for gpu in sorted(work, key=str)
    ]


def _report(gpu: str, work: "_Work", downloads: "_Work", host: "Columns", waits: np.ndarray) -> Report:
    """Of one GPU. `waits` are the rows of `host` in which a thread waits."""
    ended = work.follows_end(downloads, host.end[waits], host.thread[waits])
    reach = np.maximum.accumulate(work.end)
    by = np.flatnonzero(work.start[1:] > reach[:-1]) + 1  # the work that ends each gap
    start, length = reach[by - 1], work.start[by] - reach[by - 1]
    queued = (work.returned[by] <= start - ON_ITS_WAY) | ~work.first[by] | (length < SHORT)
    kind = np.where(queued, 2, np.where(ended[by], 0, 1))
    idle = [Idle(int(length[kind == each].sum()) / 1e9, int((kind == each).sum())) for each in range(3)]
    order = np.argsort(-length, kind="stable")[:LARGEST]
    largest = [
        Gap(begins / 1e9, (ends - begins) / 1e9, KINDS[number], host.names(begins, ends))
        for begins, ends, number in zip(*(each[order].tolist() for each in (start, start + length, kind)), strict=True)
    ]
    window = int(reach[-1] - work.start[0])
    told = len(downloads.start) or len(waits)
    return Report(
        gpu=gpu,
        window=window / 1e9,
        kernels=len(work.start),
        kernel_seconds=(window - int(length.sum())) / 1e9,
        bubbles=idle[0],
        launch_gaps=idle[1],
        device_gaps=idle[2],
        batches=_batches(ended) if told else None,
        told_apart=("copies to the host and waits" if len(downloads.start) else "waits") if told else "nothing",
        assumed=1 - float(work.known.mean()),
        largest=largest,
    )


def _batches(ended: np.ndarray) -> int:
    """How many batches, given whether a batch ended just before each kernel.

    A wait for an upload cuts a batch as well, a few kernels into it. So only stretches that have a tenth as many
    kernels as the usual one count, which is the one that a kernel picked at random is most likely in.
    """
    sizes = np.sort(np.bincount(np.cumsum(ended)))
    usual = sizes[np.searchsorted(np.cumsum(sizes), len(ended) / 2)]
    return int((10 * sizes >= usual).sum())


@dataclass(frozen=True)
class Columns:
    """Host events, a row each: nanoseconds of start and end, a number for the thread."""

    name: list[str]
    start: np.ndarray
    end: np.ndarray
    thread: np.ndarray

    @classmethod
    def of(cls, events: list[dict], zero: float) -> "Columns":
        threads: dict[tuple, int] = {}
        thread = [threads.setdefault((event["pid"], event["tid"]), len(threads)) for event in events]
        return cls([event["name"] for event in events], *_times(events, zero), np.array(thread, dtype=int))

    def names(self, start: int, end: int, most: int = 3) -> list[tuple[str, float]]:
        """What the threads did from `start` to `end`, and for how many seconds each; only innermost events count."""
        rows = np.flatnonzero((self.start < end) & (self.end > start))
        spent, covered = Counter(), []
        for thread in np.unique(self.thread[rows]):
            mine = rows[self.thread[rows] == thread]
            mine = mine[np.lexsort((-self.end[mine], self.start[mine]))]
            stack, now = [], start
            for row in (*mine, None):
                until = end if row is None else max(int(self.start[row]), start)
                while stack and now < until:  # what is on the stack runs until the next event starts
                    stop = max(now, min(int(self.end[stack[-1]]), until))
                    spent[self.name[stack[-1]]] += stop - now
                    covered.append((now, stop))
                    now = stop
                    if self.end[stack[-1]] <= now:
                        stack.pop()
                now = until
                stack.append(row)
        unseen, now = 0, start
        for begins, stops in sorted(covered):
            unseen, now = unseen + max(begins - now, 0), max(now, stops)
        spent[NOTHING] = unseen + end - now
        return [(name, int(taken) / 1e9) for name, taken in spent.most_common(most) if taken]


@dataclass(frozen=True)
class _Work:
    """Kernels, or copies, of one GPU by start; times in nanoseconds.

    called, returned  when the call that launched it began and ended
    thread            that made the call; -1 if not known
    known             whether the call is in the trace
    first             whether it is the first of those that the call launched: a graph has many
    """

    start: np.ndarray
    end: np.ndarray
    called: np.ndarray
    returned: np.ndarray
    thread: np.ndarray
    known: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, events: list[dict], zero: float, host: Columns, row_of: dict) -> "_Work":
        start, end = _times(events, zero)
        order = np.argsort(start, kind="stable")
        start, end, events = start[order], end[order], [events[i] for i in order]
        numbers = [_args(event).get("correlation") for event in events]
        row = np.array([row_of.get(number, -1) for number in numbers], dtype=int)
        known = row >= 0
        # No call is later than what it launched; but two clocks differ, and two processes may use one correlation id.
        called = np.where(known, np.minimum(np.append(host.start, 0)[row], start), start)
        returned = np.where(known, np.append(host.end, 0)[row], start)
        thread = np.where(known, np.append(host.thread, 0)[row], -1)
        if known.any():
            thread[~known] = np.bincount(thread[known]).argmax()
        if not known.all():
            streams = _numbered(_args(event).get("stream", event.get("tid")) for event in events)
            for stream in np.unique(streams):
                at = np.flatnonzero(streams == stream)
                latest = np.minimum.accumulate(called[at][::-1])[::-1]  # a stream runs in the order of launching
                called[at] = np.where(known[at], called[at], latest)
                returned[at] = np.where(known[at], returned[at], latest)
        launches = _numbered(number or -i for i, number in enumerate(numbers, start=1))
        first = np.zeros(len(start), dtype=bool)
        first[np.unique(launches, return_index=True)[1]] = True
        return cls(start, end, called, returned, thread, known, first)

    def follows_end(self, downloads: "_Work", wait_end: np.ndarray, wait_thread: np.ndarray) -> np.ndarray:
        """Whether the host was done with a batch between the last launch before this one and this one. Bool [work]."""
        latest, ended = np.maximum.accumulate(self.called), np.zeros(len(self.called), dtype=bool)
        for thread in np.unique(self.thread):
            own = downloads.thread == thread
            copies = downloads.called[own] if own.any() else downloads.called
            waits = wait_end[wait_thread == thread] if len(downloads.called) else wait_end
            ends = np.sort(np.concatenate((copies, waits - 1)))  # a wait may return in the nanosecond of the next call
            mine = np.flatnonzero(self.thread[1:] == thread) + 1
            ended[mine] = np.searchsorted(ends, self.called[mine]) > np.searchsorted(ends, latest[mine - 1])
        return ended


def _args(event: dict) -> dict:
    return event.get("args") or {}


def _times(events: list[dict], zero: float) -> tuple[np.ndarray, np.ndarray]:
    """Start and end, in whole nanoseconds from `zero`: then parts add up exactly."""
    start = np.array([event["ts"] for event in events], dtype=float) - zero
    length = np.array([event.get("dur") or 0 for event in events], dtype=float)
    if not np.isfinite(start + length).all():
        raise ValueError("its times are not numbers")
    start, length = (np.rint(1e3 * each).astype(np.int64) for each in (start, length))
    return start, start + np.maximum(length, 0)


def _numbered(values: Iterable) -> np.ndarray:
    """A small number for each different value."""
    numbers: dict = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=int)
