"""The gaps of a GPU in a trace of torch's profiler, and what each of them was.

A GPU is busy while a kernel, a memset or a copy within devices runs on it. Every other moment from the first such work
to the last is in a gap, and the launch of the kernel that ends a gap tells what it was:

    kernel gap   its call had returned 10 us before the gap began, or had launched other kernels before: the GPU had
                 work, and took its time. So it does between any two kernels: under 2 us the host is not at fault.
    bubble       between the call before and this one, the host was done with a batch: it returned from a wait, or
                 launched a copy of tokens to the host. Every engine has such a copy once for every batch, and an
                 asynchronous one has it between the launches of two batches too, though it waits elsewhere.
    launch gap   any other: the host was in the middle of launching a batch.

Of waits, only those of the thread that launches count: what a second thread waits for says nothing about the first.
Its copies count if the first launches none. A kernel whose launch is not in the trace is taken to be launched as late
as can be: as it starts, or by the next known launch on its stream.

Between two kernels that are queued a GPU takes its time, about as long every time. As long it would have taken in a
launch gap as well, had the host been faster: that much of each is a kernel gap.

What a profiler says is not what runs without it: launching is slower, and kernels of a graph replay get gaps of their
own. Hold its step time against that of a run without it. A kernel that waits for another GPU counts as busy.

In a trace of ours batches have numbers, and what lies between two of them is a bubble. A kernel is all that a call
launched there, and has gaps inside: how long, not when.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from ..errors import InputError
from .breakdown import inside
from .stretches import Stretches
from .torch_profiler import CALLS, Recording

Kind = Literal["bubble", "launch gap", "kernel gap"]
KINDS: tuple[Kind, ...] = ("bubble", "launch gap", "kernel gap")
SHORT = 2_000  # ns: no longer does a GPU take from one kernel to the next when both are queued
ON_ITS_WAY = 10_000  # ns: a call that returned later than this before a gap may not have reached the GPU by then


class Idle(NamedTuple):
    """Gaps of one kind.

    Attributes:
        seconds: all of them together.
        count: how many they are.
    """

    seconds: float
    count: int


@dataclass(frozen=True)
class Work:
    """Kernels, or copies, of one GPU by start. Times are nanoseconds, int64 [work].

    Attributes:
        row: in the recording. int [work].
        start: on the GPU.
        end: on the GPU.
        called: when the call that launched it began.
        returned: when that call ended.
        thread: that made the call; -1 if not known. int [work].
        known: whether the call is in the trace. bool [work].
        first: whether it is the first of those that the call launched: a graph has many. bool [work].
        call: row of the call; -1 if not known. int [work].
        batch: number of the batch, in a trace of ours; else -1. int [work].
        running: how long kernels run in it: all of its time, but in a trace of ours. -1 if not known.
        gaps: how long it is in kernel gaps inside; -1 if not known.
        count: kernels in it; -1 if not known. int [work].
    """

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    called: np.ndarray
    returned: np.ndarray
    thread: np.ndarray
    known: np.ndarray
    first: np.ndarray
    call: np.ndarray
    batch: np.ndarray
    running: np.ndarray
    gaps: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, recording: Recording, rows: np.ndarray, calls: dict[int, int]) -> "Work":
        """
        Args:
            rows: of one GPU.
            calls: row of the call with each correlation number.
        """
        rows = rows[np.argsort(recording.start[rows], kind="stable")]
        start, end, numbers = recording.start[rows], recording.end[rows], recording.correlation[rows]
        call = np.array([calls.get(number, -1) for number in numbers.tolist()], dtype=int)
        known = call >= 0
        # No call is later than what it launched; but two clocks differ, and two processes may use one correlation id.
        called = np.where(known, np.minimum(recording.start[call], start), start)
        returned = np.where(known, recording.end[call], start)
        thread = np.where(known, recording.thread[call], -1)
        if known.any():
            thread[~known] = np.bincount(thread[known]).argmax()
        if not known.all():
            streams = recording.stream[rows]
            for stream in np.unique(streams[~known]):
                at = np.flatnonzero(streams == stream)
                latest = np.minimum.accumulate(called[at][::-1])[::-1]  # a stream runs in the order of launching
                called[at] = np.where(known[at], called[at], latest)
                returned[at] = np.where(known[at], returned[at], latest)
        first = numbers == 0
        first[np.unique(numbers, return_index=True)[1]] = True
        batch, running, gaps, count = np.full(len(rows), -1), end - start, np.zeros_like(start), np.ones_like(rows)
        for index in np.flatnonzero(np.isin(rows, list(recording.told))).tolist():
            args, length = recording.told[rows[index]], int(running[index])
            graph = known[index] and "Graph" in recording.text(call[index])
            batch[index], count[index] = args["batch"], args.get("kernel_count", -1)
            running[index] = gaps[index] = -1
            if "kernels" in args:
                times = (None if us is None else us / 1e6 for us in (args["kernels"], args.get("kernel_gaps")))
                parts = inside(length / 1e9, *times, args.get("kernel_count"), graph)
                running[index], gaps[index] = (round(1e9 * seconds) for seconds in parts)
        return cls(rows, start, end, called, returned, thread, known, first, call, batch, running, gaps, count)

    def follows_end(self, downloads: "Work", wait_end: np.ndarray, wait_thread: np.ndarray) -> np.ndarray:
        """Whether the host was done with a batch between the last launch before this one and this one. bool [work].

        Args:
            downloads: copies to the host.
            wait_end: when each wait of the host returned. int64 [waits].
            wait_thread: which thread waited. int [waits].
        """
        latest, ended = np.maximum.accumulate(self.called), np.zeros(len(self.called), dtype=bool)
        for thread in np.unique(self.thread):
            own = downloads.thread == thread
            copies = downloads.called[own] if own.any() else downloads.called
            waits = wait_end[wait_thread == thread] if len(downloads.called) else wait_end
            ends = np.sort(np.concatenate((copies, waits - 1)))  # a wait may return in the nanosecond of the next call
            mine = np.flatnonzero(self.thread[1:] == thread) + 1
            ended[mine] = np.searchsorted(ends, self.called[mine]) > np.searchsorted(ends, latest[mine - 1])
        return ended


@dataclass(frozen=True)
class Gpu:
    """What ran on one GPU, and the gaps between it.

    Attributes:
        name: in the trace.
        recording: all that is in the trace.
        work: what keeps it busy.
        downloads: copies to the host.
        uploads: copies from the host.
        waits: rows of the calls in which a thread waits. int [waits].
    """

    name: str
    recording: Recording
    work: Work
    downloads: Work
    uploads: Work
    waits: np.ndarray

    @property
    def numbered(self) -> bool:
        """Whether its batches have numbers: it is a trace of ours."""
        return bool((self.work.batch >= 0).any())

    @cached_property
    def ended(self) -> np.ndarray:
        """Whether the host was done with a batch just before it launched each piece of work. bool [work]."""
        if self.numbered:
            return np.append(False, np.diff(self.work.batch) != 0)
        waits = self.waits
        return self.work.follows_end(self.downloads, self.recording.end[waits], self.recording.thread[waits])

    @property
    def told_apart(self) -> str:
        """What tells batches apart."""
        if self.numbered:
            return "their numbers"
        if len(self.downloads.start):
            return "copies to the host and waits"
        return "waits" if len(self.waits) else "nothing"

    @cached_property
    def thread(self) -> int:
        """The thread that launches most; -1 if no launch is known."""
        known = self.work.thread[self.work.known]
        return int(np.bincount(known).argmax()) if len(known) else -1

    @cached_property
    def reach(self) -> np.ndarray:
        """Until when the GPU is busy with each piece of work and all before it. int64 [work]."""
        return np.maximum.accumulate(self.work.end)

    @cached_property
    def by(self) -> np.ndarray:
        """The work that ends each gap. int [gaps]."""
        return np.flatnonzero(self.work.start[1:] > self.reach[:-1]) + 1

    @cached_property
    def gaps(self) -> Stretches:
        """All of them, in order."""
        return Stretches(self.reach[self.by - 1], self.work.start[self.by])

    @cached_property
    def kinds(self) -> np.ndarray:
        """What each gap was: an index into KINDS. int [gaps]."""
        start, length = self.gaps.start, self.gaps.end - self.gaps.start
        queued = (self.work.returned[self.by] <= start - ON_ITS_WAY) | ~self.work.first[self.by] | (length < SHORT)
        if self.numbered:
            queued &= ~self.ended[self.by]
        return np.where(queued, 2, np.where(self.ended[self.by], 0, 1))

    @cached_property
    def own(self) -> int:
        """Nanoseconds from one kernel to the next if both are queued and not of a graph: the median; 0 without any."""
        eager = (self.kinds == 2) & self.work.first[self.by]
        return int(np.median((self.gaps.end - self.gaps.start)[eager])) if eager.any() else 0

    def kind(self, kind: Kind) -> Stretches:
        """The gaps of one kind. Of a launch gap, the last moment is the GPU's own: it would take that in any case."""
        start, end, launch = self.gaps.start, self.gaps.end, self.kinds == 1
        waited = np.where(launch, np.maximum(end - self.own, start), start)  # until then, for its launch
        if kind == "launch gap":
            end = waited
        elif kind == "kernel gap":
            start = waited
        at = (self.kinds == KINDS.index(kind)) | (launch & (kind == "kernel gap"))
        return Stretches(start[at & (end > start)], end[at & (end > start)])

    @property
    def idle_inside(self) -> np.ndarray | None:
        """Nanoseconds of each piece of work in which no kernel runs: 0, but in a trace of ours; None if that is not
        known of all of it. int64 [work]."""
        work = self.work
        return None if (work.running < 0).any() else work.end - work.start - work.running

    def idle(self, kind: Kind) -> Idle | None:
        """How much the gaps of one kind are, and how many; None if the trace cannot tell."""
        gaps, idle = self.kind(kind), self.idle_inside
        if kind == "bubble":
            return Idle(gaps.seconds, len(gaps.start))
        if idle is None:
            return None
        idle = self.work.gaps if kind == "kernel gap" else idle - self.work.gaps
        return Idle(gaps.seconds + int(idle.sum()) / 1e9, len(gaps.start) + int((idle > 0).sum()))


def gpus(recording: Recording, begin: float = 0.0, end: float = float("inf")) -> list[Gpu]:
    """Every GPU on which a kernel runs, by name.

    Args:
        begin: seconds from the first event: what starts on a GPU earlier is left out.
        end: likewise, what starts then or later.

    Raises:
        InputError: there is none.
    """
    calls, waits = recording.calls(), recording.waits()
    rows = recording.work(), recording.copies(to_host=True), recording.copies(to_host=False)
    rows = tuple(each[(recording.start[each] >= 1e9 * begin) & (recording.start[each] < 1e9 * end)] for each in rows)
    found = []
    for number, name in sorted(enumerate(recording.gpus), key=lambda item: (len(item[1]), item[1])):
        work, downloads, uploads = (Work.of(recording, each[recording.gpu[each] == number], calls) for each in rows)
        if len(work.row):
            found.append(Gpu(_called(recording, name), recording, work, downloads, uploads, waits))
    if not found:
        calls = recording.rows(*CALLS)
        graphs = recording.named("GraphLaunch", calls).sum()
        graphs = f"; {graphs:,} graphs are launched, and their kernels are not in it" if graphs else ""
        window = f" from {begin:g} to {end:g} s" if begin or end < float("inf") else ""
        raise InputError(f"no kernel runs in this trace{window}, only copies to and from the host do{graphs}")
    return found


def _called(recording: Recording, name: str) -> str:
    """The name of a trace's only GPU, if the trace has it."""
    known = recording.header.get("deviceProperties") or []
    names = {f"GPU {each.get('id')}": each.get("name") for each in known if isinstance(each, dict)}
    return (len(recording.gpus) == 1 and names.get(name)) or name
