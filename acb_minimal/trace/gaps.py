"""The gaps of a GPU in a trace of torch's profiler, and what each of them was.

A GPU is busy while a kernel, a memset or a copy within devices runs on it. Every other moment from the first such work
to the last is in a gap, and the launch of the kernel that ends a gap tells what it was:

    kernel gap   its call had returned 10 us before the gap began, or had launched other kernels before: the GPU had
                 work, and took its time. So it does between any two kernels: under 2 us the host is not at fault.
    bubble       the host was done with something just before that launch, or only gets the next batch ready with it
                 (segmentation.py says which launches are of which batch).
    launch gap   any other: the host was in the middle of launching a batch.

A gap that goes on for long after that call had returned is not the host's from then on, and one before work that was
queued is not the GPU's own if it is long:

    copy         a copy from the host or to it runs: most likely the kernel waits for that.
    stall        nothing does. Events are missing, or the GPU waits for something that is in no trace of one process.

A kernel whose launch is not in the trace is taken to be launched as late as can be: as it starts, or by the next known
launch on its stream.

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
from .launched import Launched
from .segmentation import Segments, numbered, segments
from .stretches import Stretches
from .torch_profiler import CALLS, Recording

Kind = Literal["bubble", "launch gap", "kernel gap", "copy", "stall"]
KINDS: tuple[Kind, ...] = ("bubble", "launch gap", "kernel gap", "copy", "stall")
SHORT = 2_000  # ns: no longer does a GPU take from one kernel to the next when both are queued
ON_ITS_WAY = 10_000  # ns: a call that returned later than this before a gap may not have reached the GPU by then
PASSING = 0.05  # of the launches: so many make a thread one that launches
LONG = 50_000  # ns: no kernel that is launched takes longer until it runs, and no GPU from one to the next


class Idle(NamedTuple):
    """Gaps of one kind.

    Attributes:
        seconds: all of them together.
        count: how many they are.
    """

    seconds: float
    count: int


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
    work: Launched
    downloads: Launched
    uploads: Launched
    waits: np.ndarray

    @property
    def numbered(self) -> bool:
        """Whether its batches have numbers: it is a trace of ours."""
        return bool((self.work.batch >= 0).any())

    @cached_property
    def segments(self) -> Segments:
        """Which work is of which batch."""
        if self.numbered:
            return numbered(self.work.batch, self.work.called)
        return segments(self.recording, self.work, self.downloads, self.waits)

    @cached_property
    def threads(self) -> np.ndarray:
        """The threads that launch kernels, the one that launches most first; none if no launch is known. int [threads].

        One that launches a few in passing is none of them.
        """
        count = np.bincount(self.work.thread[self.work.known], minlength=1)
        some = np.flatnonzero(count >= max(PASSING * count.sum(), 1))
        return some[np.argsort(-count[some], kind="stable")]

    @cached_property
    def processes(self) -> list:
        """Those whose threads launch on it, or that make a call with the number of one of its launches."""
        recording, calls = self.recording, self.recording.rows(*CALLS)
        calls = calls[np.isin(recording.correlation[calls], recording.correlation[self.work.row])]
        threads = np.unique(recording.thread[calls[recording.correlation[calls] > 0]])
        return sorted({recording.threads[thread][0] for thread in threads}, key=str)

    @cached_property
    def copies(self) -> Stretches:
        """When a copy to the host or from it runs."""
        both = self.downloads, self.uploads
        return Stretches.union(*(np.concatenate([getattr(each, edge) for each in both]) for edge in ("start", "end")))

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
    def own(self) -> int:
        """Nanoseconds from one kernel to the next if both are queued and not of a graph: the median; 0 without any."""
        length = self.gaps.end - self.gaps.start
        eager = (self.kinds == 2) & self.work.first[self.by] & (length < LONG)
        return int(np.median(length[eager])) if eager.any() else 0

    @cached_property
    def _parts(self) -> dict[Kind, Stretches]:
        """The gaps, cut by what they were."""
        start, end, host = self.gaps.start, self.gaps.end, self.kinds < 2
        late = np.maximum(start, np.where(host, self.work.returned[self.by] + ON_ITS_WAY, start))
        late = np.where((end - late > LONG) & (not self.numbered), late, end)  # from then on it was not for the launch
        copied = (late < end) & (2 * self.copies.between(late, end) >= end - late)
        waited = np.where(self.kinds == 1, np.maximum(late - self.own * (late == end), start), late)

        def some(at: np.ndarray, begin: np.ndarray, stop: np.ndarray) -> Stretches:
            at = at & (stop > begin)
            return Stretches(begin[at], stop[at])

        return {
            "bubble": some(self.kinds == 0, start, late),
            "launch gap": some(self.kinds == 1, start, waited),
            "kernel gap": some(self.kinds > 0, np.where(self.kinds == 1, waited, start), late),
            "copy": some(copied, late, end),
            "stall": some(~copied, late, end),
        }

    def kind(self, kind: Kind) -> Stretches:
        """The gaps of one kind. Of a launch gap, the last moment is the GPU's own: it would take that in any case."""
        return self._parts[kind]

    @cached_property
    def idle_while_waited_for(self) -> tuple[int, int]:
        """Nanoseconds in which nothing runs, copies too, while the host waits for it: the longest such time, and all of
        them. Of a whole trace the longest is some tens of microseconds: what waits was woken by then."""
        waits = self.waits[np.isin(self.recording.thread[self.waits], self.threads)]
        waits = Stretches.union(self.recording.start[waits], self.recording.end[waits])
        length = self.gaps.shared(self.copies.outside(int(self.work.start[0]), int(self.reach[-1]))).shared(waits)
        length = length.end - length.start
        return (int(length.max()), int(length[length > LONG].sum())) if len(length) else (0, 0)

    @cached_property
    def overlap(self) -> tuple[int, int]:
        """The longest time by which a kernel runs into the next on its stream, in nanoseconds, and its row; of kernels
        of one graph it is not known what comes after what."""
        longest = 0, -1
        for stream in np.unique(self.recording.stream[self.work.row]):
            at = np.flatnonzero(self.recording.stream[self.work.row] == stream)
            if len(at) < 2 or self.numbered:
                continue
            over = self.work.end[at[:-1]] - self.work.start[at[1:]]
            over[(self.work.call[at[:-1]] == self.work.call[at[1:]]) & self.work.known[at[:-1]]] = 0
            place = int(over.argmax())
            longest = max(longest, (int(over[place]), int(self.work.row[at[place]])))
        return longest

    @property
    def idle_inside(self) -> np.ndarray | None:
        """Nanoseconds of each piece of work in which no kernel runs: 0, but in a trace of ours; None if that is not
        known of all of it. int64 [work]."""
        work = self.work
        return None if (work.running < 0).any() else work.end - work.start - work.running

    def idle(self, kind: Kind) -> Idle | None:
        """How much the gaps of one kind are, and how many; None if the trace cannot tell."""
        gaps, idle = self.kind(kind), self.idle_inside
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
    calls, waits = recording.calls(), recording.waits()
    rows = recording.work(), recording.copies(to_host=True), recording.copies(to_host=False)
    rows = tuple(each[(recording.start[each] >= 1e9 * begin) & (recording.start[each] < 1e9 * end)] for each in rows)
    found = []
    for number, name in sorted(enumerate(recording.gpus), key=lambda item: (len(item[1]), item[1])):
        work, downloads, uploads = (Launched.of(recording, each[recording.gpu[each] == number], calls) for each in rows)
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
