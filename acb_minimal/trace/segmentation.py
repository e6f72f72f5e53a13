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
        by: what tells batches apart; "nothing" if nothing does.
        piece, batch: of each kernel or copy, from 0, in the order of launching. int [work].
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


def numbered(batch: np.ndarray, called: np.ndarray) -> Segments:
    """Of a trace of ours, which has the number of the batch with each piece of work."""
    opens = np.append(True, np.diff(batch) != 0)
    piece, main = np.cumsum(opens) - 1, np.minimum.reduceat(called, np.flatnonzero(opens))
    return Segments("their numbers", piece, piece, opens, main)


def segments(recording: Recording, work, downloads) -> Segments:
    """Of any other, by the work of one GPU and its copies to the host (both as gaps.launched has them)."""
    order = np.argsort(work.called, kind="stable")
    called, returned, lasts = work.called[order], work.returned[order], (work.end - work.start)[order]
    graph = recording.named("GraphLaunch", work.call[order]) & work.known[order]
    by_graphs = 2 * lasts[graph].sum() > lasts.sum()  # most of the GPU's time is theirs
    marks = np.sort(recording.start[recording.called(MARK, "user_annotation")])
    in_mark = np.maximum(np.searchsorted(marks, called, side="right"), 1)
    marked = np.append(False, np.diff(in_mark) > 0)
    cuts = _done(recording, work.thread[order], called, downloads)
    if marked.sum() + 1 >= FEWEST_MARKS and cuts.sum() <= PIECES * marked.sum():
        by, cuts = "the profiler's steps", marked
        starts = opens = np.append(0, np.flatnonzero(cuts))
    else:
        by = "waits" if len(recording.waits) else "nothing"
        by = "copies to the host and waits" if len(downloads.start) else by
        opens = np.append(0, np.flatnonzero(cuts))
        starts = opens[_batches(opens, called, returned, graph if by_graphs else None, lasts)]
    piece, batch = (np.searchsorted(each, np.arange(len(order)), side="right") - 1 for each in (opens, starts))
    main = called[starts]
    if by_graphs:
        graphs = np.flatnonzero(graph)[::-1]  # backwards: the first of a batch is what stays
        main[batch[graphs]] = called[graphs]
    opening, back = cuts | (called <= main[batch]), np.argsort(order)
    return Segments(by, piece[back], batch[back], opening[back], main)


def _done(recording: Recording, thread: np.ndarray, called: np.ndarray, downloads) -> np.ndarray:
    """Whether the host was done with a batch between the launch before each and that one, in order. bool [work].

    Of waits, only those of the thread that launches count: what a second thread waits for says nothing about the first.
    Its copies count if the first launches none.
    """
    done, waits = np.zeros(len(called), dtype=bool), recording.waits
    for each in np.unique(thread):
        own = downloads.thread == each
        copies = downloads.called[own] if own.any() else downloads.called
        mine = waits[recording.thread[waits] == each] if len(downloads.called) else waits
        ends = np.sort(np.append(copies, recording.end[mine] - 1))  # it may return in the nanosecond of the next call
        past, mine = np.searchsorted(ends, called), np.flatnonzero(thread[1:] == each) + 1
        done[mine] = past[mine] > past[mine - 1]
    return done


def _batches(opens: np.ndarray, called, returned, graph: np.ndarray | None, lasts) -> np.ndarray:
    """Which pieces begin a batch. int [batches].

    A piece belongs to the next one if it has less than a tenth as many kernels as the usual one, which is the one that
    a kernel picked at random is most likely in; or if batches are graphs, and it has none and runs for less than half
    as long as one. And where a pattern of pieces comes again and again, each is a batch that begins after the longest
    pause.

    Args:
        opens: the first work of each piece. int [pieces]
        called, returned, lasts: of all work, in the order of launching. int64 [work].
        graph: whether it was part of a graph; None if batches are no graphs. bool [work].
    """
    sizes = np.diff(np.append(opens, len(called)))
    ordered = np.sort(sizes)
    usual = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    small = sizes < SMALL * usual
    if graph is not None:
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
    if len(sizes) < 4 or _alike(sizes[1:], sizes[:-1]).mean() >= 0.5:
        return 1
    some = range(2, min(PIECES, len(sizes) // 4) + 1)
    return next((period for period in some if _alike(sizes[period:], sizes[:-period]).mean() >= 0.8), 1)


def _alike(sizes: np.ndarray, others) -> np.ndarray:
    return np.abs(sizes - others) <= ALIKE * np.maximum(sizes, others)
