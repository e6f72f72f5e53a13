"""Costs for whoever turns K, L and H, the times of the law of overlap (trace/law.py)."""

from dataclasses import dataclass, field

from acb_minimal.sim.costs import Costs, Shape
from acb_minimal.sim.operations import Cost


@dataclass(frozen=True)
class Dialled(Costs):
    """Costs in which the times of the law of overlap are what somebody has set them to, in seconds; all else is as
    calibrated."""

    kernels: float = 1.0  # K: a forward pass, whatever its batch
    launching: float = 1.0  # L: launching one kernel by kernel
    bookkeeping: float = 1.0  # H: schedule, write and update together
    waiting: float = 0.0  # the ramp
    shares: dict[str, float] = field(default_factory=dict)  # of H; `fill`, which one chapter alone does, comes on top
    computed: list[str] = field(default_factory=list)  # what the GPU's time was asked for, since it was last cleared

    @classmethod
    def to(cls, kernels: float, launching: float, bookkeeping: float, ramp: float, rows: int = 384) -> "Dialled":
        """These times on the costs of the 8B model; H is shared out as it is for a batch of `rows`."""
        costs = Costs.of("llama-3.1-8b")
        own = {what: costs.host(what, rows) for what in ("schedule", "write", "fill", "update")}
        whole = own["schedule"] + own["write"] + own["update"]
        shares = {what: seconds / whole for what, seconds in own.items()}
        return cls(costs.gpu, costs.figures, costs.model, 1, 0, kernels, launching, bookkeeping, ramp, shares)

    def launch(self, what: str, shape: Shape) -> float:
        return super().launch(what, shape) if what == "carry_over" else self.launching

    def compute(self, what: str, shape: Shape, graph: bool = False) -> Cost:
        self.computed.append(what)
        if what == "carry_over":
            return super().compute(what, shape)
        return Cost(self.kernels, ramp=0.0 if graph else self.waiting)

    def host(self, what: str, rows: int) -> float:
        return self.bookkeeping * self.shares[what]
