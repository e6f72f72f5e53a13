"""What is to be said of an engine by its steady steps; and why nothing is to be said, where a trace cannot carry it."""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from .batches import Batches
from .formatting import ms
from .gaps import LONG, Gpu
from .steps import Typical
from .torch_profiler import CALLS, DEVICE

FEWEST = 4  # steady steps: of fewer, a median says little
PACE = 0.9  # of the time of a batch on the GPU: from here on, launching may have set the pace
NOTHING_LEFT = 0.02  # share of a step
RARE, USUAL = 0.05, 0.95  # shares of steps
DAMAGED = 100_000  # ns: no whole trace has anything impossible for so long
LOST = 0.01  # share of launches of which no kernel is in the trace
UNKNOWN = 0.1  # share of kernels of which no launch is in the trace
SLOWER = 1.1  # times as long under the profiler as without it
LOOKAHEAD = (
    "event_loop_overlap|step_with_batch_queue|[Aa]sync_?[Ss]chedul|ContinuousBatchingAsyncIOs|carry_over|FutureMap|"
    "execute_model_async"
)  # frames and annotations of SGLang, vLLM and transformers when they look ahead


# What is said of each case, in the order in which they are tried. A case begins with the kind of verdict it is.
TEXTS = {
    "launch-bound, kernels unseen": "Launching a batch takes the host {launching} of the {on_gpu} that it is on the "
    "GPU, so the GPU waits for launches, most likely; its kernels are not in this trace. Between batches {waits}.",
    "copy-bound": "What is launched waits for a copy {copies}, and nothing is predicted: the law of overlap knows no "
    "such waits. Pinned memory, a stream of its own and an upload one step ahead hide copies beside kernels.",
    "unexplained, stalled": "What is launched waits {stalled} for something that is not in this trace: nothing is "
    "predicted.",
    "busy": "The GPU waits {exposed:.1%} of a step{though}: nothing is left for overlap to win.",
    "launch-bound": "Launching a batch takes the host {launching}, and the GPU needs {on_gpu} for it: {waits}, and "
    "overlap cannot hide that. Launched as graphs, and asynchronous, a step would take {as_graphs} or little "
    "more.{slowed}",
    "not engaged": "Asynchronous by the look of it ({looks_ahead}), synchronous in fact: each batch is launched after "
    "the host has waited for the one before, and {waits}. If asynchronous scheduling is switched on, it does not "
    "engage. {would}",
    "synchronous": "Each batch is launched after the host has waited for the one before, and {waits}. {would}",
    "in part": "{ahead:.0%} of the {about} are launched ahead; in the others the host waits first, and {waits}. "
    "{would}",
    "host-bound": "Launched ahead, but the host needs longer for a step than the GPU: {launching} to launch and {host} "
    "for the rest, and {on_gpu} on the GPU; {waits}. Less host work is the cure{or_graphs}.",
    "unexplained": "Launched ahead, and yet {waits}: for something that this trace does not show.",
}


class Verdict(NamedTuple):
    """On the steady steps of one GPU: in a word, and in a few sentences."""

    kind: str
    text: str


def verdict(
    typical: Typical, looks_ahead: str = "", least: float = 1.0, bracket: bool = False, about: str = "steps"
) -> Verdict:
    """What the medians say.

    Args:
        looks_ahead: what `signs` says.
        least: how many times as long the host takes without the profiler.
        bracket: whether that is the least it may be, and the most is as long as with it.
        about: what the steps are.
    """
    law, ahead, step = typical.law, typical.ahead, ms(typical.step, 3)
    least_waits = max(typical.idle, NOTHING_LEFT * typical.step)
    cases = {
        "launch-bound, kernels unseen": typical.parts is None and law.launching >= PACE * law.on_gpu,
        "copy-bound": typical.copies > least_waits,
        "unexplained, stalled": typical.stalled > least_waits,
        "busy": typical.exposed < NOTHING_LEFT,
        "launch-bound": law.launching >= law.on_gpu,
        "not engaged": ahead < RARE and looks_ahead,
        "synchronous": ahead < RARE,
        "in part": ahead < USUAL,
        "host-bound": law.launching + law.host > law.on_gpu,
        "unexplained": True,
    }
    case = next(name for name, holds in cases.items() if holds)
    times = {name: ms(getattr(law, name), 3) for name in ("on_gpu", "launching", "host")}
    shares = {name: f"{ms(part, 3)} of {step} ({part / (typical.step or 1):.1%})"
              for name, part in (("copies", typical.copies), ("stalled", typical.stalled))}  # fmt: skip
    text = TEXTS[case].format(
        **times,
        **shares,
        waits=f"the GPU waits {ms(typical.idle, 3)} of {step} ({typical.exposed:.1%})",
        exposed=typical.exposed,
        ahead=ahead,
        though="" if ahead >= USUAL else f", though {ahead:.0%} of the steps are launched ahead",
        as_graphs=ms(typical.as_graphs, 3),
        or_graphs="" if typical.graph else f", or graphs: {ms(typical.as_graphs, 3)} a step",
        slowed=" But the profiler slows launches: time a step without it, and give that to --step-ms." * bracket,
        looks_ahead=looks_ahead,
        about=about,
        would=predicted(typical, least, bracket),
    )
    return Verdict(case.partition(",")[0], text)


def predicted(typical: Typical, least: float, bracket: bool) -> str:
    """What overlap would win; see `verdict`."""
    law = typical.law
    if not typical.holds:
        says = f"{ms(law.synchronous, 3)} or {ms(law.asynchronous, 3)}"
        return f"The law of overlap does not describe these steps (it says {says}), so nothing is predicted."
    if typical.ahead >= RARE:
        return f"With the host's work hidden, a step would take {ms(law.asynchronous, 3)}."
    law = law if least == 1 else typical.without_profiler
    if bracket:
        low, high = (f"{each:.2f}" for each in law.speedups(least))
        return (
            f"With the host's work hidden, the predicted speedup is {low if low == high else f'{low} to {high}'}: the "
            "profiler slows the host, by how much is not known. Time a step without it, and give that to --step-ms."
        )
    now = law.scaled(least)
    was = "" if least == 1 else f" instead of {ms(now.synchronous, 3)}"
    takes = f"a step would take {ms(now.asynchronous, 3)}{was}: a speedup of {now.speedup:.2f}"
    return f"With the host's work hidden, {takes}."


def signs(gpu: Gpu) -> str:
    """What in a trace speaks of an asynchronous engine; "" if nothing does."""
    recording = gpu.recording
    if gpu.numbered:
        slots = {args["slot"] for args in recording.told.values() if "slot" in args}
        return "it has two slots" if len(slots) > 1 else ""
    names = recording.name[recording.called(LOOKAHEAD, "python_function", "user_annotation")]
    if len(names):
        return f"{re.search(LOOKAHEAD, recording.names[names.min()])[0]!r} is in the trace"
    # The host waits for the end of a copy to memory that is not pinned: it speaks of no lookahead, whatever its stream.
    pinned = gpu.downloads.row[recording.named("Pinned", gpu.downloads.row)]
    main = np.bincount(recording.stream[gpu.work.row]).argmax()
    if (recording.stream[pinned] != main).sum() > 0.5 * len(gpu.downloads.row):
        return "tokens are copied on a stream of their own"
    return ""


def refusals(gpu: Gpu, steps: np.recarray, typical: Typical | None, step: float | None) -> list[str]:
    """Why a trace in which nothing is missing can carry no verdict, and what to record; empty if it can.

    Args:
        steps: all of them.
        typical: what the verdict would be about; None if there is nothing.
        step: seconds that a step takes without the profiler, if known.
    """
    if gpu.segments.by == "nothing":
        return [
            "nothing tells its steps apart: no copy to the host and no wait is in it. Call the profiler's step() once "
            "a step."
        ]
    if not len(gpu.threads):
        return ["it has no launches: was it recorded without ProfilerActivity.CPU?"]
    reasons = []
    if 2 * (steps.profiler > 0).sum() > len(steps):
        reasons.append("the profiler was busy with itself in most of the steps. Record later, after a warm-up.")
    count = typical.count if typical else 0
    if count < FEWEST:
        once = next((f" One-time work goes on, such as {name}." for name in steps.one_time if name), "")
        kinds = ", ".join(f"{many} {kind}" for kind, many in Counter(steps.kind).items())
        return reasons + [
            f"it has {count} steps among their like, and {FEWEST} is the least (steps: {kinds or 'none'}).{once} "
            "Record some tens of steps, well after warm-up."
        ]
    law = typical.law
    # Of a synchronous engine `step` tells how much slower the host was, unless it is shorter than the GPU's part of it.
    host_is_waited_for = typical.ahead < RARE and typical.holds and law.launching < law.on_gpu
    if step and typical.step > SLOWER * step and not (host_is_waited_for and law.on_gpu < SLOWER * step):
        reasons.append(f"the profiler slows it: a step takes {ms(typical.step, 3)} under it and {ms(step, 3)} without.")
    if not step and len(gpu.recording.rows("python_function")) and law.launching + law.host > law.on_gpu:
        host, on_gpu = ms(law.launching + law.host, 3), ms(law.on_gpu, 3)
        reasons.append(
            f"Python's frames are in it (with_stack), which slows the host, and the host takes {host} a step, longer "
            f"than the GPU's {on_gpu}: record it without them, or give --step-ms."
        )
    return reasons


def lost(gpu: Gpu, found: Batches) -> list[str]:
    """What is missing or damaged in a trace; empty if nothing is: it has kernels of what was launched before the last
    batch, launches of what ran, one process, times that are possible."""
    recording, work, steps = gpu.recording, gpu.work, found.steps
    if len(processes := _processes(gpu)) > 1:
        return [
            f"{len(processes)} processes launch on it ({', '.join(map(str, processes))}), and their launches cannot be "
            "told apart. Give each rank's own trace."
        ]
    calls = recording.called("LaunchKernel|GraphLaunch", *CALLS)
    begin, end = (np.sort(recording.start[recording.called(f"{edge}Capture", *CALLS)]) for edge in ("Begin", "End"))
    when, more = recording.start[calls], "Record fewer steps."
    # Of what is launched while a stream is captured nothing runs.
    calls = calls[(when >= steps.called[0]) & (when < steps.called[-1])
                  & (np.searchsorted(begin, when) <= np.searchsorted(end, when))]  # fmt: skip
    ran = np.isin(recording.correlation[calls], recording.correlation[recording.rows(*DEVICE)])
    graphs = recording.named("GraphLaunch", calls)
    empty, replays, none, launches = (int(which.sum()) for which in (~ran & graphs, graphs, ~ran & ~graphs, ~graphs))
    inside = work.start >= steps.start[min(1, len(steps) - 1)]
    inside &= np.logical_or.accumulate(work.known)  # what was queued before the recording began is not lost
    unknown = 1 - work.known[inside].mean() if inside.any() and len(gpu.threads) else 0.0
    (longest, all_of_it), (over, row) = _idle_while_waited_for(gpu), _overlap(gpu)
    unseen = longest > DAMAGED and all_of_it > LOST * (steps.end[-1] - steps.start[0]) and len(recording.gpus) == 1
    reasons = {
        f"{empty:,} of {replays:,} graph replays have no kernel in it: the GPU seems idle while they run. Record "
        "without CUPTI's graph-level tracing.": empty > LOST * replays,
        f"events are lost: of {none:,} of {launches:,} launches no kernel is in it. {more}": none > LOST * launches,
        f"events are lost: the launches of {unknown:.0%} of its kernels are not in it. {more}": unknown > UNKNOWN,
        f"events are lost: for up to {ms(longest / 1e9, 3)} the host waits for the GPU, and nothing runs on it. "
        f"{more}": unseen,
        f"its times are damaged: {recording.text(row)[:40]!r} at {recording.start[row] / 1e9:.6f} s runs "
        f"{ms(over / 1e9, 3)} into the next on its stream. Record it again.": over > DAMAGED,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _processes(gpu: Gpu) -> list:
    """Those whose threads launch on it, or that make a call with the number of one of its launches."""
    recording, calls = gpu.recording, gpu.recording.rows(*CALLS)
    numbers = recording.correlation[calls]
    calls = calls[(numbers > 0) & np.isin(numbers, recording.correlation[gpu.work.row])]
    return sorted({recording.threads[thread][0] for thread in np.unique(recording.thread[calls])}, key=str)


def _idle_while_waited_for(gpu: Gpu) -> tuple[int, int]:
    """Nanoseconds in which nothing runs, copies too, while the host waits for it: the longest such time, and all of
    them. Of a whole trace the longest is some tens of microseconds: what waits was woken by then."""
    waits = gpu.recording.when(gpu.own(gpu.recording.waits))
    idle = gpu.gaps.shared(gpu.copies.outside(*gpu.window)).shared(waits)
    length = idle.end - idle.start
    return int(length.max(initial=0)), int(length[length > LONG].sum())


def _overlap(gpu: Gpu) -> tuple[int, int]:
    """The longest time by which a kernel runs into the next on its stream, in nanoseconds, and its row; of kernels of
    one graph it is not known what comes after what, and those of a trace of ours are many kernels each."""
    work, streams = gpu.work, gpu.recording.stream[gpu.work.row]
    order = np.argsort(streams, kind="stable")
    at, after = order[:-1], order[1:]
    over = work.end[at] - work.start[after]
    one_graph = (work.call[at] == work.call[after]) & work.known[at]
    over[(streams[at] != streams[after]) | one_graph] = 0
    if gpu.numbered or not len(over):
        return 0, -1
    return int(over.max()), int(work.row[at[over.argmax()]])
