"""An engine's own torch operations on the simulator: queued where a GPU queues them, waited for where it waits."""

import numpy as np
import pytest
import torch

from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.sim.operations import Limit
from acb_minimal.sim.policies import Lazy

COSTS = Costs.of("counter")


class Memory:
    """Device memory of four numbers and pinned memory of as many, on a GPU that runs nothing before it must."""

    def __init__(self, values=(5, 6, 7, 8)):
        self.sim = SimulatedDevice(COSTS, Lazy())
        self.device = torch.tensor(values, dtype=torch.int32)
        self.sim.watch("device", self.device)
        self.pinned = self.sim.pinned(4)

    def synchronize(self) -> None:
        self.sim.cuda.synchronize()


@pytest.fixture
def memory():
    memory = Memory()
    with memory.sim.engine_code():
        yield memory


def content(memory: torch.Tensor) -> list[int]:
    """What is in it, whoever may look."""
    with torch._C.DisableTorchFunction():
        return memory.tolist()


CHANGES = {
    "add_": lambda device: device.add_(1),
    "an element": lambda device: device.__setitem__(0, 3),
    "by index": lambda device: device.index_copy_(0, torch.ones_like(device[:1]).long(), device[2:3] + 0),
    "where": lambda device: device.copy_(torch.where(device > 6, device, 0)),
    "a list of tensors": lambda device: device.copy_(torch.cat([device[2:], device[:2]])),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_operation_on_device_memory_waits_for_its_turn(memory, name):
    expected = content(memory.device)
    right = torch.tensor(expected, dtype=torch.int32)
    with torch._C.DisableTorchFunction():
        CHANGES[name](right)
    CHANGES[name](memory.device)
    assert content(memory.device) == expected
    memory.synchronize()
    assert content(memory.device) == content(right) != expected


def test_results_are_there_when_the_stream_gets_there(memory):
    one, other = memory.sim.cuda.Stream(), memory.sim.cuda.Stream()
    with memory.sim.cuda.stream(one):
        doubled = memory.device * 2
        total = doubled.sum()
    assert content(doubled) == [0, 0, 0, 0]
    with memory.sim.cuda.stream(other):
        memory.device.add_(1)
    other.synchronize()
    one.synchronize()
    assert (content(doubled), content(total)) == ([12, 14, 16, 18], 60)


def test_a_non_blocking_copy_reads_its_pinned_source_when_it_runs(memory):
    memory.pinned.fill_(1)
    memory.device.copy_(memory.pinned, non_blocking=True)
    memory.pinned.fill_(2)
    memory.synchronize()
    assert content(memory.device) == [2, 2, 2, 2]


@pytest.mark.parametrize("pageable", [True, False])
def test_any_other_copy_makes_the_host_wait(memory, pageable):
    source = torch.ones(4, dtype=torch.int32) if pageable else memory.pinned.fill_(1)
    memory.device.copy_(source, non_blocking=pageable)
    source.fill_(2)
    assert content(memory.device) == [1, 1, 1, 1]
    memory.pinned.copy_(memory.device, non_blocking=True)
    assert content(memory.pinned) != [1, 1, 1, 1]
    memory.synchronize()
    assert content(memory.pinned) == [1, 1, 1, 1]


READS = {
    "item": lambda device: device[0].item(),
    "tolist": lambda device: device[:1].tolist()[0],
    "cpu": lambda device: device.cpu()[0].item(),
    "to": lambda device: device.to("cpu").numpy()[0],
    "bool": lambda device: 6 if device[0] == 6 else 5,
    "equal": lambda device: 6 if torch.equal(device, torch.arange(6, 10, out=torch.empty_like(device))) else 5,
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_who_must_know_a_result_waits_for_the_stream(memory, name):
    before = memory.sim.clock()
    memory.device.add_(1)
    assert READS[name](memory.device) == 6
    assert memory.sim.clock() > before


def test_what_torch_says_of_a_gpu_s_memory_it_says_here(memory):
    for look in (torch.Tensor.numpy, np.asarray):
        with pytest.raises(TypeError, match=r"can't convert cuda device type tensor to numpy. Use Tensor.cpu\(\)"):
            look(memory.device)


HOST = torch.ones(4, dtype=torch.int32)
REFUSED = {
    "mixes no memory of the device and of the host in torch's add": lambda device: device + HOST,
    "of the host in torch's where": lambda device: torch.where(device > 1, device, HOST),
    "how torch's nonzero is queued": lambda device: device.nonzero(),
    "whose memory it is if a device is given": lambda device: torch.zeros(4, device=device.device),
    "no pinned memory but that of the slots": lambda device: HOST.pin_memory(),
    "torch's to with 'cpu', or with a dtype,": lambda device: device.to("cpu", torch.int64),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_told_apart_is_refused(memory, said):
    with pytest.raises(Limit) as refused:
        REFUSED[said](memory.device)
    assert said in str(refused.value)
    assert str(refused.value).endswith("; that is a limit of the simulator")


def test_outside_of_an_engine_s_code_nothing_is_queued():
    memory = Memory()
    memory.device.add_(1)
    assert memory.device.tolist() == [6, 7, 8, 9]
