"""The detector, on programs that lack one wait and on the same programs with it, whatever the schedule."""

from types import SimpleNamespace

import pytest
import torch

from acb_minimal.check.memory import AccessMode
from acb_minimal.check.race_detector import RaceDetector
from acb_minimal.request import Batch
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.policies import POLICIES, named

COSTS = Costs.of("counter")


class Machine:
    """A simulated device that is looked at: three streams, a pinned buffer, two device buffers and a KV cache."""

    def __init__(self, policy: str = "timed"):
        self.detector = RaceDetector()
        self.device = SimulatedDevice(COSTS, named(policy), observer=self.detector)
        self.cuda = self.device.cuda
        self.h2d, self.compute, self.d2h = (self.cuda.Stream() for _ in range(3))
        self.pinned = self.device.pinned(8)
        self.data, self.result = torch.zeros(8, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
        self.keys, self.values = torch.zeros(6, 1, 2, 4), torch.zeros(6, 1, 2, 4)
        for name in ("pinned", "data", "result"):
            self.device.watch(name, getattr(self, name))
        self.device.watch("keys", self.keys, page_size=2)
        self.device.watch("values", self.values, page_size=2)
        self.detector.name_streams(self, self.cuda.default_stream())

    def work(self, batch_number: int) -> SimpleNamespace:
        return SimpleNamespace(name="A", batch=Batch([], batch_number, padding=1))

    def upload(self, stream, batch_number: int = 0, part: slice = slice(None), non_blocking: bool = True) -> None:
        with self.cuda.stream(stream):
            self.device.copy("h2d", self.data[part], self.pinned[part], non_blocking, self.work(batch_number))

    def download(self, stream, batch_number: int = 0) -> None:
        with self.cuda.stream(stream):
            self.device.copy("d2h", self.pinned, self.result, True, self.work(batch_number))

    def forward(self, stream, batch_number: int = 0, part: slice = slice(None)) -> None:
        """Reads data, writes result."""
        with self.cuda.stream(stream):
            self.device.compute("forward", self.work(batch_number), lambda: self.result[part].copy_(self.data[part]))

    def attend(self, stream, batch_number: int, pages: list[int], length: int) -> None:
        """A decode of one request: writes its last position, reads them all."""
        rows = torch.ones(1, 1, 4)
        last = pages[(length - 1) // 2] * 2 + (length - 1) % 2
        ints = [torch.tensor(value, dtype=torch.int32) for value in ([last], [pages], [length], [0, 1])]

        def run() -> None:
            torch.ops.acb.paged_attention(rows, rows, rows, self.keys, self.values, *ints, 1, 1.0, 0)

        with self.cuda.stream(stream):
            self.device.compute("forward", self.work(batch_number), run)

    def host_writes(self, batch_number: int = 1) -> None:
        self.device.host_view(self.pinned)[:] = 0
        self.device.spent("write", self.device.clock(), 1, batch_number)

    def host_reads(self, batch_number: int = 0) -> None:
        self.device.host_view(self.pinned)[:3].tolist()
        self.device.spent("update", self.device.clock(), 1, batch_number)

    def captured(self, pool: object = None):
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph, pool=pool, stream=self.compute):
            self.forward(self.compute)
        return graph

    def replay(self, graph, stream) -> None:
        with self.cuda.stream(stream):
            graph.replay()

    def hazards(self) -> list[str]:
        self.cuda.synchronize()
        return [str(hazard) for hazard in self.detector.hazards]


# Each does two things, and `order` between them: the wait that they need, or nothing.


def write_then_read(on, order):
    on.upload(on.h2d)
    order(on, on.h2d, on.compute)
    on.forward(on.compute)


def download_then_host_reads(on, order):
    on.download(on.d2h)
    order(on, on.d2h, None)
    on.host_reads()


def upload_then_replay(on, order):
    graph = on.captured()
    on.upload(on.h2d)
    order(on, on.h2d, on.compute)
    on.replay(graph, on.compute)


def replays_from_one_pool(on, order):
    pool = on.cuda.graph_pool_handle()
    one, other = on.captured(pool), on.captured(pool)
    on.replay(one, on.compute)
    order(on, on.compute, on.h2d)
    on.replay(other, on.h2d)


def a_page_handed_on(on, order):
    on.attend(on.compute, 0, pages=[5, 3], length=4)
    order(on, on.compute, on.h2d)
    on.attend(on.h2d, 1, pages=[3], length=1)


PROGRAMS = {
    write_then_read: "the forward pass of batch 0 reads data; the upload of batch 0 writes them; "
    "nothing makes compute wait for h2d",
    download_then_host_reads: "the host (update, batch 0) reads pinned; the download of batch 0 writes them; "
    "nothing makes the host wait for d2h",
    upload_then_replay: "the graph replay of batch 0 reads data; the upload of batch 0 writes them; "
    "nothing makes compute wait for h2d",
    replays_from_one_pool: "the graph replay of batch 0 writes the results in between in the graphs' pool; "
    "the graph replay of batch 0 writes them too; nothing makes h2d wait for compute",
    a_page_handed_on: "the forward pass of batch 1 writes keys, page 3; the forward pass of batch 0 reads them; "
    "nothing makes h2d wait for compute",
}


def event(on, before, after):
    done = before.record_event()
    done.synchronize() if after is None else after.wait_event(done)


def everything(on, before, after):
    on.cuda.synchronize()


def asking(on, before, after):
    done = before.record_event()
    while not done.query():
        pass


def nothing(on, before, after):
    pass


def waiting_for_what_came_before(on, before, after):
    """The event was recorded for something earlier: in the stream, but before the work."""
    on.early = getattr(on, "early", None) or on.cuda.Event()
    after.wait_event(on.early) if after else on.early.synchronize()


def waiting_for_a_record_too_late(on, before, after):
    done = on.cuda.Event()
    if after is not None:
        after.wait_event(done)
        done.record(before)


ENOUGH = (event, everything, asking)
TOO_LITTLE = (nothing, waiting_for_what_came_before, waiting_for_a_record_too_late)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("order", TOO_LITTLE)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_nothing_orders_is_found(program, order, policy):
    on = Machine(policy)
    program(on, order)
    assert PROGRAMS[program] in on.hazards()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("order", ENOUGH)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_in_order_is_left_alone(program, order, policy):
    on = Machine(policy)
    program(on, order)
    assert on.hazards() == []


def apart_in_a_buffer(on):
    on.upload(on.h2d, part=slice(0, 4))
    on.forward(on.compute, part=slice(4, 8))


def pages_of_their_own(on):
    on.attend(on.compute, 0, pages=[1, 2], length=4)
    on.attend(on.h2d, 1, pages=[3, 4], length=4)


def positions_of_their_own(on):
    """A page's free positions are nobody's yet: an entry of the page table past the row's length is not read."""
    on.attend(on.compute, 0, pages=[1, 2], length=2)
    on.attend(on.h2d, 1, pages=[2], length=1)


def a_wait_keeps_the_record_it_was_for(on):
    on.upload(on.h2d)
    done = on.h2d.record_event()
    on.compute.wait_event(done)
    done.record(on.d2h)
    on.forward(on.compute)


def pools_of_their_own(on):
    one, other = on.captured(on.cuda.graph_pool_handle()), on.captured(on.cuda.graph_pool_handle())
    on.replay(one, on.compute)
    on.compute.synchronize()
    on.replay(other, on.h2d)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "program",
    [
        apart_in_a_buffer, pages_of_their_own, positions_of_their_own, a_wait_keeps_the_record_it_was_for,
        pools_of_their_own,
    ],
)  # fmt: skip
def test_what_needs_no_wait_is_left_alone(program, policy):
    on = Machine(policy)
    program(on)
    assert on.hazards() == []


@pytest.mark.parametrize(
    ("operation", "touched"),
    [
        (lambda a, b: a.copy_(b), {("a", True), ("b", False)}),
        (lambda a, b: torch.add(b, 1, out=a), {("a", True), ("b", False)}),
        (lambda a, b: torch.cat([a, b]), {("a", False), ("b", False)}),
        (lambda a, b: a.__setitem__(slice(0, 2), 5), {("a", True)}),
        (lambda a, b: a.index_put_((b.long(),), torch.tensor(1, dtype=torch.int32)), {("a", True), ("b", False)}),
        (lambda a, b: a[1:3].view(2, 1)[None], set()),
        (lambda a, b: a.view(2, 4).reshape(8), set()),
        (lambda a, b: a.view(2, 4).t().reshape(8), {("a", False)}),
        (lambda a, b: torch.zeros(8).add_(1), set()),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_an_operation_tells_what_it_reads_and_writes(operation, touched, inference):
    a, b = torch.zeros(8, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    names, seen = {a.data_ptr(): "a", b.data_ptr(): "b"}, set()

    def touch(tensor, writes):
        if name := names.get(tensor.untyped_storage().data_ptr()):
            seen.add((name, writes))

    with AccessMode(touch, None), torch.inference_mode(inference):
        operation(a, b)
    assert seen == touched
