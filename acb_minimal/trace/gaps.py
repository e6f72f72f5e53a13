"""The gaps of a GPU in a trace of torch's profiler, and what each of them was.

A GPU is busy while a kernel, a memset or a copy within devices runs on it. Every other moment from the first such work
to the last is in a gap, and the launch of the kernel that ends a gap tells what it was:

    kernel gap   its call had returned 10 us before the gap began, or had launched other kernels before: the GPU had
                 work, and took its time. So it does between any two kernels: under 2 us the host is not at fault.
    bubble       the host was done with something just before that launch, or only gets the next batch ready with it
                 (segmentation.py says which launches are of which batch).
    launch gap   any other: the host was in the middle of launching a batch. As long as the GPU takes between two
                 kernels that are queued (the median), it would have taken here as well: that much is a kernel gap.

A gap that goes on for long after that call had returned is not the host's from then on, and one before work that was
queued is not the GPU's own if it is long:

    copy         a copy from the host or to it runs: most likely the kernel waits for that.
    stall        nothing does. Events are missing, or the GPU waits for something that is in no trace of one process.

What a profiler says is not what runs without it: launching is slower, and kernels of a graph replay get gaps of their
own. A kernel that waits for another GPU counts as busy. In a trace of ours batches have numbers, and what lies between
two of them is a bubble; a kernel is all that a call launched there, and has gaps inside: how long, not when.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .law import inside
from .segmentation import Segments, numbered, segments
from .stretches import Stretches
from .torch_profiler import CALLS, Recording

KINDS = ("bubble", "launch gap", "kernel gap", "copy", "stall")
SHORT = 2_000  # ns: no longer does a GPU take from one kernel to the next when both are queued
ON_ITS_WAY = 10_000  # ns: a call that returned later than this before a gap may not have reached the GPU by then
PASSING = 0.05  # of the launches: so many make a thread one that launches
LONG = 50_000  # ns: no kernel that is launched takes longer until it runs, and no GPU from one to the next


def launched(recording: Recording, rows: np.ndarray) -> np.recarray:
    """Kernels, or copies, of one GPU by start, and which call of which thread launched them: a table with a row for
    each. Times are nanoseconds.

        row               in the recording
        start, end        on the GPU
        call              row of the call that launched it; -1 if it is not in the trace
        known             whether it is
        called, returned  when that call began and ended; if it is not known as late as can be: as the work starts, or
                          by the next known launch on its stream
        thread            that made the call; -1 if no thread is known
        first             whether it is the first of those that the call launched: a graph has many
        batch             number of the batch, in a trace of ours; else -1
        running           how long kernels run in it: all of its time, but in a trace of ours. -1 if not known
        gaps              how long it is in kernel gaps inside; -1 if not known
        count             kernels in it; -1 if not known
    """
    rows = rows[np.argsort(recording.start[rows], kind="stable")]
    start, end, call = recording.start[rows], recording.end[rows], recording.call_of(rows)
    known, streams, numbers = call >= 0, recording.stream[rows], recording.correlation[rows]
    # No call is later than what it launched; but two clocks differ, and two processes may use one correlation id.
    called = np.where(known, np.minimum(recording.start[call], start), start)
    returned = np.where(known, recording.end[call], start)
    thread = np.where(known, recording.thread[call], -1)
    if known.any():
        thread[~known] = np.bincount(thread[known]).argmax()
    for stream in np.unique(streams[~known]):
        at = np.flatnonzero(streams == stream)
        latest = np.minimum.accumulate(called[at][::-1])[::-1]  # a stream runs in the order of launching
        for times in (called, returned):
            times[at] = np.where(known[at], times[at], latest)
    first = numbers == 0
    first[np.unique(numbers, return_index=True)[1]] = True
    batch, running, gaps, count = np.full(len(rows), -1), end - start, np.zeros_like(start), np.ones_like(rows)
    table = dict(
        row=rows, start=start, end=end, call=call, known=known, called=called, returned=returned, thread=thread,
        first=first, batch=batch, running=running, gaps=gaps, count=count,
    )  # fmt: skip
    for index in np.flatnonzero(np.isin(rows, list(recording.told))).tolist():
        args, seconds = recording.told[rows[index]], int(running[index]) / 1e9
        graph = known[index] and "Graph" in recording.text(call[index])
        batch[index], count[index] = args["batch"], args.get("kernel_count", -1)
        running[index] = gaps[index] = -1
        if "kernels" in args:
            times = (us and us / 1e6 for us in (args["kernels"], args.get("kernel_gaps")))
            parts = inside(seconds, *times, args.get("kernel_count"), graph)
            running[index], gaps[index] = (round(1e9 * part) for part in parts)
    return np.rec.fromarrays(list(table.values()), names=list(table))


class Idle(NamedTuple):
    """Gaps of one kind: all of them together, and how many they are."""

    seconds: float
    count: int


@dataclass(frozen=True)
class Gpu:
    """What ran on one GPU, and the gaps between it.

    Attributes:
        name: in the trace.
        recording: all that is in the trace.
        work: what keeps it busy, see `launched`.
        downloads, uploads: copies to the host and from it, likewise.
    """

    name: str
    recording: Recording
    work: np.recarray
    downloads: np.recarray
    uploads: np.recarray

    @property
    def numbered(self) -> bool:
        """Whether its batches have numbers: it is a trace of ours."""
        return bool((self.work.batch >= 0).any())

    @cached_property
    def segments(self) -> Segments:
        """Which work is of which batch."""
        if self.numbered:
            return numbered(self.work.batch, self.work.called)
        return segments(self.recording, self.work, self.downloads)

    @cached_property
    def threads(self) -> np.ndarray:
        """The threads that launch kernels, the one that launches most first, without those that launch a few in
        passing; none if no launch is known. int [threads]."""
        count = np.bincount(self.work.thread[self.work.known], minlength=1)
        some = np.flatnonzero(count >= max(PASSING * count.sum(), 1))
        return some[np.argsort(-count[some], kind="stable")]

    def own(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that are of these threads."""
        return rows[np.isin(self.recording.thread[rows], self.threads)]

    @cached_property
    def copies(self) -> Stretches:
        """When a copy to the host or from it runs."""
        return self.recording.when(np.append(self.downloads.row, self.uploads.row))

    @cached_property
    def reach(self) -> np.ndarray:
        """Until when the GPU is busy with each piece of work and all before it. int64 [work]."""
        return np.maximum.accumulate(self.work.end)

    @property
    def window(self) -> tuple[int, int]:
        """From the start of its first work to the end of its last, in nanoseconds."""
        return int(self.work.start[0]), int(self.reach[-1])

    @cached_property
    def by(self) -> np.ndarray:
        """The work that ends each gap. int [gaps]."""
        return np.flatnonzero(self.work.start[1:] > self.reach[:-1]) + 1

    @cached_property
    def gaps(self) -> Stretches:
        """All of them, in order."""
        return Stretches(self.reach[self.by - 1], self.work.start[self.by])

    def waited_for(self, idle: Stretches) -> np.ndarray:
        """The thread whose launch ended the gap that each stretch is in. int [stretches]."""
        return self.work.thread[self.by[np.searchsorted(self.gaps.start, idle.start, side="right") - 1]]

    @cached_property
    def kinds(self) -> np.ndarray:
        """What each gap was to begin with: an index into KINDS. int [gaps]."""
        start, length = self.gaps.start, self.gaps.end - self.gaps.start
        queued = (self.work.returned[self.by] <= start - ON_ITS_WAY) | ~self.work.first[self.by] | (length < SHORT)
        if self.numbered:
            queued &= ~self.segments.opens[self.by]
        return np.where(queued, 2, np.where(self.segments.opens[self.by], 0, 1))

    @cached_property
    def usual(self) -> int:
        """Nanoseconds from one kernel to the next if both are queued and not of a graph: the median; 0 without any."""
        length = self.gaps.end - self.gaps.start
        eager = (self.kinds == 2) & self.work.first[self.by] & (length < LONG)
        return int(np.median(length[eager])) if eager.any() else 0

    @cached_property
    def parts(self) -> dict[str, Stretches]:
        """The gaps, cut by what they were. Of a launch gap, the last moment is a kernel gap."""
        start, end, host, launch = self.gaps.start, self.gaps.end, self.kinds < 2, self.kinds == 1
        late = np.maximum(start, np.where(host, self.work.returned[self.by] + ON_ITS_WAY, start))
        late = np.where((end - late > LONG) & (not self.numbered), late, end)  # from then on it was not for the launch
        copied = (late < end) & (2 * self.copies.between(late, end) >= end - late)
        waited = np.where(launch, np.maximum(late - self.usual * (late == end), start), late)
        pieces = {
            "bubble": (self.kinds == 0, start, late),
            "launch gap": (launch, start, waited),
            "kernel gap": (self.kinds > 0, np.where(launch, waited, start), late),
            "copy": (copied, late, end),
            "stall": (~copied, late, end),
        }
        some = {kind: at & (stop > begin) for kind, (at, begin, stop) in pieces.items()}
        return {kind: Stretches(begin[some[kind]], stop[some[kind]]) for kind, (_, begin, stop) in pieces.items()}

    @property
    def idle_inside(self) -> np.ndarray | None:
        """Nanoseconds of each piece of work in which no kernel runs: 0, but in a trace of ours; None if that is not
        known of all of it. int64 [work]."""
        work = self.work
        return None if (work.running < 0).any() else work.end - work.start - work.running

    def idle(self, kind: str) -> Idle | None:
        """How much the gaps of one kind are, and how many; None if the trace cannot tell."""
        gaps, idle = self.parts[kind], self.idle_inside
        if kind not in ("launch gap", "kernel gap"):
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
    rows = recording.work(), recording.copies(to_host=True), recording.copies(to_host=False)
    rows = [each[(recording.start[each] >= 1e9 * begin) & (recording.start[each] < 1e9 * end)] for each in rows]
    known = recording.header.get("deviceProperties") or []
    names = {f"GPU {each.get('id')}": each.get("name") for each in known if isinstance(each, dict)}
    found = []
    for number, name in sorted(enumerate(recording.gpus), key=lambda item: (len(item[1]), item[1])):
        work, *copies = (launched(recording, each[recording.gpu[each] == number]) for each in rows)
        if len(work.row):
            only = len(recording.gpus) == 1 and names.get(name)  # the header may have the name of a trace's only GPU
            found.append(Gpu(only or name, recording, work, *copies))
    if not found:
        graphs = recording.named("GraphLaunch", recording.rows(*CALLS)).sum()
        graphs = f"; {graphs:,} graphs are launched, and their kernels are not in it" if graphs else ""
        window = f" from {begin:g} to {end:g} s" if begin or end < float("inf") else ""
        raise InputError(f"no kernel runs in this trace{window}, only copies to and from the host do{graphs}")
    return found
