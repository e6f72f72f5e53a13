"""Which work is of which batch, in a trace that does not number its batches.

The host launches a batch, is done with one, and launches again. It is done with one when it returns from a wait or has
launched a copy of tokens to the host. Every engine has such a copy once for every batch; an asynchronous one has it
between the launches of two batches too, though it waits elsewhere. Or the trace has its steps marked, by the `step()`
of torch's profiler.

So the launches, in the order of their calls, fall into pieces. Not every piece is a batch: a wait for an upload cuts
one off, and so does bookkeeping that is itself kernels. A piece that is no batch belongs to the next one.
"""

from typing import NamedTuple

import numpy as np

from .torch_profiler import Recording

MARK = r"^ProfilerStep#\d+$"
FEWEST_MARKS = 4
SMALL = 0.1  # of the usual number of kernels: no batch
HALF = 0.5  # of the time of the usual graph: a piece without one, and shorter, is no batch
ALIKE = 0.05  # by which the numbers of kernels of two batches of a kind may differ
PIECES = 8  # most waits in a step that are looked for


class Segments(NamedTuple):
    """
    Attributes:
        by: what tells batches apart.
        piece: of each kernel or copy, from 0, in the order of launching. int [work].
        batch: likewise. int [work].
        opens: whether the host was done with something just before it launched it, or only gets a batch ready with it.
            bool [work].
        main: when the host began to launch each batch: of one with a graph, the graph, for what it launches before that
            only gets it ready. int64 [batches].
    """

    by: str
    piece: np.ndarray
    batch: np.ndarray
    opens: np.ndarray
    main: np.ndarray

    @property
    def told(self) -> bool:
        """Whether anything tells them apart."""
        return self.by != "nothing"


def numbered(batch: np.ndarray, called: np.ndarray) -> Segments:
    """Of a trace of ours, which has the number of the batch with each piece of work."""
    opens = np.append(True, np.diff(batch) != 0)
    piece, main = np.cumsum(opens) - 1, np.minimum.reduceat(called, np.flatnonzero(opens))
    return Segments("their numbers", piece, piece, opens, main)


def segments(recording: Recording, work, downloads, waits: np.ndarray) -> Segments:
    """Of any other.

    Args:
        work: of one GPU (see launched.Launched).
        downloads: copies to the host, likewise.
        waits: rows of the calls in which a thread waits. int [waits].
    """
    order = np.argsort(work.called, kind="stable")
    called = work.called[order]
    marks = recording.rows("user_annotation")
    marks = np.sort(recording.start[marks[recording.named(MARK, marks)]])
    in_mark = np.maximum(np.searchsorted(marks, called, side="right"), 1)
    marked = np.append(False, np.diff(in_mark) > 0)
    cuts = _done(work.thread[order], called, downloads, recording.end[waits], recording.thread[waits])
    usable = marked.sum() + 1 >= FEWEST_MARKS and cuts.sum() <= PIECES * marked.sum()
    if usable:
        by, cuts = "the profiler's steps", marked
    elif len(downloads.start):
        by = "copies to the host and waits"
    else:
        by = "waits" if len(waits) else "nothing"
    opens = np.append(0, np.flatnonzero(cuts))
    graph = recording.named("GraphLaunch", work.call[order]) & work.known[order]
    lasts = (work.end - work.start)[order]
    begins = np.arange(len(opens)) if usable else _batches(opens, called, work.returned[order], graph, lasts)
    starts = opens[begins]
    batch, main = _of(starts, np.arange(len(order))), called[starts]
    if _by_graphs(graph, lasts):
        graphs = np.flatnonzero(graph)[::-1]  # backwards: the first of a batch is what stays
        main[batch[graphs]] = called[graphs]
    opening = cuts | (called <= main[batch])
    back = np.argsort(order)
    return Segments(by, _of(opens, np.arange(len(order)))[back], batch[back], opening[back], main)


def _of(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """In which of the stretches that begin there each place is."""
    return np.searchsorted(starts, places, side="right") - 1


def _done(thread: np.ndarray, called: np.ndarray, downloads, wait_end: np.ndarray, wait_thread: np.ndarray):
    """Whether the host was done with a batch between the launch before each and that one, in order. bool [work].

    Of waits, only those of the thread that launches count: what a second thread waits for says nothing about the first.
    Its copies count if the first launches none.
    """
    done = np.zeros(len(called), dtype=bool)
    for each in np.unique(thread):
        own = downloads.thread == each
        copies = downloads.called[own] if own.any() else downloads.called
        waits = wait_end[wait_thread == each] if len(downloads.called) else wait_end
        ends = np.sort(np.concatenate((copies, waits - 1)))  # a wait may return in the nanosecond of the next call
        mine = np.flatnonzero(thread[1:] == each) + 1
        done[mine] = np.searchsorted(ends, called[mine]) > np.searchsorted(ends, called[mine - 1])
    return done


def _by_graphs(graph: np.ndarray, lasts: np.ndarray) -> bool:
    """Whether most of the GPU's time is of graphs."""
    return 2 * lasts[graph].sum() > lasts.sum()


def _batches(opens: np.ndarray, called, returned, graph, lasts) -> np.ndarray:
    """Which pieces begin a batch. int [batches].

    A piece belongs to the next one if it has less than a tenth as many kernels as the usual one, which is the one that
    a kernel picked at random is most likely in; or if batches are graphs, and it has none and runs for less than half
    as long as one. And where a pattern of pieces comes again and again, each is a batch that begins after the longest
    pause.

    Args:
        opens: the first work of each piece. int [pieces]
        called: when each piece of work was launched, in order; and so of the others. int64 [work].
        returned: when that call ended.
        graph: whether it was part of a graph. bool [work].
        lasts: how long it ran. int64 [work].
    """
    sizes = np.diff(np.append(opens, len(called)))
    ordered = np.sort(sizes)
    usual = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    small = sizes < SMALL * usual
    if _by_graphs(graph, lasts):
        graphs, time = np.logical_or.reduceat(graph, opens), np.add.reduceat(lasts, opens)
        small = ~graphs & (small | (time < HALF * np.median(time[graphs])))
    small[-1] = False
    begins = np.flatnonzero(np.append(True, ~small[:-1]))
    sizes = np.add.reduceat(sizes, begins)
    period = _period(sizes)
    if period == 1:
        return begins
    launched = np.maximum.reduceat(returned, opens)
    pause = called[opens[begins[1:]]] - launched[begins[1:] - 1]
    phase = max(range(1, period + 1), key=lambda phase: np.median(pause[phase - 1 :: period])) % period
    opening = np.median(sizes[phase::period])
    return begins[np.append(0, np.flatnonzero(_alike(sizes[1:], opening)) + 1)]


def _period(sizes: np.ndarray) -> int:
    """After how many pieces their sizes come again, where one seldom is like the one before; else 1."""
    for period in range(1, PIECES + 1):
        if len(sizes) < 4 * period:
            break
        share = _alike(sizes[period:], sizes[:-period]).mean()
        if period == 1 and share >= 0.5:
            break
        if period > 1 and share >= 0.8:
            return period
    return 1


def _alike(sizes: np.ndarray, others) -> np.ndarray:
    return np.abs(sizes - others) <= ALIKE * np.maximum(sizes, others)
