"""A broken engine on this machine's own device."""

from types import SimpleNamespace

import pytest
import torch

from acb_minimal.course import counting
from acb_minimal.course.notebook import machine
from acb_minimal.run.engines import without


@pytest.fixture
def broken():
    return without("ch5", "self.model.carry_over(")


@pytest.mark.exhaustive  # a GPU alone needs it
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU, where two runs are the same")
def test_an_engine_answers_in_a_process_of_its_own_as_in_this_one(broken):
    said = counting.answers_apart(broken)
    assert said == counting.answers(broken, machine())
    assert counting.judged(said)[0] < len(said) == len(counting.PAIRS)


@pytest.mark.parametrize(("kind", "apart"), [("cuda", True), ("sim", False)])
def test_a_broken_engine_has_a_process_of_its_own_on_a_gpu_alone(monkeypatch, broken, kind, apart):
    monkeypatch.setattr(counting, "machine", lambda: SimpleNamespace(kind=kind, name="a machine"))
    monkeypatch.setattr(counting, "answers_apart", lambda engine: "apart")
    monkeypatch.setattr(counting, "answers", lambda engine, device: "here")
    *_, said = counting.try_here("broken", broken).columns
    assert list(said.cells) == ["apart" if apart else "here"]


def test_an_engine_that_hangs_is_not_waited_for(broken, monkeypatch):
    monkeypatch.setattr(counting, "PATIENCE", 0.01)
    assert counting.answers_apart(broken).startswith("nothing for 0.01 s")
