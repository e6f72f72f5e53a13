"""The law of overlap: what a step takes, synchronous and asynchronous, and so what asynchrony can win.

With K the time that a batch takes the GPU once all of it is queued, L the time that the host takes to launch it, and H
the rest of the host's work for a step:

    synchronous    step = max(K, L) + H
    asynchronous   step = max(K, L + H)

A GPU that has nothing queued waits for the first launches as well, until the host is ahead of it: of an engine that
launches kernel by kernel, K is longer by that ramp while it is synchronous.

A synchronous engine's GPU waits for H: its bubble is H. So asynchrony wins at most H, all of it if L + H <= K, and
nothing if the launches alone take longer than the kernels (L >= K): then the GPU waits for launches either way. The
gain is largest where H = K, a factor of two.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """What the law of overlap says of an engine.

    Attributes:
        kernels: K, seconds.
        launching: L, seconds.
        host: H, seconds.
        ramp: seconds that the GPU of a synchronous engine waits for the first launches of a batch.
    """

    kernels: float
    launching: float
    host: float
    ramp: float = 0.0

    @property
    def synchronous(self) -> float:
        """Seconds of a step of a synchronous engine."""
        return max(self.kernels + self.ramp, self.launching) + self.host

    @property
    def asynchronous(self) -> float:
        """Seconds of a step of an asynchronous one."""
        return max(self.kernels, self.launching + self.host)

    @property
    def gain(self) -> float:
        """How many times as fast the asynchronous one is: from 1 to 2."""
        return self.synchronous / self.asynchronous

    def __str__(self) -> str:
        k, ell, h = (f"{1e3 * seconds:.2f} ms" for seconds in (self.kernels, self.launching, self.host))
        said = (
            f"By the law of overlap: kernels K = {k}, launching L = {ell}, the rest of the host's work H = {h}, so a "
            f"synchronous step is max(K, L) + H = {1e3 * self.synchronous:.2f} ms, and an asynchronous one "
            f"max(K, L + H) = {1e3 * self.asynchronous:.2f} ms: {self.gain:.2f} times as fast."
        )
        if self.launching >= self.kernels:
            said += " Launching takes longer than the kernels: asynchrony wins nothing before graphs make it short."
        return said
