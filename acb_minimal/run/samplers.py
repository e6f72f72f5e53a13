"""The parts of an engine that sample (sampling.py, sampler.py), timed from outside as all parts are."""

from ..sampler import SamplingModel, SamplingSlot, State
from ..sampling import SamplingScheduler
from .graphed import GraphedModel, GraphedSlot
from .timed import TimedModel, TimedScheduler, TimedSlot


class TimedSamplingScheduler(SamplingScheduler, TimedScheduler):
    """Timed, with rows for requests."""


class TimedSamplingSlot(SamplingSlot, TimedSlot):
    """Timed, with settings."""

    def __init__(self, *args):
        super().__init__(*args)
        self.settings_view = self.device.host_view(self.host_settings)
        self.device.watch(f"slot {self.name}'s pinned settings", self.host_settings, work=self)
        self.device.watch(f"slot {self.name}'s settings", self.device_settings, work=self)


class TimedSamplingModel(SamplingModel, TimedModel):
    """Timed, with counts."""

    slot_class = TimedSamplingSlot

    def __init__(self, *args):
        super().__init__(*args)
        self.device.watch("the scores", self.scores)

    def new_state(self) -> State:
        state = super().new_state()
        self.device.watch("the counts", state.counts)
        return state


class GraphedSamplingSlot(TimedSamplingSlot, GraphedSlot):
    """Padded to a size that has a graph."""


class GraphedSamplingModel(TimedSamplingModel, GraphedModel):
    """A model that launches a batch of decodes as a graph as far as the scores; counting and drawing by themselves."""

    slot_class = GraphedSamplingSlot

    def capture(self, slot: GraphedSamplingSlot) -> None:
        self.logits(slot)

    def logits(self, slot: GraphedSamplingSlot) -> None:
        self.replay(slot, super().logits)
