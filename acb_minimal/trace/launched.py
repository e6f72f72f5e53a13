"""What keeps a GPU busy, and which call of which thread launched it; copies likewise."""

from dataclasses import dataclass

import numpy as np

from .breakdown import inside
from .torch_profiler import Recording


@dataclass(frozen=True)
class Launched:
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
    def of(cls, recording: Recording, rows: np.ndarray, calls: tuple[np.ndarray, np.ndarray]) -> "Launched":
        """
        Args:
            rows: of one GPU.
            calls: as Recording has them.
        """
        rows = rows[np.argsort(recording.start[rows], kind="stable")]
        numbers, place = recording.correlation[rows], np.searchsorted(calls[0], recording.correlation[rows])
        place = np.minimum(place, max(len(calls[0]) - 1, 0))
        known = calls[0][place] == numbers if len(calls[0]) else np.zeros(len(rows), dtype=bool)
        call = np.where(known, calls[1][place], -1) if len(calls[0]) else np.full(len(rows), -1)
        start, end = recording.start[rows], recording.end[rows]
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
