"""What the slot writes, against the definition of each view, position by position."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acb_minimal.kv_cache import PagePool
from acb_minimal.request import Batch, Request, Row
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.device import CpuDevice
from acb_minimal.slot import Inputs, IOSlot, SlotSize

CPU = CpuDevice()


def test_views_do_not_overlap_and_start_on_16_bytes():
    size = SlotSize(rows=3, tokens=7, pages=3)
    buffer = np.zeros(Inputs.numel(size), dtype=np.int32)
    for view, shape in zip(Inputs.cut(buffer, size), Inputs.shapes(size), strict=True):
        assert view.shape == shape
        assert not view.any()
        assert (view.ctypes.data - buffer.ctypes.data) % 16 == 0
        view[:] = 1


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 6)), min_size=1, max_size=8),
    page_size=st.integers(1, 8),
    max_running=st.integers(1, 4),
    budget=st.integers(4, 16),
)
def test_every_batch_of_a_run_is_written_as_defined(lengths, page_size, max_running, budget):
    pool = PagePool(200, page_size)
    scheduler = Scheduler(pool, max_running, budget, 1000, 100)
    for number, (prompt_len, new) in enumerate(lengths):
        scheduler.add(Request(str(number), [100 * number + i for i in range(prompt_len)], new))
    slot = IOSlot(SlotSize(max_running, budget, 30), page_size, 0, CPU)
    while scheduler.has_work():
        batch = scheduler.schedule()
        slot.write(batch)
        slot.upload()
        inputs = slot.written.inputs
        token = 0
        for row, (request, start, length, _) in enumerate(batch.rows):
            pages = inputs.page_table[row].tolist()[: len(request.pages)]
            assert pages == request.pages
            assert inputs.query_starts[row] == token
            assert inputs.seq_lens[row] == start + length
            for position in range(start, start + length):
                assert inputs.input_ids[token] == request.tokens[position]
                assert inputs.positions[token] == position
                assert inputs.kv_slots[token] == pages[position // page_size] * page_size + position % page_size
                token += 1
        assert inputs.query_starts[len(batch.rows)] == token == len(inputs.input_ids)
        last = [inputs.query_starts[row + 1] - 1 for row in batch.sampled]
        assert inputs.sampling_rows.tolist() == last
        assert slot.batch.max_query_len == max(row.length for row in batch.rows)
        slot.written.outputs.copy_(torch.arange(len(batch.sampled)) + 500)
        tokens = slot.download()
        assert tokens.tolist() == [500 + i for i in range(len(batch.sampled))]
        scheduler.update(batch, tokens)


def test_a_token_the_host_does_not_know_yet_is_written_as_0():
    request = Request("a", [11, 12], 5)
    request.pages = [3]
    slot = IOSlot(SlotSize(1, 4, 2), 8, 0, CPU)
    slot.host_inputs.input_ids[:] = 99
    slot.write(Batch([Row(request, 2, 1)]))  # position 2 is the first generated token
    slot.upload()
    assert slot.written.inputs.input_ids.tolist() == [0]
    assert slot.written.inputs.positions.tolist() == [2]
    assert slot.written.inputs.kv_slots.tolist() == [26]


def test_a_row_that_was_padding_gets_its_owner_s_pages_back():
    slot = IOSlot(SlotSize(2, 4, 3), 2, 7, CPU)
    a, b = Request("a", [1], 3), Request("b", [2], 3)
    a.pages, b.pages = [5, 6], [3, 4]
    both = Batch([Row(a, 0, 1), Row(b, 0, 1)])
    slot.write(both)
    slot.write(Batch([Row(a, 0, 1)], padding=1))
    assert slot.host_inputs.page_table[1, 0] == 7
    slot.write(both)
    assert slot.host_inputs.page_table[1, :2].tolist() == b.pages


def test_a_slot_that_holds_nothing_says_so():
    slot = IOSlot(SlotSize(2, 4, 3), 2, 7, CPU, "B")
    assert slot.batch is None
    for use in (slot.download, lambda: slot.written):
        with pytest.raises(RuntimeError, match="slot B holds no batch"):
            use()
