"""Pages on demand (preemption.py) as an option of any run: the parts for it, timed from outside as all parts are."""

from ..errors import InputError
from ..preemption import PreemptingScheduler, SwappingModel, SwappingScheduler
from ..request import Request
from ..sampling import SamplingScheduler
from .engines import copies_pages
from .options import Options
from .parts import Parts
from .timed import TimedModel, TimedScheduler
from .workload import Job

MODES = {"recompute": PreemptingScheduler, "swap": SwappingScheduler}


class ForgettingScheduler(PreemptingScheduler):
    """Makes a mistake, to see what comes of it: what a request has to compute again is settled when it gives way, and
    the token that a batch in flight has for it is not among that."""

    def give_way(self, request: Request) -> None:
        super().give_way(request)
        request.prefill_len, request.scheduled = len(request.tokens), 0

    def begin(self, request: Request) -> None:
        """It was settled before."""


MISTAKES = {"forget": ForgettingScheduler}


def mode_of(job: Job, options: Options, engine_class: type, parts: Parts) -> str | None:
    """What becomes of a request that gives way; None: none ever does.

    Raises:
        InputError: there is no such mode, or these do not go together with it.
    """
    preempt = options.preempt if job.preempt is None else job.preempt
    if preempt is not None and preempt not in MODES | MISTAKES:
        raise InputError(f"unknown preempt mode {preempt!r}: the modes are {' and '.join(MODES)}")
    if preempt is not None and parts.drafts:
        raise InputError(f"preempt is {preempt!r}, and pages on demand do not go together with drafts")
    if preempt == "swap" and not copies_pages(engine_class):
        raise InputError("preempt is 'swap', and this engine copies no pages: give recompute, or take chapter ch9")
    if preempt == "swap" and issubclass(parts.scheduler, SamplingScheduler):
        raise InputError("preempt is 'swap', and what a request has sampled by is not copied: give recompute")
    return preempt


def scheduler_for(kind: type[TimedScheduler], preempt: str | None, berths: int | None = None) -> type[TimedScheduler]:
    """That kind of scheduler, but pages are given on demand, unless `preempt` is None.

    Args:
        berths: as a Job has it.
    """
    own = {"num_berths": berths}
    return type(f"Preempting{kind.__name__}", (kind, (MODES | MISTAKES)[preempt]), own) if preempt else kind


def model_for(kind: type[TimedModel], engine_class: type) -> type[TimedModel]:
    """That kind of model, but able to copy pages, if the engine does."""
    return type(f"Swapping{kind.__name__}", (TimedSwappingModel, kind), {}) if copies_pages(engine_class) else kind


class TimedSwappingModel(SwappingModel, TimedModel):
    """Timed, and the host's memory for pages has names."""

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
