"""Engines with torch operations of their own on the slots' buffers: they are device work as well."""

import pytest

from acb_minimal.check.cases import CASES
from acb_minimal.check.judge import serve
from acb_minimal.check.pace import of_chapter, pace
from acb_minimal.check.schedules import replay
from acb_minimal.check.tables import problem
from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run.engines import changed, chapter_path
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job

IMPORT = "class Engine:", "import torch\nclass Engine:"
SHARED_UPLOAD = "self.slot.upload(non_blocking=True)       # host -> device"
SHARED_DOWNLOAD = "tokens = self.slot.download(non_blocking=True)    # device -> host"
SAMPLED = "[:len(self.slot.written.batch.sampled)]"
TOKENS = f"self.slot.device_tokens{SAMPLED}"
CARRY = (
    "i = {0}.written.inputs; t = {1}.device_tokens[i.carry_over.clamp(min=0)]; "
    "i.input_ids.copy_(torch.where(i.carry_over >= 0, t, i.input_ids))"
)
OWN = {
    "upload": ("ch3", (SHARED_UPLOAD, "self.slot.device_buffer.copy_(self.slot.host_buffer, non_blocking=True)")),
    "download": (
        "ch3",
        (SHARED_DOWNLOAD, "self.slot.host_tokens.copy_(self.slot.device_tokens, non_blocking=True); "
                          f"tokens = self.slot.host_tokens{SAMPLED}.numpy()"),
    ),
    "pinned copy": ("ch3", (SHARED_DOWNLOAD, f"tokens = {TOKENS}.to('cpu', non_blocking=True).numpy()")),
    "carry-over": (
        "ch5", IMPORT, ("self.model.carry_over(self.slot, self.other)  ", CARRY.format("self.slot", "self.other") + " ")
    ),
    "captured carry-over": ("ch6", IMPORT, ("model.carry_over(slot, other)", CARRY.format("slot", "other"))),
}  # fmt: skip


def line_of(chapter: str, part: str) -> int:
    """The number of the only line of a chapter with this in it."""
    (number,) = (n for n, line in enumerate(chapter_path(chapter).read_text().splitlines(), start=1) if part in line)
    return number


@pytest.mark.parametrize("seed", ["0", "7", "21"])
@pytest.mark.parametrize("name", OWN)
def test_an_engine_s_own_operations_are_device_work(name, seed):
    chapter, *changes = OWN[name]
    assert replay(changed(chapter, *changes), seed).clean


UPLOADED, COMPUTED = "self.compute.wait_event(self.uploaded)", "self.d2h.wait_event(self.computed)"
DOWNLOADED = "self.downloaded.synchronize()"
RACES = [
    ("upload", UPLOADED, "the forward pass of batch 0 reads slot A's inputs; the upload of batch 0"),
    ("download", COMPUTED, "the download of batch 0 reads slot A's outputs; the forward pass of batch 0"),
    ("download", DOWNLOADED, "the host (update, batch 0) reads slot A's pinned outputs; the download of batch 0"),
    ("pinned copy", DOWNLOADED, "the host (update, batch 0) reads a pinned copy; the download of batch 0"),
    ("carry-over", UPLOADED, "the torch operation of batch 0 writes slot A's inputs; the upload of batch 0"),
    ("captured carry-over", UPLOADED, "slot A's inputs; the upload of batch 0"),
]


@pytest.mark.parametrize(("name", "gone", "said"), RACES)
def test_of_its_own_operations_the_line_is_named_that_nothing_orders(name, gone, said):
    chapter, *changes = OWN[name]
    (mine, _) = changes[-1] if name != "captured carry-over" else ("graph.replay()", "")
    outcome = serve(changed(chapter, *changes, (gone, "pass")), CASES[1])
    told = str(problem(outcome))
    assert said in told
    numbers = {side.line.number for hazard in outcome.hazards for side in (hazard.first, hazard.second)}
    assert line_of(chapter, mine.strip()) + (IMPORT in changes) in numbers


def test_what_the_simulator_cannot_tell_of_an_operation_is_its_own_limit():
    mixed = f"tokens = ({TOKENS} + torch.zeros(1)).cpu().numpy()"
    with pytest.raises(InputError) as refused:
        serve(changed("ch3", IMPORT, (SHARED_DOWNLOAD, mixed)), CASES[1])
    assert str(refused.value) == (
        "the engine cannot be checked: the simulator mixes no memory of the device and of the host in torch's add; "
        f"that is a limit of the simulator (line {line_of('ch3', 'tokens = ') + 1}: {mixed})"
    )


@pytest.mark.parametrize("name", [pytest.param("carry-over", marks=pytest.mark.slow), "captured carry-over"])
def test_an_engine_with_operations_of_its_own_serves_and_is_timed_like_any_other(name):
    chapter, *changes = OWN[name]
    mine = changed(chapter, *changes)
    prompts = [counter.prompt(3, 9), counter.prompt(90, 95), counter.prompt(7, 7)]
    done = Session(Job(prompts, max_running=2), mine, device="sim").serve()
    assert [completion.text for completion in done] == ["3 4 5 6 7 8 9", "90 91 92 93 94 95", "7"]
    assert pace(mine, name).as_fast(of_chapter(chapter))
