"""Engines of other designs that are as right as the chapter they come from, and as fast."""

import pytest

from acb_minimal.check import pace
from acb_minimal.check.schedules import replay
from acb_minimal.run.engines import changed

UPLOADED, COMPUTED = "self.compute.wait_event(self.uploaded)", "self.d2h.wait_event(self.computed)"
RECORD_UPLOADED, RECORD_COMPUTED = "self.uploaded.record(self.h2d)", "self.computed.record(self.compute)"
SLOTS = "self.slot, self.other = model.new_slot(), model.new_slot()"
EVENTS = "{self.slot: cuda.Event(), self.other: cuda.Event()}"
SWAP = "self.slot, self.other = self.other, self.slot"
STREAMS = "cuda.Stream(), cuda.Stream(), cuda.Stream()"
LAST_WAIT = "        self.downloaded[slot].synchronize()  "


def slots(number: int) -> list[tuple[str, str]]:
    """So many slots, one after another."""
    return [
        (SLOTS, f"self.slots = [model.new_slot() for _ in range({number})]; self.slot, *_, self.other = self.slots"),
        (EVENTS, "{slot: cuda.Event() for slot in self.slots}"),
        (SWAP, f"self.other, self.slot = self.slot, self.slots[(self.slots.index(self.slot) + 1) % {number}]"),
    ]


CAPTURE = """        self.graphs, pool = {}, cuda.graph_pool_handle()
        for rows in model.decode_sizes:
            for slot, other in ((self.slot, self.other), (self.other, self.slot)):
                slot.pad(rows)                        # nothing but padding: capturing runs nothing and needs no request
                self.graphs[slot, rows] = cuda.CUDAGraph()
                with cuda.graph(self.graphs[slot, rows], pool=pool, stream=self.compute):
                    model.carry_over(slot, other)
                    model.forward(slot)
"""
LAZY_CAPTURE = """        size = self.slot, batch.decode_size
        if batch.decode_size and size not in self.graphs:
            self.graphs[size] = self.cuda.CUDAGraph()
            with self.cuda.graph(self.graphs[size], pool=self.pool, stream=self.compute):
                self.model.carry_over(self.slot, self.other)
                self.model.forward(self.slot)
"""
LOOK_UP = "        graph = self.graphs.get((self.slot, batch.decode_size))\n"

DESIGNS = {
    "three slots": ("ch5", *slots(3)),
    "wait_stream": (
        "ch5", (RECORD_UPLOADED, "pass"), (UPLOADED, "self.compute.wait_stream(self.h2d)"),
        (RECORD_COMPUTED, "pass"), (COMPUTED, "self.d2h.wait_stream(self.compute)"),
    ),
    "the current stream waits and records": (
        "ch5", (UPLOADED, "pass"), (RECORD_COMPUTED, "pass"),
        ("        self.model.carry_over(", "        self.uploaded.wait(); self.model.carry_over("),
        ("self.model.forward(self.slot)  ", "self.model.forward(self.slot); self.computed.record()  "),
    ),
    "queries": ("ch5", (LAST_WAIT, "        while not self.downloaded[slot].query(): pass\n")),
    "one stream": ("ch5", (STREAMS, "[cuda.Stream()] * 3")),
    "the default stream computes": ("ch5", (STREAMS, "cuda.Stream(), cuda.default_stream(), cuda.Stream()")),
    "captured when it is needed": (
        "ch6", (CAPTURE, "        self.graphs, self.pool = {}, cuda.graph_pool_handle()\n"),
        (LOOK_UP, LAZY_CAPTURE + LOOK_UP),
    ),
    "the default stream for capture": ("ch6", ("pool=pool, stream=self.compute", "pool=pool")),
    "carry-over outside of the graph": (
        "ch6", ("                    model.carry_over(slot, other)\n", ""),
        ("        graph.replay()  ", "        self.model.carry_over(self.slot, self.other); graph.replay()  "),
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", ["9", *(pytest.param(seed, marks=pytest.mark.slow) for seed in ("4", "long:lazy"))])
@pytest.mark.parametrize("name", DESIGNS)
def test_an_engine_of_another_design_is_right(name, seed):
    chapter, *changes = DESIGNS[name]
    outcome = replay(changed(chapter, *changes), seed)
    assert (outcome.hazards, outcome.failure) == ([], None)


@pytest.mark.parametrize("name", DESIGNS)
def test_an_engine_of_another_design_is_as_fast_as_its_chapter(name):
    chapter, *changes = DESIGNS[name]
    assert pace.pace(changed(chapter, *changes), name).as_fast(pace.of_chapter(chapter))


# Captures that go wrong: what is said, and by whom it is refused.
CAPTURES = {
    "the default stream": (
        "stream=self.compute):", "stream=cuda.default_stream()):",
        "RuntimeError: operation not permitted: CUDA cannot capture the default stream",
    ),
    "a wait": (
        "                    model.carry_over(slot, other)\n",
        "                    model.carry_over(slot, other); cuda.synchronize()\n",
        "RuntimeError: operation not permitted when stream is capturing: CUDA lets no host synchronize the device then",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAPTURES)
def test_what_cuda_refuses_in_a_capture_is_the_engine_s_failure(name):
    old, new, said = CAPTURES[name]
    outcome = replay(changed("ch6", (old, new)), "1")
    assert outcome.failure.startswith(said)
    assert "(line " in outcome.failure
