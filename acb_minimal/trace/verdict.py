"""What is to be said of an engine by its steady steps; and why nothing is to be said, where a trace cannot carry it."""

import re
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from .batch_times import Batches
from .formatting import ms
from .gaps import Gpu
from .steps import Step, Typical
from .torch_profiler import CALLS, DEVICE

Kind = Literal[
    "busy", "launch-bound", "copy-bound", "synchronous", "not engaged", "in part", "host-bound", "unexplained"
]
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


class Verdict(NamedTuple):
    """On the steady steps of one GPU.

    Attributes:
        kind: in a word.
        text: in a few sentences.
    """

    kind: Kind
    text: str


def verdict(
    typical: Typical,
    looks_ahead: str = "",
    least: float = 1.0,
    bracket: bool = False,
    about: str = "steps",
) -> Verdict:
    """What the medians say.

    Args:
        looks_ahead: what in the trace speaks of an asynchronous engine; "" if nothing does.
        least: how many times as long the host takes without the profiler.
        bracket: whether that is the least it may be, and the most is as long as with it.
        about: what the steps are.
    """
    law = typical.law
    step, on_gpu, launching, host = (ms(each, 3) for each in (typical.step, law.on_gpu, law.launching, law.host))
    waits = f"the GPU waits {ms(typical.idle, 3)} of {step} ({typical.exposed:.1%})"
    if typical.parts is None and law.launching >= PACE * law.on_gpu:
        text = (
            f"Launching a batch takes the host {launching} of the {on_gpu} that it is on the GPU, so the GPU waits "
            f"for launches, most likely; its kernels are not in this trace. Between batches {waits}."
        )
        return Verdict("launch-bound", text)
    least_waits = max(typical.idle, NOTHING_LEFT * typical.step)
    if typical.copies > least_waits:
        share = f"{ms(typical.copies, 3)} of {step} ({typical.copies / typical.step:.1%})"
        text = (
            f"What is launched waits for a copy {share}, and nothing is predicted: the law of overlap knows no such "
            f"waits. Pinned memory, a stream of its own and an upload one step ahead hide copies beside kernels."
        )
        return Verdict("copy-bound", text)
    if typical.stalled > least_waits:
        share = f"{ms(typical.stalled, 3)} of {step} ({typical.stalled / typical.step:.1%})"
        text = f"What is launched waits {share} for something that is not in this trace: nothing is predicted."
        return Verdict("unexplained", text)
    if typical.exposed < NOTHING_LEFT:
        ahead = "" if typical.ahead >= USUAL else f", though {typical.ahead:.0%} of the steps are launched ahead"
        text = f"The GPU waits {typical.exposed:.1%} of a step{ahead}: nothing is left for overlap to win."
        return Verdict("busy", text)
    if law.launching >= law.on_gpu:
        text = (
            f"Launching a batch takes the host {launching}, and the GPU needs {on_gpu} for it: {waits}, and overlap "
            f"cannot hide that. Launched as graphs, and asynchronous, a step would take {ms(typical.as_graphs, 3)} or "
            f"little more."
        )
        if bracket:
            text += " But the profiler slows launches: time a step without it, and give that to --step-ms."
        return Verdict("launch-bound", text)
    waited = "each batch is launched after the host has waited for the one before"
    would = predicted(typical, least, bracket)
    if typical.ahead < RARE and looks_ahead:
        text = (
            f"Asynchronous by the look of it ({looks_ahead}), synchronous in fact: {waited}, and {waits}. If "
            f"asynchronous scheduling is switched on, it does not engage. {would}"
        )
        return Verdict("not engaged", text)
    if typical.ahead < RARE:
        return Verdict("synchronous", f"{waited.capitalize()}, and {waits}. {would}")
    if typical.ahead < USUAL:
        share = f"{typical.ahead:.0%} of the {about}"
        text = f"{share} are launched ahead; in the others the host waits first, and {waits}. {would}"
        return Verdict("in part", text)
    if law.launching + law.host > law.on_gpu:
        graphs = "" if typical.graph else f", or graphs: {ms(typical.as_graphs, 3)} a step"
        text = (
            f"Launched ahead, but the host needs longer for a step than the GPU: {launching} to launch and {host} for "
            f"the rest, and {on_gpu} on the GPU; {waits}. Less host work is the cure{graphs}."
        )
        return Verdict("host-bound", text)
    return Verdict("unexplained", f"Launched ahead, and yet {waits}: for something that this trace does not show.")


def predicted(typical: Typical, least: float, bracket: bool) -> str:
    """What overlap would win; see `verdict`."""
    law = typical.law
    if not typical.holds:
        says = f"{ms(law.synchronous, 3)} or {ms(law.asynchronous, 3)}"
        return f"The law of overlap does not describe these steps (it says {says}), so nothing is predicted."
    if typical.ahead >= RARE:
        return f"With the host's work hidden, a step would take {ms(law.asynchronous, 3)}."
    law = law if least == 1 else typical.without_profiler
    now = law.scaled(least)
    if not bracket:
        takes, was = ms(now.asynchronous, 3), "" if least == 1 else f" instead of {ms(now.synchronous, 3)}"
        return f"With the host's work hidden, a step would take {takes}{was}: a speedup of {now.speedup:.2f}."
    low, high = (f"{each:.2f}" for each in law.speedups(least))
    range = low if low == high else f"{low} to {high}"
    return (
        f"With the host's work hidden, the predicted speedup is {range}: the profiler slows the host, by how much is "
        f"not known. Time a step without it, and give that to --step-ms."
    )


def signs(gpu: Gpu) -> str:
    """What in a trace speaks of an asynchronous engine; "" if nothing does."""
    recording = gpu.recording
    if gpu.numbered:
        slots = {args["slot"] for args in recording.told.values() if "slot" in args}
        return "it has two slots" if len(slots) > 1 else ""
    rows = recording.rows("python_function", "user_annotation")
    for name in np.unique(recording.name[rows]).tolist():
        if hint := re.search(LOOKAHEAD, recording.names[name]):
            return f"{hint[0]!r} is in the trace"
    # The host waits for the end of a copy to memory that is not pinned: it speaks of no lookahead, whatever its stream.
    pinned = gpu.downloads.row[recording.named("Pinned", gpu.downloads.row)]
    if len(pinned):
        main = np.bincount(recording.stream[gpu.work.row]).argmax()
        if (recording.stream[pinned] != main).sum() > 0.5 * len(gpu.downloads.row):
            return "tokens are copied on a stream of their own"
    return ""


def refusals(gpu: Gpu, lost: list[str], steps: list[Step], typical: Typical | None, step: float | None) -> list[str]:
    """Why this trace can carry no verdict, and what to record; empty if it can.

    Args:
        lost: what is missing in it.
        steps: all of them.
        typical: what the verdict would be about; None if there is nothing.
        step: seconds that a step takes without the profiler, if known.
    """
    if lost:
        return lost
    if not gpu.segments.told:
        return [
            "nothing tells its steps apart: no copy to the host and no wait is in it. Call the profiler's step() once "
            "a step."
        ]
    if not len(gpu.threads):
        return ["it has no launches: was it recorded without ProfilerActivity.CPU?"]
    reasons = []
    if 2 * sum(each.profiler > 0 for each in steps) > len(steps):
        reasons.append("the profiler was busy with itself in most of the steps. Record later, after a warm-up.")
    if typical is None or typical.count < FEWEST:
        once = next((f" One-time work goes on, such as {each.one_time}." for each in steps if each.one_time), "")
        sorts = ", ".join(f"{count} {sort}" for sort, count in Counter(each.sort for each in steps).items())
        reasons.append(
            f"it has {typical.count if typical else 0} steps among their like, and {FEWEST} is the least (steps: "
            f"{sorts or 'none'}).{once} Record some tens of steps, well after warm-up."
        )
        return reasons
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
    """Whether what is in the trace can be: kernels of what was launched before the last batch, launches of what ran,
    one process, times that are possible.

    Returns:
        What is missing or damaged; empty if nothing is.
    """
    recording, first, last = gpu.recording, found.steps[0], found.steps[-1]
    if len(gpu.processes) > 1:
        return [
            f"{len(gpu.processes)} processes launch on it ({', '.join(map(str, gpu.processes))}), and their launches "
            "cannot be told apart. Give each rank's own trace."
        ]
    rows = calls = recording.rows(*CALLS)
    calls = calls[(recording.start[calls] >= first.called) & (recording.start[calls] < last.called)]
    calls = calls[recording.named("LaunchKernel|GraphLaunch", calls)]
    edges = (np.sort(recording.start[rows[recording.named(f"{edge}Capture", rows)]]) for edge in ("Begin", "End"))
    begun, ended = (np.searchsorted(edge, recording.start[calls]) for edge in edges)
    calls = calls[begun <= ended]  # of what is launched while a stream is captured nothing runs
    ran = np.isin(recording.correlation[calls], recording.correlation[recording.rows(*DEVICE)])
    graphs = recording.named("GraphLaunch", calls)
    reasons = []
    if graphs.any() and (empty := int((~ran & graphs).sum())) > LOST * graphs.sum():
        reasons.append(
            f"{empty:,} of {graphs.sum():,} graph replays have no kernel in it: the GPU seems idle while they run. "
            "Record without CUPTI's graph-level tracing."
        )
    if (~graphs).any() and (lost := int((~ran & ~graphs).sum())) > LOST * (~graphs).sum():
        reasons.append(
            f"events are lost: of {lost:,} of {(~graphs).sum():,} launches no kernel is in it. Record fewer steps."
        )
    inside = gpu.work.start >= (found.steps[1].start if len(found.steps) > 1 else first.start)
    inside &= np.logical_or.accumulate(gpu.work.known)  # what was queued before the recording began is not lost
    if inside.any() and (unknown := float(1 - gpu.work.known[inside].mean())) > UNKNOWN and len(gpu.threads):
        reasons.append(
            f"events are lost: the launches of {unknown:.0%} of its kernels are not in it. Record fewer steps."
        )
    longest, all_of_it = gpu.idle_while_waited_for
    if longest > DAMAGED and all_of_it > LOST * (last.end - first.start) and len(recording.gpus) == 1:
        reasons.append(
            f"events are lost: for up to {ms(longest / 1e9, 3)} the host waits for the GPU, and nothing runs on it. "
            "Record fewer steps."
        )
    if (by := gpu.overlap)[0] > DAMAGED:
        name = recording.text(by[1])[:40]
        reasons.append(
            f"its times are damaged: {name!r} at {recording.start[by[1]] / 1e9:.6f} s runs {ms(by[0] / 1e9, 3)} into "
            "the next on its stream. Record it again."
        )
    return reasons
