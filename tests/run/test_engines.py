"""Chapters with something taken away: what is taken, what is left, and what cannot be taken."""

import linecache
import traceback

import pytest

from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run.engines import changed, engine, without
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import named


def source_of(engine_class: type) -> str:
    return "".join(linecache.getlines(engine_class.run.__code__.co_filename))


def answers(engine_class: type, policy: str) -> bool:
    """Whether it counts right."""
    pairs = [(3, 9), (90, 95), (500, 511)]
    device = SimulatedDevice(Costs.of("counter"), named(policy))
    session = Session(Job([counter.prompt(*pair) for pair in pairs], max_running=2), engine_class, device=device)
    return {c.id: c.text for c in session.run()} == {str(i): counter.answer(*pair) for i, pair in enumerate(pairs)}


def test_a_statement_is_taken_and_all_else_stays():
    source = source_of(without("ch3", "self.compute.wait_event"))
    assert "self.compute.wait_event" not in source
    assert "self.d2h.wait_event(self.computed)" in source
    assert not answers(without("ch3", "self.compute.wait_event"), "lazy")
    assert answers(changed("ch3"), "lazy")


def test_of_a_with_statement_the_body_stays():
    source = source_of(without("ch2", "with self.cuda.stream(self.h2d)"))
    assert "self.slot.upload(non_blocking=True)" in source
    assert source.count("with self.cuda.stream") == 2


def test_text_is_replaced():
    assert answers(changed("ch1", ("self.slot.upload()", "self.slot.upload(non_blocking=False)")), "timed")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: without("ch1", "self.compute"), "'ch1' has no statement that begins with 'self.compute'"),
        (lambda: changed("ch2", ("synchronize", "x")), "'ch2' has 'synchronize' 4 times; a change needs it once"),
        (lambda: without("ch9", "pass"), "unknown chapter 'ch9'"),
    ],
)
def test_what_is_not_there_cannot_be_taken(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_an_error_shows_the_variant_s_line():
    made = engine("class Engine:\n    def run(self):\n        return 1 // 0  # here\n", "mine")
    try:
        made().run()
    except ZeroDivisionError:
        assert "# here" in traceback.format_exc()
