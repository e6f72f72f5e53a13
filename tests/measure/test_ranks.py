"""The table of a step on one GPU and on several: what it is made of, and what becomes of what cannot be measured."""

import dataclasses
import json
from pathlib import Path

import pytest

from acb_minimal.errors import RankError
from acb_minimal.measure import ranks
from acb_minimal.measure.ranks import Point
from acb_minimal.run import launch
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.workload import workload


def test_every_engine_serves_decodes_alone():
    load = workload("long").override(prompt_tokens=30, requests=3, max_running=3, new_tokens=30)
    sessions = []
    for engine in ranks.ENGINES:
        session = ranks._session(load, engine, Checkpoint("counter"), "cpu", trace=False)
        session.serve()
        sessions.append(session)
    assert all(step.decodes and step.rows == 3 for session in sessions for step in session.done)
    assert [len(session.done) for session in sessions] == [30, 30, 30]


def test_on_a_cpu_a_step_has_a_length_and_no_parts():
    load = workload("long").override(prompt_tokens=30, requests=2, max_running=2, new_tokens=ranks.STEPS)
    *_, points = ranks.measure([load], Checkpoint("counter"), "cpu")
    assert [point.engine for point in points] == list(ranks.ENGINES)
    assert all(point.step > 0 and point.kernels is None for point in points)


FULL = Point("long", "a model", 2, "ch1 + graphs", 0.010, 0.008, 0.002, 0.001, 0.006, 0.0015)


def test_the_parts_of_a_step_add_up_to_it():
    found = ranks.table([FULL, dataclasses.replace(FULL, engine="ch6", step=0.008, bubbles=0.0)], "cpu")
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    for row in rows:
        assert row["kernels"] + row["NCCL"] + row["launch gaps"] + row["bubbles"] == pytest.approx(row["step"])
    assert [row["share"] for row in rows] == [pytest.approx(0.2), 0.0]
    assert [row["gain"] for row in rows] == [1.0, pytest.approx(1.25)]


def test_a_wait_for_another_rank_s_launches_is_no_talk():
    launched = dataclasses.replace(FULL, engine="ch5", launching=0.0079)
    found = ranks.table([launched, dataclasses.replace(launched, gpus=1)], "cpu")
    several, one = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    assert (several["NCCL"], several["launch gaps"]) == (None, pytest.approx(2.0))
    assert (one["NCCL"], one["launch gaps"]) == (pytest.approx(1.5), pytest.approx(0.5))


def test_what_was_measured_before_a_rank_was_lost_is_kept_and_the_rest_goes_on(monkeypatch):
    def start(count: int, arguments: list[str]) -> int:
        Path(arguments[-1]).write_text(json.dumps([dataclasses.asdict(dataclasses.replace(FULL, gpus=count))]))
        if count == 2:
            raise RankError("rank 1 was ended by SIGKILL")
        return 0

    monkeypatch.setattr(launch, "launch", start)
    found = ranks.table(list(ranks.gather([2, 4], ["a model"], ["bench", "ranks"], lambda text: None)), "cpu")
    assert [row[2] for row in found.rows] == [2, 4]
    assert "a model on 2: rank 1 was ended by SIGKILL." in found.note
