"""Made-up engines of every kind, as torch's profiler would record them."""

from itertools import pairwise

import pytest

from acb_minimal.trace.idle import Report, analyse
from acb_minimal.trace.torch_profiler import Recording

LATENCY = 4  # us from a launch to its start on an idle GPU


class Tape:
    """What torch's profiler would write of host threads and GPUs, in microseconds.

    now     the host's time; every method moves it on
    runs    start and end of each kernel, by GPU
    """

    def __init__(self):
        self.now, self.events, self.runs, self.free, self.correlation = 1000, [], {}, {}, 0

    def event(self, category: str, name: str, start: float, end: float, pid=77, tid=1, **args) -> None:
        place = {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": start, "dur": end - start}
        self.events.append({**place, "args": args})

    def host(self, name: str, length: float, category="cpu_op", tid=1) -> None:
        self.event(category, name, self.now, self.now + length, tid=tid)
        self.now += length

    def call(self, name: str, length: float, category="cuda_runtime", tid=1) -> int:
        self.correlation += 1
        self.event(category, name, self.now, self.now + length, tid=tid, correlation=self.correlation, cbid=211)
        return self.correlation

    def on_gpu(self, category: str, name: str, start: float, end: float, number: int, gpu=0, stream=7) -> None:
        self.event(category, name, start, end, gpu, stream, device=gpu, stream=stream, correlation=number)
        if category == "kernel":
            self.runs.setdefault(gpu, []).append((start, end))

    def launch(self, *lengths: float, took=5, call="cudaLaunchKernel", gpu=0, tid=1) -> None:
        """One call that launches kernels, which run one after the other once the GPU is free."""
        number, start = self.call(call, took, tid=tid), self.now + LATENCY
        for length in lengths:
            start = max(start, self.free.get(gpu, 0))
            self.free[gpu] = start + length
            self.on_gpu("kernel", "gemm", start, self.free[gpu], number, gpu)
        self.now += took

    def graph(self, *lengths: float, **options) -> None:
        self.launch(*lengths, call="cudaGraphLaunch", **options)

    def download(self, gpu=0, tid=1, name="Memcpy DtoH (Device -> Pinned)", stream=9) -> float:
        """Launches a copy of what the GPU has computed by then, and says when it ends; the host does not wait."""
        number, start = self.call("cudaMemcpyAsync", 3, tid=tid), max(self.now + LATENCY, self.free.get(gpu, 0) + 1)
        self.on_gpu("gpu_memcpy", name, start, start + 2, number, gpu, stream)
        self.now += 3
        return start + 2

    def wait(self, until: float, name="cudaStreamSynchronize", tid=1) -> None:
        """A call that returns at `until`, or 1 us after it began."""
        until = max(until, self.now + 1)
        self.call(name, until - self.now, tid=tid)
        self.now = until

    def report(self) -> Report:
        (report,) = analyse(Recording.of(self.events))
        check(report, self.runs[0])
        return report


def check(report: Report, runs: list[tuple[float, float]]) -> None:
    """Kernels and gaps are those of `runs` (us), found the slow way, and add up to the window."""
    start, end = min(start for start, _ in runs), max(end for _, end in runs)
    edges = sorted({edge for run in runs for edge in run})
    pieces = [(a, b, any(s <= a and b <= e for s, e in runs)) for a, b in pairwise(edges)]
    assert report.window == pytest.approx((end - start) / 1e6)
    assert report.kernel_seconds == pytest.approx(sum(b - a for a, b, runs in pieces if runs) / 1e6)
    idle = [report.bubbles, report.launch_gaps, report.kernel_gaps, report.copies, report.stalls]
    gaps = sum(not runs for _, _, runs in pieces)
    assert gaps <= sum(each.count for each in idle) <= 2 * gaps  # a launch gap can have two parts
    assert report.kernel_seconds + sum(each.seconds for each in idle) == pytest.approx(report.window, abs=1e-12)
    assert report.kernels == len(runs)


def us(seconds: float) -> float:
    return pytest.approx(1e6 * seconds, abs=1e-3)


def sync(steps=5, eager=True, bookkeeping=300, kernels=10, length=20, took=5, tape=None, stream=9) -> Tape:
    """N is waited for before N + 1 is launched. Tokens are copied on `stream`; kernels run on 7."""
    tape = tape or Tape()
    for _ in range(steps):
        tape.host("schedule", bookkeeping, "user_annotation")
        forward(tape, eager, kernels, length, took)
        tape.wait(tape.download(stream=stream))
    return tape


def asynchronous(
    steps=5, eager=True, bookkeeping=30, kernels=10, length=20, took=5, waiter=1, engages=lambda step: True
) -> Tape:
    """N + 1 is launched before N is waited for; but N is waited for at once in steps in which that does not engage."""
    tape, downloaded = Tape(), None
    for step in range(steps):
        tape.host("schedule", bookkeeping)
        forward(tape, eager, kernels, length, took)
        downloaded, before = tape.download(), downloaded
        if not engages(step):
            tape.wait(downloaded, "cudaEventSynchronize", tid=waiter)
            downloaded = None
        elif before:
            tape.wait(before, "cudaEventSynchronize", tid=waiter)
    return tape


def forward(tape: Tape, eager: bool, kernels: int, length: float, took: float) -> None:
    if not eager:
        tape.graph(*[length] * kernels)
    for _ in range(kernels if eager else 0):
        tape.launch(length, took=took)
