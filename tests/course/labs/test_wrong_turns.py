"""What the judge says of the wrong turns in the instructor's tables is what they say (docs/workshop.md)."""

import re
from pathlib import Path

import pytest

from acb_minimal.course.labs.lab import LABS, edited
from acb_minimal.run.engines import chapter_path

WORKSHOP = Path(__file__).parents[3] / "docs" / "workshop.md"

LOOP = "            self.slot.upload()                        # host -> device, the host waits\n"
SYNC = "        self.h2d.synchronize()                        # or compute would read inputs that are not there yet\n"
RECORD = "        self.uploaded.record(self.h2d)\n"
WAIT = "        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet\n"
FORWARD = "            self.model.forward(self.slot)             # launch the forward pass and sampling\n"
CARRY = "            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU\n"
FILL = "            self.slot.fill()                          # the token ids that N has produced\n"
PICKED = "            self.model.carry_over(self.slot, self.other)\n            if graph:\n"
EAGER = "                self.model.carry_over(self.slot, self.other)  # N's tokens -> N + 1's inputs, all on the GPU\n"
NEXT = "        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU\n"
UP, DOWN = ("self.slot.upload() ", "self.slot.upload(non_blocking=True) "), (
    "self.slot.download() ", "self.slot.download(non_blocking=True) "
)  # fmt: skip

EACH_SLOT = "self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}"

# By lab, what the table says that they do: what that is in the starter (*) or in the chapter that it leads to.
TURNS = {
    "batch": {
        "keep the loop, `upload(non_blocking=True)`": ("*", (LOOP, LOOP.replace("()", "(non_blocking=True)"))),
        "stop at chapter 1": (),
        "a whole batch, `upload(non_blocking=True)`": (UP,),
        "a whole batch, `download(non_blocking=True)`": (DOWN,),
        "a whole batch, both": (UP, DOWN),
    },
    "streams": {
        "leave a wait out": ((SYNC, ""),),
        "keep `upload()` blocking": (("self.slot.upload(non_blocking=True)", "self.slot.upload()"),),
        "wait for a stream before anything is in it": (
            (SYNC, ""), ("        with self.cuda.stream(self.h2d):", f"{SYNC}        with self.cuda.stream(self.h2d):")
        ),
        "one stream three times": (("cuda.Stream(), cuda.Stream(), cuda.Stream()", "[cuda.Stream()] * 3"),),
    },
    "events": {
        "`wait_event` before `record`": ((RECORD, ""), (WAIT, WAIT + RECORD)),
        "`wait_event` after the forward pass": ((WAIT, ""), (FORWARD, FORWARD + WAIT)),
        "`record()` without a stream": ((RECORD, RECORD.replace("self.h2d", "")),),
        "`uploaded.synchronize()`": (("self.compute.wait_event(self.uploaded) ", "self.uploaded.synchronize() "),),
    },
    "slots": {
        "one slot, or no swap": (("        self.slot, self.other = self.other, self.slot ", "        pass "),),
        "forget `fill`": ((FILL, ""),),
        "`fill` before `retire`": ((FILL, ""), ("        finished = self.retire() ",
                                               f"        if batch:\n{FILL}        finished = self.retire() ")),
        "retire first, then schedule": (
            ("        finished = self.retire()                      # N\n", ""),
            (NEXT, f"        finished = self.retire()\n{NEXT}"),
        ),
        "schedule first, but write after `retire`": (
            ("        if batch:\n            self.slot.write(batch) ", "        if False:\n            pass"),
            (FILL, "            self.slot.write(batch)\n"),
        ),
        "forget that `schedule` may return None": (
            ("        if batch:\n            self.slot.write(", "        if True:\n            self.slot.write("),
        ),
    },
    "carry": {
        "carry-over after the forward pass": ((CARRY, ""), (FORWARD, FORWARD + CARRY)),
        "`carry_over(self.other, self.slot)`": (("over(self.slot, self.other)", "over(self.other, self.slot)"),),
        "`self.slot` in `retire`, where the slot of N is meant": (("downloaded[slot]", "downloaded[self.slot]"),),
        "retire first, then launch": (
            ("            self.launch(batch)\n        return self.retire(previous)                  # N\n",
             "        done = self.retire(previous)\n        if batch:\n            self.launch(batch)\n"
             "        return done\n"),
        ),
        "one `downloaded` for both": (
            (EACH_SLOT, "self.downloaded = dict.fromkeys((self.slot, self.other), cuda.Event())"),
        ),
    },
    "graphs": {
        "no `slot.pad` before the capture": (("                slot.pad(rows) ", "                pass "),),
        "carry-over outside the capture": (("                    model.carry_over(slot, other)\n", ""),),
        "the graphs of one slot for both": (("graphs.get((self.slot, ", "graphs.get((next(iter(self.graphs))[0], "),),
        "forget `batch.padded`": ((" = batch.padded(self.model.decode_sizes) ", " = batch "),),
    },
}  # fmt: skip


def tables() -> dict[str, dict[str, str]]:
    """By lab, the rows of the workshop's tables: what they do, and what the judge says."""
    found = {}
    for section in re.split(r"^## ", WORKSHOP.read_text(), flags=re.M):
        name = re.search(r"^acb lab start (\w+)$", section.partition("**Lab")[2], re.M)
        table = section.partition("| what they do | what the judge says |")[2]
        if name and table:
            rows = [line.split(" | ") for line in table.splitlines()[2:] if line.startswith("| ")]
            found[name[1]] = {row[0].removeprefix("| "): row[1] for row in rows}
    return found


TABLES = tables()


def test_every_wrong_turn_of_the_tables_is_tried():
    assert {lab: list(rows) for lab, rows in TABLES.items()} == {lab: list(turns) for lab, turns in TURNS.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "turn"), [(name, turn) for name, turns in TURNS.items() for turn in turns])
def test_the_judge_says_of_a_wrong_turn_what_the_table_says(name, turn, ruled):
    lab, changes = LABS[name], TURNS[name][turn]
    source = lab.starter if changes[:1] == ("*",) else chapter_path(lab.goal).read_text()
    ruling, said = ruled(lab, edited(source, [change for change in changes if change != "*"]))
    told = TABLES[name][turn]
    assert ruling.so_far == (told == "solved"), said
    quoted = re.findall(r'"(.*?)"', told)
    assert quoted or ruling.so_far
    for words in quoted:
        assert words in said
