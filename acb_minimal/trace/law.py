"""The law of overlap: what a step takes, synchronous and asynchronous, and so what asynchrony can win.

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

PARTS = 64  # in which a range of speeds of the host is looked at


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
        """Seconds of a step of an asynchronous one."""
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
        found = [self.scaled(least + (1 - least) * part / PARTS).speedup for part in range(PARTS + 1)]
        return min(found), max(found)

    def factor_for(self, synchronous: float) -> float:
        """How many times as long the host takes if a synchronous step takes so many seconds; from 0 to 1."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.scaled(middle).synchronous < synchronous else (low, middle)
        return high

    def __str__(self) -> str:
        bound = self.launching >= self.on_gpu
        ramp = f" after a ramp of {ms(self.ramp)}" if not bound and self.ramp > 0.005 * self.on_gpu else ""
        plus = " + ramp" if ramp else ""
        said = (
            f"The law of overlap: K {ms(self.on_gpu)} on the GPU{ramp}, L {ms(self.launching)} to launch, H "
            f"{ms(self.host)} for the rest of the host's work. So a synchronous step is max(K{plus}, L) + H = "
            f"{ms(self.synchronous)}, an asynchronous one max(K, L + H) = {ms(self.asynchronous)}: a speedup of "
            f"{self.speedup:.2f}."
        )
        if bound:
            said += " Launching takes longer than K: asynchrony wins nothing before graphs make it short."
        return said
