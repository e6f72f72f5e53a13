"""Recordings of runs: every call with its line, what it waits for, and what is in memory after it."""

import sys
from pathlib import Path

import pytest

from acb_minimal.check.mutations import mutants
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_path, load_chapter, without
from acb_minimal.run.workload import Job

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))
from dialled import Dialled
from recorder import record, record_schedule


@pytest.fixture(scope="module")
def recorded():
    job, checkpoint = Job(["count 3 to 6", "count 98 to 99"], max_running=2), Checkpoint("counter")
    return lambda chapter, *times: record(load_chapter(chapter), job, checkpoint, Dialled.to(*times))


@pytest.fixture(scope="module")
def fifth(recorded):
    return recorded("ch5", 10e-3, 1e-3, 2e-3, 0.0)


def line(chapter: str, call: dict) -> str:
    return chapter_path(chapter).read_text().splitlines()[call["line"] - 1].split("#")[0].strip()


def test_what_an_engine_calls_does_not_depend_on_what_things_cost(recorded, fifth):
    assert recorded("ch5", 1e-4, 20e-3, 9e-3, 1e-3) == fifth


def test_a_wait_is_on_the_record_it_finds(fifth):
    calls = fifth["calls"]
    waits = [call for call in calls if call["do"] in ("wait", "sync")]
    found = [(line("ch5", call), calls[call["on"]]["event"]) for call in waits]
    assert {event for text, event in found if text.startswith("self.compute.wait")} == {"uploaded"}
    assert {event for text, event in found if text.startswith("self.downloaded")} == {"downloaded[A]", "downloaded[B]"}


def test_a_number_that_the_host_does_not_know_is_0_until_the_device_has_carried_it_over(fifth):
    held = {call["what"]: call["then"] for call in fifth["calls"] if call.get("batch") == 1 and "then" in call}
    assert held["write"] == {"pinned inputs": ["0", "0"]}
    assert held["upload"] == {"inputs": ["0", "0"]}
    assert held["carry_over"] == {"inputs": ["3", "98"]}
    assert held["forward"] == {"outputs": ["4", "99"]}


def test_a_schedule_that_goes_wrong_has_the_two_that_race_and_the_wrong_token():
    (mutant,) = (each for each in mutants("ch3") if each.text.startswith("self.compute.wait_event"))
    made = record_schedule(mutant.engine(), "4")
    first, second = (made["calls"][number] for number in made["hazard"]["calls"])
    assert (first["what"], second["what"]) == ("upload", "forward")
    assert made["hazard"]["writes"] == [True, False]
    order = made["happened"]
    upload, forward = (order.index(~number) for number in made["hazard"]["calls"])
    assert forward < upload
    last = made["calls"][max(made["happened"])]
    assert last["what"] == "update"
    assert any(last["answers"][id] != made["right"][id][: len(last["answers"][id])] for id in last["answers"])


def test_a_wait_for_an_event_that_was_never_recorded_is_on_nothing():
    made = record_schedule(without("ch3", "self.uploaded.record"), "4")
    (wait, *_) = (call for call in made["calls"] if call["do"] == "wait" and call["on"] is None)
    assert (wait["event"], wait["stream"]) == ("uploaded", "compute")


def test_nothing_is_made_of_an_engine_that_does_nothing_wrong():
    with pytest.raises(ValueError, match="seed 4"):
        record_schedule(load_chapter("ch3"), "4")
