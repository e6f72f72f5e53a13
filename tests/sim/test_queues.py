"""What only the simulator has: policies, seeds, engines that are one of a kind, and a virtual clock."""

import re

import pytest
import torch
from sim.test_conformance import COSTS, SIMULATED

from acb_minimal.sim.cuda import SimulatedCuda
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.limits import Limit
from acb_minimal.sim.operations import Cost
from acb_minimal.sim.policies import Choosing, Lazy, named


def finished(cuda: SimulatedCuda) -> list[str]:
    return [operation.what for operation in cuda.finished]


def submit(cuda: SimulatedCuda, what: str, engine: str = "compute", seconds: float = 0.0, **options) -> None:
    """Device work on the current stream that does nothing."""
    cuda.submit(what, engine, lambda: None, lambda: Cost(seconds), **options)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="sometimes"):
        named("sometimes")


def test_lazy_runs_only_what_is_waited_for():
    cuda = SimulatedCuda(named("lazy"))
    first, second, third = (cuda.Stream() for _ in range(3))
    for name, stream in [("a", first), ("b", second), ("c", third)]:
        with cuda.stream(stream):
            submit(cuda, name)
    event = second.record_event()
    with cuda.stream(second):
        submit(cuda, "after the event")
    first.wait_event(event)
    assert finished(cuda) == []
    first.synchronize()
    assert finished(cuda) == ["a", "b"]
    cuda.synchronize()
    assert sorted(finished(cuda)) == ["a", "after the event", "b", "c"]


def test_eager_runs_what_it_can_at_the_call():
    cuda = SimulatedCuda(named("eager"))
    submit(cuda, "a", seconds=1.0)
    assert finished(cuda) == ["a"]


def schedule(name: str) -> list[tuple[str, float, float]]:
    """What four streams did, two of them waiting for the others, and when."""
    policy, _, seed = name.partition("-")
    cuda = SimulatedCuda(named(policy, int(seed or 0)), call_seconds=0.25)
    streams = [cuda.Stream() for _ in range(4)]
    for step in range(3):
        for number, stream in enumerate(streams):
            with cuda.stream(stream):
                submit(cuda, f"{number}.{step}", ["h2d", "compute", "d2h"][step], number + 1.0, launch_seconds=0.5)
            if number >= 2:
                stream.wait_stream(streams[number - 2])
    cuda.synchronize()
    return [(operation.what, operation.start, operation.end) for operation in cuda.finished]


def test_a_seed_is_a_schedule():
    assert schedule("random-1") == schedule("random-1")
    assert len({str(schedule(f"random-{seed}")) for seed in range(20)}) > 10


def test_timed_needs_no_seed():
    assert schedule("timed-1") == schedule("timed-2")


@pytest.mark.parametrize("name", SIMULATED)
def test_every_policy_runs_everything_once(name):
    done = [what for what, _, _ in schedule(name)]
    assert len(done) == len(set(done)) == 12


def test_an_engine_does_one_thing_at_a_time():
    cuda = SimulatedCuda()
    for stream in (cuda.Stream(), cuda.Stream()):
        with cuda.stream(stream):
            submit(cuda, "forward", seconds=3.0)
    cuda.synchronize()
    assert cuda.now == 6.0


def test_engines_run_side_by_side():
    cuda = SimulatedCuda()
    for engine, seconds in [("h2d", 2.0), ("compute", 3.0), ("d2h", 4.0)]:
        with cuda.stream(cuda.Stream()):
            submit(cuda, engine, engine, seconds)
    cuda.synchronize()
    assert cuda.now == 4.0


def test_in_one_stream_engines_take_turns():
    cuda = SimulatedCuda()
    for engine, seconds in [("h2d", 2.0), ("compute", 3.0), ("d2h", 4.0)]:
        submit(cuda, engine, engine, seconds)
    cuda.synchronize()
    assert cuda.now == 9.0


def spans(cuda: SimulatedCuda) -> dict[str, tuple[float, float]]:
    return {operation.what: (operation.start, operation.end) for operation in cuda.finished}


def test_work_behind_a_wait_starts_when_the_record_is_done():
    cuda = SimulatedCuda()
    h2d, compute = cuda.Stream(), cuda.Stream()
    with cuda.stream(h2d):
        submit(cuda, "upload", "h2d", seconds=2.0)
    compute.wait_stream(h2d)
    with cuda.stream(compute):
        submit(cuda, "forward", seconds=3.0)
    cuda.synchronize()
    assert spans(cuda) == {"upload": (0.0, 2.0), "forward": (2.0, 5.0)}


def test_an_engine_takes_what_is_ready_first():
    """All three are queued while the engine is free, "late" before "early", but it is not ready before 2.0."""
    cuda = SimulatedCuda()
    h2d, late, busy, early = (cuda.Stream() for _ in range(4))
    with cuda.stream(h2d):
        submit(cuda, "upload", "h2d", seconds=2.0)
    late.wait_stream(h2d)
    for name, stream in [("late", late), ("busy", busy), ("early", early)]:
        with cuda.stream(stream):
            submit(cuda, name, seconds=3.0)
    cuda.synchronize()
    assert spans(cuda) == {"upload": (0.0, 2.0), "busy": (0.0, 3.0), "early": (3.0, 6.0), "late": (6.0, 9.0)}


def test_work_has_its_effect_when_it_completes():
    cuda, data = SimulatedCuda(), []
    cuda.submit("forward", "compute", lambda: data.append(1), lambda: Cost(3.0))
    cuda.host(2.0)
    assert data == []
    assert not cuda.default_stream().query()
    cuda.host(1.0)
    assert data == [1]
    assert cuda.default_stream().query()


def test_work_starts_when_it_is_launched():
    cuda = SimulatedCuda()
    submit(cuda, "upload", "h2d", seconds=3.0, launch_seconds=2.0)
    assert cuda.now == 2.0
    cuda.synchronize()
    (upload,) = cuda.finished
    assert (upload.start, upload.end, cuda.now) == (2.0, 5.0, 5.0)


@pytest.mark.parametrize(
    ("seconds", "launch_seconds", "end"),
    [(3.0, 5.0, 5.0), (3.0, 2.0, 3.0)],
    ids=["the launches take longer", "the kernels take longer"],
)
def test_gradual_work_starts_with_its_first_kernel_and_ends_after_its_last_launch(seconds, launch_seconds, end):
    cuda = SimulatedCuda()
    submit(cuda, "forward", seconds=seconds, launch_seconds=launch_seconds, gradual=True)
    assert cuda.now == launch_seconds
    cuda.synchronize()
    (forward,) = cuda.finished
    assert (forward.start, forward.end, cuda.now) == (0.0, end, end)


def test_gradual_work_still_waits_for_its_stream():
    cuda = SimulatedCuda()
    submit(cuda, "upload", "h2d", seconds=4.0)
    submit(cuda, "forward", seconds=3.0, launch_seconds=2.0, gradual=True)
    cuda.synchronize()
    upload, forward = cuda.finished
    assert (upload.end, forward.start, forward.end) == (4.0, 4.0, 7.0)


def test_host_and_device_work_side_by_side():
    cuda = SimulatedCuda()
    submit(cuda, "forward", seconds=3.0)
    cuda.host(5.0)
    submit(cuda, "forward", seconds=3.0)
    cuda.host(1.0)
    cuda.synchronize()
    assert [(forward.start, forward.end) for forward in cuda.finished] == [(0.0, 3.0), (5.0, 8.0)]
    assert cuda.now == 8.0


def test_the_host_waits_no_longer_than_it_must():
    cuda = SimulatedCuda()
    short, long = cuda.Stream(), cuda.Stream()
    with cuda.stream(long):
        submit(cuda, "long", "h2d", seconds=9.0)
    with cuda.stream(short):
        submit(cuda, "short", seconds=2.0)
        event = short.record_event()
        submit(cuda, "later", seconds=3.0)
    event.synchronize()
    assert (cuda.now, finished(cuda)) == (2.0, ["short"])
    short.synchronize()
    assert (cuda.now, finished(cuda)) == (5.0, ["short", "later"])
    cuda.synchronize()
    assert (cuda.now, finished(cuda)) == (9.0, ["short", "later", "long"])


def test_work_the_host_waits_for_takes_launch_and_run_and_return():
    cuda = SimulatedCuda(call_seconds=0.5)
    submit(cuda, "upload", "h2d", seconds=3.0, launch_seconds=1.0, wait=True)
    assert cuda.now == 4.5


def test_calls_cost_host_time():
    cuda = SimulatedCuda(call_seconds=0.5)
    stream = cuda.Stream()
    event = cuda.Event()
    event.record(stream)
    assert cuda.now == 0.5
    cuda.default_stream().wait_event(event)
    assert cuda.now == 1.0
    submit(cuda, "forward", seconds=3.0)
    cuda.default_stream().record_event().synchronize()
    assert cuda.now == 4.5


def test_a_replay_costs_one_launch_whatever_is_in_the_graph():
    cuda = SimulatedCuda(replay_seconds=0.5)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        submit(cuda, "forward", seconds=2.0, launch_seconds=9.0)
        submit(cuda, "forward", seconds=3.0, launch_seconds=9.0)
    assert cuda.now == 0.0
    graph.replay()
    assert cuda.now == 0.5
    cuda.synchronize()
    assert cuda.now == 5.5


def test_a_replay_takes_as_long_as_its_batch_needs_now():
    cuda, rows = SimulatedCuda(), [2.0]
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        cuda.submit("forward", "compute", lambda: None, lambda: Cost(rows[0]))
    graph.replay()
    rows[0] = 3.0
    graph.replay()
    cuda.synchronize()
    assert cuda.now == 5.0


def test_events_read_the_virtual_clock():
    cuda = SimulatedCuda()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    submit(cuda, "upload", "h2d", seconds=2.0)
    start.record()
    submit(cuda, "forward", seconds=3.0)
    end.record()
    cuda.synchronize()
    assert start.elapsed_time(end) == 3000.0


CAPTURED_BY_CUDA = {
    "captures no copies, and this is one (upload)": lambda cuda: submit(cuda, "upload", "h2d"),
    "cannot record an event": lambda cuda: cuda.Event().record(),
    "cannot make a stream wait for an event": lambda cuda: cuda.current_stream().wait_event(cuda.Event()),
    "cannot query a stream": lambda cuda: cuda.current_stream().query(),
    "cannot query an event": lambda cuda: cuda.Event().query(),
    "cannot replay a graph": lambda cuda: cuda.CUDAGraph().replay(),
}


@pytest.mark.parametrize("said", CAPTURED_BY_CUDA)
def test_only_compute_is_captured_and_that_is_the_simulator_s_limit(said):
    """The course has nothing else in its graphs."""
    cuda = SimulatedCuda()
    with pytest.raises(Limit, match=re.escape(f"the simulator {said}")), cuda.graph(cuda.CUDAGraph()):
        CAPTURED_BY_CUDA[said](cuda)


REFUSED_BY_CUDA = {
    "synchronize the device": lambda cuda: cuda.synchronize(),
    "synchronize a stream": lambda cuda: cuda.Stream().synchronize(),
    "synchronize an event": lambda cuda: cuda.Event().synchronize(),
    "wait for the download": lambda cuda: submit(cuda, "download", "d2h", wait=True),
}


@pytest.mark.parametrize("said", REFUSED_BY_CUDA)
def test_what_makes_the_host_wait_in_a_capture_cuda_refuses(said):
    cuda = SimulatedCuda()
    graph = cuda.CUDAGraph()
    message = f"operation not permitted when stream is capturing: CUDA lets no host {said} then"
    with pytest.raises(RuntimeError, match=message), cuda.graph(graph):
        REFUSED_BY_CUDA[said](cuda)
    with pytest.raises(RuntimeError, match="replayed before it was captured"):
        graph.replay()


def test_only_the_captured_stream_is_capturing():
    cuda = SimulatedCuda()
    with cuda.graph(cuda.CUDAGraph()):
        assert cuda.is_current_stream_capturing()
        with cuda.stream(cuda.Stream()):
            assert not cuda.is_current_stream_capturing()
    assert not cuda.is_current_stream_capturing()


def test_a_copy_from_pageable_memory_costs_the_host_the_copy():
    device = SimulatedDevice(COSTS)
    data, pinned = torch.zeros(1, dtype=torch.int32), device.pinned(1)
    device.copy("h2d", data, pinned, non_blocking=True)
    assert device.clock() == pytest.approx(5e-6)  # the launch
    device.cuda.synchronize()
    before = device.clock()
    device.copy("h2d", data, torch.ones(1, dtype=torch.int32), non_blocking=True)
    assert device.clock() - before == pytest.approx(20e-6)  # launch, copy, return
    assert data.tolist() == [1]


def test_who_chooses_can_be_the_policy():
    """It is asked when the host calls in, and when the host waits, which it cannot answer with nothing."""
    asked = []

    class Last(Choosing):
        def choose(self, ready, must):
            asked.append(([operation.what for operation in ready], must))
            return ready[-1] if must else None

    cuda = SimulatedCuda(Last())
    first, second = cuda.Stream(), cuda.Stream()
    for name, stream in [("a", first), ("b", second)]:
        with cuda.stream(stream):
            submit(cuda, name)
    assert finished(cuda) == []
    first.synchronize()
    assert finished(cuda) == ["b", "a"]
    assert asked == [(["a"], False), (["a", "b"], False), (["a", "b"], True), (["a"], True)]


class Never(Choosing):
    def choose(self, ready, must):
        return None


@pytest.mark.parametrize("policy", [Lazy(), Never()])
def test_who_asks_again_and_again_is_told_yes_in_the_end(policy):
    cuda = SimulatedCuda(policy)
    submit(cuda, "a")
    assert [cuda.default_stream().query() for _ in range(2)] == [False, True]


def test_a_wait_ends_before_what_comes_later():
    """Under `timed`, a host that waits for a copy must not see what another stream finishes after it."""
    cuda, done = SimulatedCuda(), []
    side = cuda.Stream()
    cuda.submit("sleep", "compute", lambda: done.append("sleep"), lambda: Cost(0.05))
    with cuda.stream(side):
        cuda.submit("upload", "h2d", lambda: done.append("upload"), lambda: Cost(0.001))
        copied = side.record_event()
    copied.synchronize()
    assert (done, cuda.now) == (["upload"], 0.001)
    cuda.synchronize()
    assert (done, cuda.now) == (["upload", "sleep"], 0.05)


@pytest.mark.parametrize(("before", "end"), [(0.0, 6.0), (1.0, 6.0), (5.0, 9.0)])
def test_the_first_launches_are_waited_for_unless_the_host_is_ahead(before, end):
    """Three seconds of kernels, one of gaps between them; a host that is ahead of the GPU after two."""
    cuda = SimulatedCuda()
    if before:
        submit(cuda, "batch before", seconds=before)
    cuda.submit("forward", "compute", lambda: None, lambda: Cost(3.0, gaps=1.0, ramp=2.0), gradual=True)
    cuda.synchronize()
    assert cuda.now == end


def test_as_part_of_a_graph_work_can_cost_less():
    cuda = SimulatedCuda()
    graph = cuda.CUDAGraph()
    costs = {"cost": lambda: Cost(3.0, gaps=1.0, ramp=2.0), "graph_cost": lambda: Cost(3.0, gaps=0.25)}
    with cuda.graph(graph):
        cuda.submit("forward", "compute", lambda: None, **costs)
    graph.replay()
    cuda.synchronize()
    assert cuda.now == 3.25


def test_a_host_that_takes_for_ever_does_not_hang_the_simulator():
    cuda = SimulatedCuda()
    cuda.host(float("inf"))
    cuda.submit("forward", "compute", lambda: None, lambda: Cost(3.0, ramp=2.0), gradual=True, wait=True)
    assert cuda.now == float("inf")
