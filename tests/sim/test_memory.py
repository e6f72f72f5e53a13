"""The host's side of pinned memory tells of every read and write, and of where."""

import numpy as np
import pytest

from acb_minimal.sim.memory import HostView
from acb_minimal.sim.operations import Observer


class Seen(Observer):
    """Remembers what was touched: whether it was written, and which elements."""

    def __init__(self, memory: np.ndarray):
        self.memory, self.log = memory, []

    def touched(self, memory, writes):
        first = (memory.ctypes.data - self.memory.ctypes.data) // memory.itemsize
        self.log.append((writes, first, memory.size))


@pytest.fixture
def view():
    memory = np.arange(8, dtype=np.int32)
    return HostView.of(memory, Seen(memory))


READ, WRITE = False, True
TOUCHES = {
    "an element": (lambda v: v[3], [(READ, 3, 1)]),
    "the last element": (lambda v: v[-1], [(READ, 7, 1)]),
    "a slice is only a view": (lambda v: v[2:5], []),
    "an empty slice": (lambda v: v[:0].tolist(), []),
    "a list": (lambda v: v[2:5].tolist(), [(READ, 2, 3)]),
    "elements here and there": (lambda v: v[[1, 6]], [(READ, 0, 8)]),
    "a loop": (lambda v: [x for x in v[:2]], [(READ, 0, 2)]),
    "arithmetic": (lambda v: v[4:6] + 1, [(READ, 4, 2)]),
    "a sum": (lambda v: v[4:].sum(), [(READ, 4, 4)]),
    "a copy": (lambda v: v[1:3].copy(), [(READ, 1, 2)]),
    "an element is written": (lambda v: v.__setitem__(3, 9), [(WRITE, 3, 1)]),
    "a slice is written": (lambda v: v.__setitem__(slice(1, 4), 9), [(WRITE, 1, 3)]),
    "a view is written": (lambda v: v[2:].reshape(2, 3)[1].fill(0), [(WRITE, 5, 3)]),
    "added to in place": (lambda v: np.add(v[:2], 1, out=v[:2]), [(READ, 0, 2), (WRITE, 0, 2)]),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_a_touch_is_told_of(view, name):
    touch, expected = TOUCHES[name]
    touch(view)
    assert view.observer.log == expected
