"""Pages on demand (preemption.py) as an option of any run."""

from ..errors import InputError
from ..preemption import PreemptingScheduler, SwappingModel, SwappingScheduler
from ..sampling import SamplingScheduler
from .engines import copies_pages
from .mistakes import ForgettingScheduler
from .parts import Parts

MODES = {"recompute": PreemptingScheduler, "swap": SwappingScheduler}
MISTAKES = {"forget": ForgettingScheduler}


def check_mode(preempt: str | None, engine_class: type, parts: Parts) -> None:
    """Whether an engine of these parts can have requests give way so; None: none ever does.

    Raises:
        InputError: there is no such mode, or these do not go together with it.
    """
    if preempt is None:
        return
    if preempt not in MODES | MISTAKES:
        raise InputError(f"unknown preempt mode {preempt!r}: the modes are {' and '.join(MODES)}")
    if parts.drafts:
        raise InputError(f"preempt is {preempt!r}, and pages on demand do not go together with drafts")
    if preempt == "swap" and not copies_pages(engine_class):
        raise InputError("preempt is 'swap', and this engine copies no pages: give recompute, or take chapter ch9")
    if preempt == "swap" and issubclass(parts.scheduler, SamplingScheduler):
        raise InputError("preempt is 'swap', and what a request has sampled by is not copied: give recompute")


class NamedBerths(SwappingModel):
    """A model that can copy pages, and the host's memory for them has names."""

    def make_berths(self, count: int) -> None:
        """As SwappingModel has it.

        Raises:
            InputError: the host has not so much memory to pin.
        """
        try:
            super().make_berths(count)
        except RuntimeError as error:
            self.close()
            needed = count * self.size.pages * sum(tensor[0].nbytes for tensor in self.tensors) / 1e9
            why = f"{error}".partition("\n")[0]
            raise InputError(f"too little host memory: {count} berths take {needed:.1f} GB ({why})") from None
        layers = len(self.cache.keys)
        for number, berths in enumerate(self.berths):
            what = "keys" if number < layers else "values"
            self.device.watch(f"the pinned {what} of layer {number % layers}", berths)
