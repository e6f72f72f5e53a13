"""A broken engine on this machine's own device."""

from types import SimpleNamespace

import pytest
import torch

from acb_minimal.course import tokens
from acb_minimal.course.notebook import machine
from acb_minimal.run.engines import without


@pytest.fixture
def broken():
    return without("ch5", "self.model.carry_over(")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU, where two runs are the same")
def test_an_engine_answers_in_a_process_of_its_own_as_in_this_one(broken):
    said = tokens.answers_apart(broken)
    assert said == tokens.answers(broken, machine())
    assert tokens.right(said) < len(said) == len(tokens.PAIRS)


@pytest.mark.parametrize(("kind", "apart"), [("cuda", True), ("sim", False)])
def test_a_broken_engine_has_a_process_of_its_own_on_a_gpu_alone(monkeypatch, broken, kind, apart):
    monkeypatch.setattr(tokens, "machine", lambda: SimpleNamespace(kind=kind, name="a machine"))
    monkeypatch.setattr(tokens, "answers_apart", lambda engine: "apart")
    monkeypatch.setattr(tokens, "answers", lambda engine, device: "here")
    *_, said = tokens.try_here("broken", broken).columns
    assert list(said.cells) == ["apart" if apart else "here"]


def test_an_engine_that_hangs_is_not_waited_for(broken, monkeypatch):
    monkeypatch.setattr(tokens, "PATIENCE", 0.01)
    assert tokens.answers_apart(broken).startswith("nothing for 0.01 s")
