import pytest
from sim.machine import EVERYWHERE, Machine


@pytest.fixture(params=EVERYWHERE)
def machine(request):
    machine = Machine(request.param)
    yield machine
    machine.cuda.synchronize()
