"""What only the simulator has: policies, seeds, engines that are one of a kind, a virtual clock, and limits."""

import re

import pytest
import torch
from sim.machine import COSTS

from acb_minimal.sim.cuda import SimulatedCuda
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.operations import Cost, Limit, Observer
from acb_minimal.sim.policies import NOES, Choosing, Lazy, named
from acb_minimal.sim.simulator import Simulator


def policy(name: str):
    """By name; "random-3" has seed 3."""
    name, _, seed = name.partition("-")
    return named(name, int(seed or 0))


class Gpu(Observer):
    """A simulated GPU, and the operations that it has done, in order."""

    def __init__(self, policy=None, replay_seconds=0.0, call_seconds=0.0):
        self.simulator = Simulator(policy or named("timed"), replay_seconds, call_seconds, observer=self)
        self.cuda = SimulatedCuda(self.simulator)
        self.operations = []

    def run(self, operation):
        super().run(operation)
        self.operations.append(operation)

    def submit(self, what, engine="compute", seconds=0.0, stream=None, run=lambda: None, cost=None, **options):
        """Device work, on the current stream by default."""
        with self.cuda.stream(stream):
            self.simulator.submit(what, engine, run, cost or (lambda: Cost(seconds)), **options)

    @property
    def done(self) -> list[str]:
        return [operation.what for operation in self.operations]

    def spans(self) -> list[tuple[str, float, float]]:
        """What it does when, once all is done."""
        self.cuda.synchronize()
        return [(operation.what, operation.start, operation.end) for operation in self.operations]


# --- policies ---


def schedule(name: str) -> list[tuple[str, float, float]]:
    """What four streams did, two of them waiting for the others, and when."""
    gpu = Gpu(policy(name), call_seconds=0.25)
    streams = [gpu.cuda.Stream() for _ in range(4)]
    for step, engine in enumerate(["h2d", "compute", "d2h"]):
        for number, stream in enumerate(streams):
            gpu.submit(f"{number}.{step}", engine, number + 1.0, stream, launch_seconds=0.5)
            if number >= 2:
                stream.wait_stream(streams[number - 2])
    return gpu.spans()


def test_a_seed_is_a_schedule():
    assert schedule("random-1") == schedule("random-1")
    assert len({str(schedule(f"random-{seed}")) for seed in range(20)}) > 10
    assert schedule("timed-1") == schedule("timed-2")


class Never(Choosing):
    def choose(self, ready, must):
        return None


@pytest.mark.parametrize(("policy", "noes"), [(Lazy(), NOES), (Never(), 1)])
def test_who_asks_again_and_again_is_told_yes_in_the_end(policy, noes):
    gpu = Gpu(policy)
    for _ in range(2):
        gpu.submit("a")
        assert [gpu.cuda.default_stream().query() for _ in range(noes + 1)] == [*[False] * noes, True]


# --- the virtual clock ---

PASS = {"cost": lambda: Cost(3.0, gaps=1.0, ramp=2.0), "graph_cost": lambda: Cost(3.0, gaps=0.25)}


def behind_a_wait(gpu):
    h2d, compute = gpu.cuda.Stream(), gpu.cuda.Stream()
    gpu.submit("upload", "h2d", 2.0, h2d)
    compute.wait_stream(h2d)
    gpu.submit("forward", seconds=3.0, stream=compute)


def all_engines(gpu, stream):
    for engine, seconds in [("h2d", 2.0), ("compute", 3.0), ("d2h", 4.0)]:
        gpu.submit(engine, engine, seconds, stream())


def captured(gpu, *works):
    graph = gpu.cuda.CUDAGraph()
    with gpu.cuda.graph(graph):
        for options in works:
            gpu.submit("forward", launch_seconds=9.0, **options)
    assert gpu.simulator.now == 9.0 * len(works)  # the host launches it all once, into the graph
    graph.replay()


TIMES = {
    "an engine does one thing at a time": (
        lambda gpu: [gpu.submit("forward", seconds=3.0, stream=gpu.cuda.Stream()) for _ in range(2)], 6.0,
    ),
    "engines run side by side": (lambda gpu: all_engines(gpu, gpu.cuda.Stream), 4.0),
    "in one stream engines take turns": (lambda gpu: all_engines(gpu, gpu.cuda.default_stream), 9.0),
    "work behind a wait starts when the record is done": (behind_a_wait, 5.0),
    "work starts when it is launched": (lambda gpu: gpu.submit("upload", "h2d", 3.0, launch_seconds=2.0), 5.0),
    "gradual work starts with its first launch": (
        lambda gpu: gpu.submit("forward", seconds=3.0, launch_seconds=2.0, gradual=True), 3.0,
    ),
    "gradual work ends after its last launch": (
        lambda gpu: gpu.submit("forward", seconds=3.0, launch_seconds=5.0, gradual=True), 5.0,
    ),
    "gradual work waits for its stream": (
        lambda gpu: [gpu.submit("upload", "h2d", 4.0),
                     gpu.submit("forward", seconds=3.0, launch_seconds=2.0, gradual=True)], 7.0,
    ),
    "an idle GPU waits for the first launches": (lambda gpu: gpu.submit("forward", gradual=True, **PASS), 6.0),
    "a busy one waits less": (
        lambda gpu: [gpu.submit("before", seconds=1.0), gpu.submit("forward", gradual=True, **PASS)], 6.0,
    ),
    "a graph costs less": (lambda gpu: captured(gpu, PASS), 9.0 + 0.5 + 3.25),
    "a replay is one launch whatever is in it": (
        lambda gpu: captured(gpu, {"seconds": 2.0}, {"seconds": 3.0}), 18.0 + 0.5 + 5.0,
    ),
    "an endless host": (lambda gpu: [gpu.simulator.host(float("inf")), gpu.submit("forward", **PASS)], float("inf")),
}  # fmt: skip


@pytest.mark.parametrize("what", TIMES)
def test_all_is_done_at(what):
    program, end = TIMES[what]
    gpu = Gpu(replay_seconds=0.5)
    program(gpu)
    gpu.cuda.synchronize()
    assert gpu.simulator.now == end


def test_an_engine_takes_what_is_ready_first():
    """All three are queued while the engine is free, "late" before "early", but it is not ready before 2.0."""
    gpu = Gpu()
    h2d, late, busy, early = (gpu.cuda.Stream() for _ in range(4))
    gpu.submit("upload", "h2d", 2.0, h2d)
    late.wait_stream(h2d)
    for name, stream in [("late", late), ("busy", busy), ("early", early)]:
        gpu.submit(name, seconds=3.0, stream=stream)
    assert gpu.spans() == [("upload", 0.0, 2.0), ("busy", 0.0, 3.0), ("early", 3.0, 6.0), ("late", 6.0, 9.0)]


def test_work_has_its_effect_when_it_completes():
    gpu, data = Gpu(), []
    gpu.submit("forward", seconds=3.0, run=lambda: data.append(1))
    gpu.simulator.host(2.0)
    assert (data, gpu.cuda.default_stream().query()) == ([], False)
    gpu.simulator.host(1.0)
    assert (data, gpu.cuda.default_stream().query()) == ([1], True)


def test_the_host_waits_no_longer_than_it_must_and_sees_nothing_that_comes_later():
    gpu = Gpu()
    short, long = gpu.cuda.Stream(), gpu.cuda.Stream()
    gpu.submit("long", "h2d", 9.0, long)
    gpu.submit("short", seconds=2.0, stream=short)
    event = short.record_event()
    gpu.submit("later", seconds=3.0, stream=short)
    for wait, now, done in [(event, 2.0, ["short"]), (short, 5.0, ["short", "later"]),
                            (gpu.cuda, 9.0, ["short", "later", "long"])]:  # fmt: skip
        wait.synchronize()
        assert (gpu.simulator.now, gpu.done) == (now, done)


def test_calls_cost_host_time():
    gpu = Gpu(call_seconds=0.5)
    gpu.submit("upload", "h2d", 3.0, launch_seconds=1.0, wait=True)
    assert gpu.simulator.now == 4.5  # launch, run, return
    gpu.cuda.default_stream().wait_event(gpu.cuda.Stream().record_event())
    assert gpu.simulator.now == 5.5
    gpu.cuda.default_stream().query()
    assert gpu.simulator.now == 6.0


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


# --- what is refused ---

CUDA_DOES_NOT = "operation not permitted when stream is capturing: CUDA lets no host"
IN_A_CAPTURE = {
    f"{CUDA_DOES_NOT} synchronize the device": lambda gpu: gpu.cuda.synchronize(),
    f"{CUDA_DOES_NOT} wait for the download": lambda gpu: gpu.submit("download", "d2h", wait=True),
    "the simulator captures no copies, and this is one (upload)": lambda gpu: gpu.submit("upload", "h2d"),
    "the simulator cannot record an event": lambda gpu: gpu.cuda.Event().record(),
    "the simulator cannot make a stream wait": lambda gpu: gpu.cuda.current_stream().wait_event(gpu.cuda.Event()),
    "the simulator cannot query a stream": lambda gpu: gpu.cuda.current_stream().query(),
    "the simulator cannot query an event": lambda gpu: gpu.cuda.Event().query(),
    "the simulator cannot replay a graph": lambda gpu: gpu.cuda.CUDAGraph().replay(),
}


@pytest.mark.parametrize("said", IN_A_CAPTURE)
def test_only_compute_is_captured_by_cuda_s_rules_or_the_simulator_s_limit(said):
    """The course has nothing else in its graphs."""
    gpu = Gpu()
    graph, kind = gpu.cuda.CUDAGraph(), RuntimeError if said.startswith(CUDA_DOES_NOT) else Limit
    with pytest.raises(kind, match=re.escape(said)), gpu.cuda.graph(graph):
        IN_A_CAPTURE[said](gpu)
    with pytest.raises(RuntimeError, match="replayed before it was captured"):
        graph.replay()
