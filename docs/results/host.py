"""What the host does for a decode step beside launching: schedule, write, fill and update, by rows and context.

    python docs/results/host.py    # any machine; on a GPU it makes host.json anew
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from common import PAGE_SIZE, machine, store

from acb_minimal.device import Device
from acb_minimal.kv_cache import PagePool
from acb_minimal.request import Request
from acb_minimal.scheduler import Scheduler
from acb_minimal.slot import IOSlot, SlotSize

PARTS = ("schedule", "write", "fill", "update")


def host_work(
    rows: int, context: int, device: Device, steps: int = 200, between: Callable[[], None] = lambda: None
) -> list[float]:
    """Median seconds of each of PARTS, for batches of decodes. Every batch is scheduled and written before the one
    before it is updated, as from chapter 4 on.

    Args:
        rows: requests, all of them in every batch.
        context: tokens of each prompt.
        device: whose host buffers to write.
        steps: batches of decodes.
        between: called after each batch, not timed: what else a host does in a step, and fills its caches with.
    """
    pages = -(-(context + steps + 1) // PAGE_SIZE)
    prompts = rows * context  # all in one batch, so that every other step is a decode of all rows
    scheduler = Scheduler(PagePool(rows * pages, PAGE_SIZE), rows, prompts, 1, 1 << 20)
    slots = [IOSlot(SlotSize(rows, prompts, pages), PAGE_SIZE, 0, device) for _ in range(2)]
    for number in range(rows):
        scheduler.add(Request(str(number), [0] * context, steps + 2))
    tokens = np.zeros(rows, dtype=np.int32)
    before, times = scheduler.schedule(), []
    for _ in range(steps):
        slots.reverse()
        start = time.perf_counter()
        batch = scheduler.schedule()
        scheduled = time.perf_counter()
        slots[0].write(batch)
        written = time.perf_counter()
        scheduler.update(before, tokens)
        updated = time.perf_counter()
        slots[0].fill()
        filled = time.perf_counter()
        times.append((scheduled - start, written - scheduled, filled - updated, updated - written))
        between()
        before = batch
    return [statistics.median(column) for column in zip(*times, strict=True)]


if __name__ == "__main__":
    found = []
    for rows in (32, 128, 512):
        for context in (256, 8192):
            times = [1e6 * seconds for seconds in host_work(rows, context, machine())]
            found.append([rows, context, *times, sum(times), sum(times) / rows])
    columns = {"rows": "d", "context": ",d"} | dict.fromkeys((*PARTS, "sum"), ".0f") | {"sum/row": ".2f"}
    store("host.json", "host", "Host time of a decode step, us", columns, found)
