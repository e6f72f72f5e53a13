"""What the host and the device did, when, for which batch: spans on one clock, and what follows from them.

The shared parts report to a Trace through the device they run on (device.py), in seconds of that device's host clock.
On a GPU the device's spans come from timing events, laid on the host's clock before and after each run; on the
simulator both clocks are one. This file knows spans; it measures nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .law import inside

Lane = Literal["CPU", "H2D", "compute", "D2H"]
LANES: tuple[Lane, ...] = ("CPU", "H2D", "compute", "D2H")
ENGINES: dict[str, Lane] = {"h2d": "H2D", "compute": "compute", "d2h": "D2H"}
# What work on the compute engine is called.
LAUNCHES = ("carry_over", "correct", "draft", "count", "forward", "logits", "sample", "replay")
COPIES = {"h2d": "upload", "d2h": "download"}
SWAPS = {"h2d": "swap_in", "d2h": "swap_out"}  # of KV pages
# In the categories of torch's profiler: which call of CUDA's a span on the CPU stands for, and what a copy is called.
CALLS = {"wait": "cudaStreamSynchronize", "replay": "cudaGraphLaunch"}
CALLS |= dict.fromkeys((*COPIES.values(), *SWAPS.values()), "cudaMemcpyAsync")
MEMCPY = {"H2D": "Memcpy HtoD (Pinned -> Device)", "D2H": "Memcpy DtoH (Device -> Pinned)"}
HOST, GPU = 1, 0  # processes


def number_of(work) -> int | None:
    """The number of the batch that device work is for (device.Work), as it is now; None without one."""
    return work.batch.number if work is not None and work.batch is not None else None


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `start` to `end`, in seconds.

    Attributes:
        lane: who did it.
        name: on the CPU schedule, write, fill, masks, wait, update, or what is launched; on the device what runs: of
            LAUNCHES, COPIES or SWAPS.
        batch_number: number of the batch, from 0; None for a wait, which may be for anything, and for a swap.
        slot: the slot's letter; None if no slot is involved.
        launched: when the host launched it, of what a device did.
        kernels: seconds of it in which a kernel runs, in the compute lane and where that is known.
        kernel_gaps: seconds that the GPU takes from one of these kernels to the next though that is queued, likewise.
        kernel_count: how many kernels these are, likewise.
    """

    lane: Lane
    name: str
    start: float
    end: float
    batch_number: int | None = None
    slot: str | None = None
    launched: float | None = None
    kernels: float | None = None
    kernel_gaps: float | None = None
    kernel_count: int | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start

    @property
    def on_gpu(self) -> float | None:
        """Seconds of it in which the GPU does not wait for launches; None if that is not known."""
        if self.kernels is None:
            return None
        return sum(inside(self.seconds, self.kernels, self.kernel_gaps, self.kernel_count, self.name == "replay"))


@dataclass
class Trace:
    """The spans of one run, in the order they were reported.

    Attributes:
        device: what they were recorded on; a simulated one says so.
        spans: all of them.
        rank: of the process, among those of one run; None if there is but one.
        rows: of each batch, by number, without padding; empty if they are not known.
        prompts: numbers of the batches that had prompts in them; None if that is not known.
    """

    device: str = ""
    spans: list[Span] = field(default_factory=list)
    rank: int | None = None
    rows: dict[int, int] = field(default_factory=dict)
    prompts: frozenset[int] | None = None

    def add(self, lane: Lane, name: str, start: float, end: float, *details, **named) -> None:
        """Reports a span; `details` are Span's other fields."""
        self.spans.append(Span(lane, name, start, end, *details, **named))

    def lane(self, lane: Lane) -> list[Span]:
        """A lane's spans, by start."""
        return sorted((span for span in self.spans if span.lane == lane), key=lambda span: span.start)

    def batches(self) -> dict[int, tuple[float, float]]:
        """When each batch was on the GPU: from the start of its first compute span to the end of its last."""
        windows: dict[int, tuple[float, float]] = {}
        for span in self.lane("compute"):
            start, end = windows.get(span.batch_number, (span.start, span.end))
            windows[span.batch_number] = min(start, span.start), max(end, span.end)
        return windows

    def bubbles(self) -> dict[int, float]:
        """Seconds without a batch on the GPU before each batch but the first; both ends are on the GPU's clock."""
        ordered = sorted(self.batches().items(), key=lambda item: item[1])
        return {number: max(start - end, 0.0) for (_, (_, end)), (number, (start, _)) in pairwise(ordered)}

    def active(self) -> float | None:
        """Share of time, 0 to 1, with a batch on the GPU, from the first one's start to the last one's end. What is
        missing from 1 are the bubbles; gaps inside a batch count as active here. None without any batch."""
        windows = self.batches().values()
        if not windows:
            return None
        whole = max(end for _, end in windows) - min(start for start, _ in windows)
        return 1 - sum(self.bubbles().values()) / whole

    def steps(self) -> list[dict[str, float]]:
        """What each batch took.

        Returns:
            For each batch, by number: seconds of its host work by name, of its time on the GPU ("compute") and of the
            bubble before it ("bubble", 0 for the first).
        """
        windows, bubbles = self.batches(), self.bubbles()
        host: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for span in self.lane("CPU"):
            host[span.batch_number][span.name] += span.seconds
        return [
            {"batch": number, "compute": end - start, "bubble": bubbles.get(number, 0.0), **host[number]}
            for number, (start, end) in sorted(windows.items())
        ]

    def launching(self) -> dict[int, float]:
        """Seconds that the host took to launch each batch's forward pass, carry-over included."""
        seconds: dict[int, float] = defaultdict(float)
        for span in self.lane("CPU"):
            if span.name in LAUNCHES:
                seconds[span.batch_number] += span.seconds
        return seconds

    def middle(self, count: int) -> tuple[int, int]:
        """The numbers of the first and last of `count` batches from the middle of the run; of all, if there are fewer.

        Raises:
            InputError: there is no batch.
        """
        known = sorted(self.batches())
        if not known:
            raise InputError("the trace has no batches")
        first = max(min(len(known) // 2, len(known) - count), 0)
        return known[first], known[min(first + count, len(known)) - 1]

    def part(self, first: int, last: int) -> "Trace":
        """The spans of batches `first` to `last`, and the waits between them."""
        numbered = (span for span in self.spans if span.batch_number is not None)
        of_batches = [span for span in numbered if first <= span.batch_number <= last]
        begin, end = min(span.start for span in of_batches), max(span.end for span in of_batches)
        waits = [span for span in self.spans if span.batch_number is None and begin <= span.start and span.end <= end]
        spans = sorted(of_batches + waits, key=lambda span: span.start)
        return replace(self, spans=spans)

    def told(self, steps: Sequence) -> "Trace":
        """The same, told of every batch how many rows it had and whether there were prompts in it.

        Args:
            steps: of each batch, by number, its `rows` and whether it was of `decodes` alone.
        """
        self.rows = {number: step.rows for number, step in enumerate(steps)}
        self.prompts = frozenset(number for number, step in enumerate(steps) if not step.decodes)
        return self

    def chrome(self) -> dict:
        """The trace in Chrome's format, in the categories of torch's profiler, for Perfetto and all that read these."""
        named = [(HOST, 0, "process", "host"), (GPU, 0, "process", self.device), (HOST, 1, "thread", "CPU")]
        named += [(GPU, LANES.index(lane), "thread", lane) for lane in LANES[1:]]
        names = [
            {"ph": "M", "name": f"{what}_name", "pid": pid, "tid": tid, "args": {"name": name}}
            for pid, tid, what, name in named
        ]
        header = {
            "displayTimeUnit": "ms",
            "deviceProperties": [{"id": 0, "name": self.device}],
            "otherData": {"device": self.device},
            "traceEvents": names + sorted(self.events(), key=lambda event: event["ts"]),
        }
        return header if self.rank is None else header | {"distributedInfo": {"rank": self.rank}}

    def events(self) -> Iterator[dict]:
        """Its spans as events: annotations on the CPU, with the calls of CUDA's in them, kernels and copies."""
        zero, cpu = min((span.start for span in self.spans), default=0.0), self.lane("CPU")
        calls = {(edge, span.name): (span.start, span.end) for span in cpu for edge in (span.end, span.start)}

        def us(seconds: float) -> float:
            return round(1e6 * (seconds - zero), 3)  # whole nanoseconds, so that what ends as something starts does so

        def event(category: str, name: str, start: float, end: float, pid: int, tid: int, **args) -> dict:
            time = {"ts": us(start), "dur": round(us(end) - us(start), 3)}
            args = {name: value for name, value in args.items() if value is not None}
            return {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, **time, "args": args}

        for span in cpu:
            times = span.start, span.end, HOST, 1
            yield event("user_annotation", span.name, *times, batch=span.batch_number, slot=span.slot)
            if span.name == "wait":
                yield event("cuda_runtime", CALLS["wait"], *times)
        for number, span in enumerate((span for span in self.spans if span.lane != "CPU"), start=1):
            stream = LANES.index(span.lane)
            if span.launched is not None:
                call = calls.get((span.launched, span.name), (span.launched, span.launched))
                yield event(
                    "cuda_runtime", CALLS.get(span.name, "cudaLaunchKernel"), *call, HOST, 1, correlation=number
                )
                arrow = {"cat": "ac2g", "name": "ac2g", "id": number}
                yield {"ph": "s", **arrow, "pid": HOST, "tid": 1, "ts": us(call[0])}
                yield {"ph": "f", "bp": "e", **arrow, "pid": GPU, "tid": stream, "ts": us(span.start)}
            args = {"correlation": number, "device": 0, "stream": stream, "batch": span.batch_number, "slot": span.slot}
            if span.lane == "compute":
                args |= {
                    "rows": self.rows.get(span.batch_number),
                    "decodes": None if self.prompts is None else span.batch_number not in self.prompts,
                    "kernels": span.kernels and 1e6 * span.kernels,
                    "kernel_gaps": span.kernel_gaps and 1e6 * span.kernel_gaps,
                    "kernel_count": span.kernel_count,
                }
                what = "kernel", span.name
            else:
                args["what"], what = span.name, ("gpu_memcpy", MEMCPY[span.lane])
            yield event(*what, span.start, span.end, GPU, stream, **args)

    @classmethod
    def of_chrome(cls, chrome: dict) -> "Trace":
        """The trace from which `chrome` was made; its times begin at 0, and a launch is as early as its call."""
        trace = cls(chrome["otherData"]["device"], rank=chrome.get("distributedInfo", {}).get("rank"))
        events = [event for event in chrome["traceEvents"] if event["ph"] == "X"]
        calls = {event["args"].get("correlation"): event["ts"] for event in events if event["cat"] == "cuda_runtime"}
        lanes = {"user_annotation": "CPU", "kernel": "compute"} | {name: lane for lane, name in MEMCPY.items()}
        decodes = {}
        for event in events:
            if event["cat"] != "cuda_runtime":
                args, start = event["args"], 1e-6 * event["ts"]
                times = calls.get(args.get("correlation", -1)), args.get("kernels"), args.get("kernel_gaps")
                times = (us and 1e-6 * us for us in times)
                lane = lanes.get(event["cat"]) or lanes[event["name"]]
                place = start, start + 1e-6 * event["dur"], args.get("batch"), args.get("slot")
                trace.add(lane, args.get("what", event["name"]), *place, *times, args.get("kernel_count"))
                for known, name in ((trace.rows, "rows"), (decodes, "decodes")):
                    known |= {args["batch"]: args[name]} if name in args else {}
        trace.prompts = frozenset(number for number, alone in decodes.items() if not alone) if decodes else None
        return trace

    def save_chrome(self, path: Path, **facts: str) -> None:
        """Writes `chrome()` as JSON, with what else is to be known about it."""
        chrome = self.chrome()
        path.write_text(json.dumps(chrome | {"otherData": chrome["otherData"] | facts}) + "\n")
