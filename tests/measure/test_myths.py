"""The experiments on beliefs: what they find where CUDA's semantics decide, on the simulator and on a GPU.

How long something took is not tested, but in virtual time, where it is the simulator's doing.
"""

import os

import pytest
import torch
from typer.testing import CliRunner

from acb_minimal.cli import app, options
from acb_minimal.course import experiments
from acb_minimal.errors import InputError
from acb_minimal.measure import myths, myths_cuda, result_table
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.devices import open_device
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import named

WITHOUT_TIMES = {
    "unrecorded_event": [
        ["wait_event, write, record, read", 0, "wrong"],
        ["write, record, wait_event, read", 1, "right"],
        ["record, wait_event, write, record, read", 0, "wrong"],
        ["record, write, record, wait_event, read", 1, "right"],
    ],
    "reused_pinned_buffer": [
        ["the same buffer, at once", "1, 2", "2, 2", "wrong"],
        ["the same buffer, after waiting for an event behind the copy", "1, 2", "1, 2", "right"],
        ["a second buffer, at once", "1, 2", "1, 2", "right"],
    ],
    "graph_addresses": [
        ["nothing: x holds 1, n is 1", 2, 2, "right"],
        ["x = another tensor, which holds 10", 11, 2, "wrong"],
        ["x = the first tensor again, n = 5", 6, 2, "wrong"],
        ["n = 1 again, 10 copied into the first tensor", 11, 11, "right"],
    ],
}
SCHEDULES = [("timed", 0), ("lazy", 0), ("eager", 0), *(("random", seed) for seed in range(10))]


def simulated(policy: str = "timed", seed: int = 0) -> SimulatedDevice:
    return SimulatedDevice(Costs.of("counter"), named(policy, seed))


@pytest.fixture(params=["sim", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return open_device(request.param, Checkpoint("counter"))


@pytest.mark.parametrize("name", WITHOUT_TIMES)
def test_what_is_read_is_what_cuda_promises(device, name):
    found = getattr(myths, name)(device)
    times = [number for number, column in enumerate(found.columns) if column.endswith("ms")]
    values = [[value for number, value in enumerate(row) if number not in times] for row in found.rows]
    assert values == WITHOUT_TIMES[name]


@pytest.mark.parametrize("name", WITHOUT_TIMES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_right_is_right_under_every_schedule(name, schedule):
    promised = [row[0] for row in WITHOUT_TIMES[name] if row[-1] == "right"]
    found = {row[0]: row[-1] for row in getattr(myths, name)(simulated(*schedule)).rows}
    assert [found[case] for case in promised] == ["right"] * len(promised)


@pytest.mark.parametrize("name", ["unrecorded_event", "reused_pinned_buffer"])
def test_a_device_that_never_falls_behind_hides_the_mistake(name):
    assert {row[-1] for row in getattr(myths, name)(simulated("eager")).rows} == {"right"}


def test_a_device_that_never_falls_behind_still_replays_what_was_captured():
    rows = myths.graph_addresses(simulated("eager")).rows
    assert [row[-1] for row in rows] == [row[-1] for row in WITHOUT_TIMES["graph_addresses"]]


def test_on_the_simulator_a_copy_waits_for_its_own_stream_only():
    slept, arrived = zip(*(row[2:] for row in myths.default_stream(simulated()).rows), strict=True)
    assert [late > slow / 2 for slow, late in zip(slept, arrived, strict=True)] == [True, True, False, False]
    assert slept == pytest.approx([50] * 4, rel=0.01)


def test_on_the_simulator_only_a_pageable_copy_holds_the_host():
    (pinned, pageable) = myths.pageable_copies(simulated(), megabytes=8).rows
    assert [pinned[:2], pageable[:2]] == [["pinned", 8], ["pageable", 8]]
    assert pinned[2] < pinned[3] / 2
    assert pageable[2] == pytest.approx(pageable[3], rel=0.01)


def test_a_host_that_waits_for_the_copy_waits_as_long_as_it_is_held_up():
    rows = myths.reused_pinned_buffer(simulated()).rows
    assert [written > slept / 2 for _, slept, written, *_ in rows] == [False, True, False]


@pytest.mark.parametrize("experiment", myths.EXPERIMENTS)
def test_an_experiment_leaves_the_device_with_nothing_to_do(experiment):
    device = simulated("lazy")  # runs nothing that nobody waits for
    experiment(device)
    done = len(device.cuda.finished)
    device.cuda.synchronize()
    assert len(device.cuda.finished) == done > 0


def test_the_notebook_shows_streams_and_copies_as_text():
    tables = experiments.default_stream(), experiments.pageable_copies(8)
    cells = [[list(column.cells) for column in table.columns] for table in tables]
    assert [[column.header for column in table.columns] for table in tables] == [
        ["slow kernel in", "copy in", "copy arrives after"],
        ["from", "host held for", "copy done after"],
    ]
    assert cells[0][0] == ["the default stream", "a side stream"] * 2
    assert cells[0][1] == ["the default stream", "a side stream", "a side stream", "the default stream"]
    assert cells[1][0] == ["pinned memory", "pageable memory"]
    if not torch.cuda.is_available():
        behind, beside = cells[0][2][:2], [float(cell.removesuffix(" ms")) for cell in cells[0][2][2:]]
        assert behind == ["50 ms", "50 ms"]
        assert 0 < max(beside) < 1
        assert [cell == cells[1][2][1] for cell in cells[1][1]] == [False, True]


@pytest.fixture
def bench(monkeypatch):
    """`acb bench myths` on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(options.console, "_width", 120)
    return lambda *options: CliRunner().invoke(app.app, ["bench", "myths", *map(str, options)])


def test_the_command_runs_what_the_simulator_can_decide_and_names_the_rest(bench, tmp_path):
    file = tmp_path / "myths.json"
    done = bench("--json", file)
    assert done.exit_code == 0, done.output
    found = result_table.load(file)
    assert list(found) == ["default_stream", "pageable_copies", *WITHOUT_TIMES]
    for entry in found.values():
        assert entry.title in done.output
        assert entry.environment["device"] == "simulated H200"
    left_out = done.output[done.output.index("Left out, since torch finds no CUDA GPU:") :]
    for name in ("allocator_across_streams", "hidden_syncs", "launch_queue", "profiler_leaves_traces"):
        assert name in left_out


def test_the_command_does_not_write_over_other_results(bench, tmp_path):
    file = tmp_path / "thesis.json"
    file.write_text("[]")
    done = bench("--json", file)
    assert isinstance(done.exception, InputError)
    assert (file.read_text(), done.output) == ("[]", "")


# --- what only a GPU can decide ---


@pytest.mark.gpu
def test_memory_freed_too_early_is_written_over():
    rows = myths_cuda.allocator_across_streams(open_device("cuda", Checkpoint("counter"))).rows
    assert [[care, *rest] for care, _, *rest in rows] == [
        ["pass", "yes", 2, "wrong"],
        ["x.record_stream(b)", "no", 1, "right"],
        ["a.wait_event(b.record_event())", "yes", 1, "right"],
    ]


@pytest.mark.gpu
def test_calls_that_need_a_value_wait_for_it():
    rows = myths_cuda.hidden_syncs(open_device("cuda", Checkpoint("counter"))).rows
    assert [row[0] for row in rows] == list(myths_cuda.CALLS)
    waited = {row[0]: row[-1] for row in rows}
    values = "t[0].item()", "t.tolist()", "t.cpu()", "bool(t.any())", "if t.any(): pass", "event.synchronize()"
    assert {waited[call] for call in values} == {"yes"}
    queued = "t + 1", "t.any()", "t.copy_(pinned, non_blocking=True)", "event.query()"
    assert {waited[call] for call in queued} == {"no"}


@pytest.mark.gpu
def test_the_launch_queue_has_an_end():
    rows = myths_cuda.launch_queue(open_device("cuda", Checkpoint("counter"))).rows
    assert rows[0][0] == "x.add_(1)"
    assert 0 < rows[0][3] < myths_cuda.MOST
    assert rows[0][4] is not None


@pytest.mark.gpu
def test_the_profiler_runs_in_processes_of_its_own():
    before = dict(os.environ)
    rows = myths_cuda.profiler_leaves_traces(open_device("cuda", Checkpoint("counter"))).rows
    assert [row[0] for row in rows] == list(myths_cuda.PROCESSES)
    assert all(us > 0 for row in rows for us in row[1:])
    assert dict(os.environ) == before
