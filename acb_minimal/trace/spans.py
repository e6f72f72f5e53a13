"""What the host and the device did, when, for which batch: spans on one clock, and what follows from them.

The shared parts report to a Trace through the device they run on (device.py), in seconds of that device's host clock.
On a GPU the device's spans come from timing events, laid on the host's clock before and after each run; on the
simulator both clocks are one. This file knows spans; it measures nothing.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ..errors import InputError

Lane = Literal["CPU", "H2D", "compute", "D2H"]
LANES: tuple[Lane, ...] = ("CPU", "H2D", "compute", "D2H")
LAUNCHES = ("carry_over", "forward", "replay")  # the names of spans that are launching
ENGINES: dict[str, Lane] = {"h2d": "H2D", "compute": "compute", "d2h": "D2H"}
COPIES = {"h2d": "upload", "d2h": "download"}


def number_of(work) -> int | None:
    """The number of the batch that device work is for (device.Work), as it is now; None without one."""
    return work.batch.number if work is not None and work.batch is not None else None


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `start` to `end`, in seconds.

    Attributes:
        lane: who did it.
        name: on the CPU schedule, write, fill, upload, forward, carry_over, replay, download, wait or update; on the
            device upload, forward, carry_over, replay or download.
        start: seconds.
        end: seconds.
        batch_number: number of the batch, from 0; None for a wait, which may be for anything.
        slot: the slot's letter; None if no slot is involved.
        launched: when the host launched it, of what a device did.
        kernels: seconds of it in which a kernel runs, in the compute lane and where that is known: the simulator knows.
        kernel_count: how many these are, where that is known: the simulator has no single kernels.
    """

    lane: Lane
    name: str
    start: float
    end: float
    batch_number: int | None = None
    slot: str | None = None
    launched: float | None = None
    kernels: float | None = None
    kernel_count: int | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass
class Trace:
    """The spans of one run, in the order they were reported.

    Attributes:
        device: what they were recorded on; a simulated one says so.
        spans: all of them.
        rank: of the process, among those of one run; None if there is but one.
        prompts: numbers of the batches that had prompts in them; None if that is not known.
    """

    device: str = ""
    spans: list[Span] = field(default_factory=list)
    rank: int | None = None
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

    def launching(self, batch_number: int) -> float:
        """Seconds that the host took to launch a batch's forward pass, carry-over included."""
        spans = (span for span in self.spans if span.lane == "CPU" and span.batch_number == batch_number)
        return sum(span.seconds for span in spans if span.name in LAUNCHES)

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
        return Trace(self.device, sorted(of_batches + waits, key=lambda span: span.start), self.rank, self.prompts)

    def chrome(self) -> dict:
        """The trace in Chrome's format, for Perfetto: a named lane each, and an arrow from launch to execution."""
        events: list[dict] = [
            {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": self.device}},
        ]
        for tid, lane in enumerate(LANES, start=1):
            events.append({"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": lane}})
            events.append({"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": tid, "args": {"sort_index": tid}})
        zero = min((span.start for span in self.spans), default=0.0)
        timed = []
        for number, span in enumerate(self.spans):
            tid, start = LANES.index(span.lane) + 1, 1e6 * (span.start - zero)
            where = {"pid": 1, "tid": tid, "ts": start}
            details = {"batch": span.batch_number, "slot": span.slot}
            if span.kernels is not None:
                details["kernels"] = 1e6 * span.kernels
            if span.kernel_count is not None:
                details["kernel_count"] = span.kernel_count
            timed.append(
                {"ph": "X", "name": span.name, "cat": span.lane, **where, "dur": 1e6 * span.seconds, "args": details}
            )
            if span.launched is not None:
                flow = {"name": "launch", "cat": "launch", "id": number, "pid": 1}
                timed.append({"ph": "s", **flow, "tid": 1, "ts": 1e6 * (span.launched - zero)})
                timed.append({"ph": "f", "bp": "e", **flow, "tid": tid, "ts": start})
        events += sorted(timed, key=lambda event: event["ts"])
        facts = {"device": self.device} | ({} if self.prompts is None else {"prompts": sorted(self.prompts)})
        header = {"displayTimeUnit": "ms", "traceEvents": events, "otherData": facts}
        return header if self.rank is None else header | {"distributedInfo": {"rank": self.rank}}  # as torch's profiler

    @classmethod
    def of_chrome(cls, chrome: dict) -> "Trace":
        """The trace from which `chrome` was made; its times begin at 0."""
        events = defaultdict(list)
        for event in chrome["traceEvents"]:
            events[event["ph"]].append(event)
        calls = {event["id"]: 1e-6 * event["ts"] for event in events["s"]}
        launched = {(event["tid"], event["ts"]): calls[event["id"]] for event in events["f"]}
        facts = chrome.get("otherData", {})
        trace = cls(facts.get("device", ""))
        trace.prompts = frozenset(facts["prompts"]) if "prompts" in facts else None
        trace.rank = chrome.get("distributedInfo", {}).get("rank")
        for event in events["X"]:
            place, details = (event["tid"], event["ts"]), event["args"]
            start, kernels = 1e-6 * event["ts"], details.get("kernels")
            trace.add(
                event["cat"], event["name"], start, start + 1e-6 * event["dur"], details["batch"], details["slot"],
                launched.get(place), None if kernels is None else 1e-6 * kernels, details.get("kernel_count"),
            )  # fmt: skip
        return trace

    def save_chrome(self, path: Path, **facts: str) -> None:
        """Writes `chrome()` as JSON, with what else is to be known about it."""
        chrome = self.chrome()
        path.write_text(json.dumps(chrome | {"otherData": chrome["otherData"] | facts}) + "\n")
