"""Where the time of a step goes; and the law of overlap: what a step takes, synchronous and asynchronous.

With K the time that a batch takes the GPU once all of it is queued, its kernels and kernel gaps; L the time that the
host takes to launch it; and H the rest of the host's work for a step:

    synchronous    step = max(K, L) + H
    asynchronous   step = max(K, L + H)

A GPU that has nothing queued waits for the first launches as well, until the host is ahead of it: of an engine that
launches kernel by kernel, K is longer by that ramp while it is synchronous.

A synchronous engine's GPU waits for H: its bubble is H. So asynchrony wins at most H, all of it if L + H <= K, and
nothing if the launches alone take longer than the kernels (L >= K): then the GPU waits for launches either way. The
speedup is largest where H = K, a factor of two.
"""

from dataclasses import dataclass

from .formatting import ms

# Seconds that the GPU takes from one kernel to the next though that is queued, on an H200, without a profiler: the time
# of a batch in which none of its kernels runs, over their number (docs/results/h200.json; a test holds them to it). Of
# kernels launched one by one: chapter 5 on `wide`, whose host is a batch ahead. Of a graph's: chapter 6 on `small`.
EAGER_GAP = 1.43e-6
GRAPH_GAP = 0.3e-6
PARTS = ("kernels", "kernel_gaps", "launch_gaps", "bubbles")  # of a Breakdown


@dataclass(frozen=True)
class Breakdown:
    """A step, from the end of a batch on the GPU to the end of the next, in seconds.

    Attributes:
        kernels: a kernel is running.
        kernel_gaps: none is, though the next one is queued: the GPU's own time from one kernel to the next.
        launch_gaps: none is, because the host has not launched the next one yet.
        bubbles: no batch is on the GPU, because the host is between two batches.
        kernel_count: kernels in a batch; None where they are not known one by one.
    """

    kernels: float
    kernel_gaps: float
    launch_gaps: float
    bubbles: float
    kernel_count: float | None = None

    @property
    def step(self) -> float:
        """All of it."""
        return self.on_gpu + self.launch_gaps + self.bubbles

    @property
    def on_gpu(self) -> float:
        """K: what the batch takes a GPU that never waits for the host."""
        return self.kernels + self.kernel_gaps

    def distance(self, measured: "Breakdown") -> float:
        """How far off the step is, or the part that differs most from the measured one's, as a share of that step."""
        parts = (*PARTS, "step")
        return max(abs(getattr(self, part) - getattr(measured, part)) for part in parts) / measured.step


def inside(
    length: float, kernels: float, gaps: float | None, count: float | None, graph: bool, gap: float = EAGER_GAP
) -> tuple[float, float]:
    """For how long kernels run in a batch, or a part of it, on the GPU, and for how long it is in kernel gaps; the rest
    are launch gaps.

    Args:
        length: of all of it, seconds.
        kernels: of kernels, seconds; as they were timed in another run, they may be longer.
        gaps: of kernel gaps, seconds; None if not known.
        count: of kernels; None if not known.
        graph: whether they were launched as a graph, which leaves nothing to wait for.
        gap: seconds from one kernel to the next if both are queued, and not of a graph.
    """
    kernels = min(kernels, length)
    rest = length - kernels
    if gaps is None:
        gaps = rest if graph else (count or 0) * gap
    return kernels, min(gaps, rest)


@dataclass(frozen=True)
class Law:
    """What the law of overlap says of an engine.

    Attributes:
        on_gpu: K, seconds.
        launching: L, seconds.
        host: H, seconds.
        ramp: seconds that the GPU of a synchronous engine waits for the first launches of a batch.
    """

    on_gpu: float
    launching: float
    host: float
    ramp: float = 0.0

    @property
    def synchronous(self) -> float:
        """Seconds of a step of a synchronous engine."""
        return max(self.on_gpu + self.ramp, self.launching) + self.host

    @property
    def asynchronous(self) -> float:
        """Of an asynchronous one."""
        return max(self.on_gpu, self.launching + self.host)

    @property
    def speedup(self) -> float:
        """Of the asynchronous one over the synchronous one: from 1 to 2, but for the ramp."""
        return self.synchronous / self.asynchronous

    def scaled(self, factor: float) -> "Law":
        """The same with a host that takes so many times as long for all it does."""
        return Law(self.on_gpu, factor * self.launching, factor * self.host, factor * self.ramp)

    def speedups(self, least: float) -> tuple[float, float]:
        """The least and the greatest speedup, for a host that takes from `least` to 1 times as long."""
        found = [self.scaled(least + (1 - least) * part / 64).speedup for part in range(65)]
        return min(found), max(found)

    def factor_for(self, synchronous: float) -> float:
        """How many times as long the host takes if a synchronous step takes so many seconds; from 0 to 1."""
        ways = ((synchronous - self.on_gpu, self.ramp + self.host), (synchronous, self.launching + self.host))
        return min(max(min((left / takes for left, takes in ways if takes), default=1.0), 0.0), 1.0)

    def __str__(self) -> str:
        bound = self.launching >= self.on_gpu
        ramp = f" after a ramp of {ms(self.ramp)}" if not bound and self.ramp > 0.005 * self.on_gpu else ""
        plus = " + ramp" if ramp else ""
        nothing = " Launching takes longer than K: asynchrony wins nothing before graphs make it short."
        return (
            f"The law of overlap: K {ms(self.on_gpu)} on the GPU{ramp}, L {ms(self.launching)} to launch, H "
            f"{ms(self.host)} for the rest of the host's work. So a synchronous step is max(K{plus}, L) + H = "
            f"{ms(self.synchronous)}, an asynchronous one max(K, L + H) = {ms(self.asynchronous)}: a speedup of "
            f"{self.speedup:.2f}.{nothing if bound else ''}"
        )
