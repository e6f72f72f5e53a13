"""What the judge of the labs says: of starters, of solutions, of other right ways, and of the usual wrong turns."""

import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from acb_minimal.check import judge
from acb_minimal.course.labs import judging
from acb_minimal.course.labs.catalog import LABS
from acb_minimal.course.labs.lab import Lab, edited
from acb_minimal.errors import InputError
from acb_minimal.run.engines import chapter_path

WORKSHOP = Path(__file__).parents[3] / "docs" / "workshop.md"
CONTENT = "solved"


@pytest.fixture
def ruled(tmp_path, capsys):
    """What the judge says at once of a source in a lab: whether it passes, and all that is printed."""

    def ask(lab: Lab, source: str) -> tuple[bool, str]:
        file = tmp_path / "engine.py"
        file.write_text(source)
        ruling = judging.quick(lab, file)
        Console(width=200).print(ruling.said, ruling.shown)
        return ruling.passed, " ".join(capsys.readouterr().out.split())

    return ask


# Why each starter is not the answer yet.
STARTERS = {
    "batch": "the host waits 32 times in a step, and once is enough",
    "streams": "upload, forward pass and download are in 1 of 3 streams",
    "events": "the host waits 3 times in a step, and once is enough",
    "slots": "a step takes longer than that of ch4_dual_slots",
    "carry": "a step takes longer than that of ch5_carry_over",
    "graphs": "a step takes longer than that of ch6_cuda_graphs",
    "haste": "the host (fill, batch 1) writes slot B's pinned inputs; the upload of batch 1 reads them",
    "idle": "a step takes longer than that of ch5_carry_over",
    "late": "a step takes longer than that of ch5_carry_over",
    "lucky": "the host (its own code) reads slot A's pinned outputs; the download of batch 0 writes them",
    "scramble": "the upload of batch 2 writes slot A's inputs; the forward pass of batch 0 reads them",
    "scarce": "batch 1 gave request 0 token",
    "stutter": "batch 1 gave request 0 token",
    "loop": "writes slot B's inputs; the graph replay of batch 1 reads them",
}


def test_every_starter_is_here():
    assert list(STARTERS) == list(LABS)


@pytest.mark.parametrize("name", LABS)
def test_a_starter_is_told_what_it_lacks(name, ruled):
    passed, said = ruled(LABS[name], LABS[name].starter)
    assert not passed
    assert STARTERS[name] in said


# Of labs with the same solution and the same limits, one.
SOLUTIONS = {(lab.solution, lab.waits, lab.streams): name for name, lab in LABS.items()}


@pytest.mark.parametrize("name", SOLUTIONS.values())
def test_a_solution_passes(name, ruled):
    passed, said = ruled(LABS[name], LABS[name].solution)
    assert passed, said


# --- pieces of the chapters ---

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

# --- other ways that a lab says are right ---

THREE_SLOTS = (
    ("self.slot, self.other = model.new_slot(), model.new_slot()",
     "self.slot, self.next, self.other = (model.new_slot() for _ in range(3))"),
    ("        self.slot, self.other = self.other, self.slot ",
     "        self.slot, self.next, self.other = self.next, self.other, self.slot "),
)  # fmt: skip
EACH_SLOT = "self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}"
OTHERS = {
    ("batch", "one synchronize"): (
        ("self.slot.upload() ", "self.slot.upload(non_blocking=True) "),
        ("self.slot.download() ", "self.slot.download(non_blocking=True); self.cuda.synchronize() "),
    ),
    ("streams", "a copy that blocks"): (
        ("self.slot.upload(non_blocking=True)", "self.slot.upload()"),
        ("        self.h2d.synchronize() ", "        pass "),
    ),
    ("streams", "it asks"): (("        self.h2d.synchronize() ", "        while not self.h2d.query(): pass #"),),
    ("events", "wait_stream"): (
        ("        self.uploaded.record(self.h2d)\n", ""),
        ("self.compute.wait_event(self.uploaded)", "self.compute.wait_stream(self.h2d)"),
    ),
    ("events", "a wait for the stream"): (("self.downloaded.synchronize()", "self.d2h.synchronize()"),),
    ("slots", "one slot"): (
        ("self.slot, self.other = model.new_slot(), model.new_slot()", "self.slot = model.new_slot()"),
        ("            self.slot.write(batch)", "            self.uploaded.synchronize(); self.slot.write(batch)"),
        ("        self.slot, self.other = self.other, self.slot ", "        pass "),
    ),
    ("slots", "three slots"): THREE_SLOTS,
    ("carry", "an event for each batch"): (
        (f"        {EACH_SLOT}\n", ""),
        ("        self.downloaded[self.slot].record(self.d2h)\n", ""),
        ("self.in_flight = batch, self.slot, tokens", "self.in_flight = batch, self.d2h.record_event(), tokens"),
        ("self.downloaded[slot].synchronize()", "slot.synchronize()"),
    ),
    ("carry", "three slots"): (
        THREE_SLOTS[0], THREE_SLOTS[1],
        (EACH_SLOT, "self.downloaded = {slot: cuda.Event() for slot in (self.slot, self.next, self.other)}"),
    ),
    ("graphs", "the carry-over outside"): (
        ("                    model.carry_over(slot, other)\n", ""),
        ("            if graph:\n", PICKED),
        (EAGER, ""),
    ),
    ("graphs", "a pool for each"): (("pool=pool, ", ""),),
}  # fmt: skip


@pytest.mark.parametrize(("name", "way"), OTHERS)
def test_another_right_way_passes(name, way, ruled):
    passed, said = ruled(LABS[name], edited(chapter_path(LABS[name].goal).read_text(), OTHERS[name, way]))
    assert passed, said




@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("late", (("self.downloaded[self.slot].record", "self.downloaded[self.other].record"),)),
        ("loop", (
            ("        if batch.decode_size != self.size:            # another size: another graph\n"
             "            self.size, self.graph = batch.decode_size, ",
             "        if (self.slot, batch.decode_size) != self.size:\n"
             "            self.size, self.graph = (self.slot, batch.decode_size), "),
        )),
        ("scramble", (
            *THREE_SLOTS,
            ("self.uploaded = {self.slot: cuda.Event(), self.other: cuda.Event()}",
             "self.uploaded = {slot: cuda.Event() for slot in (self.slot, self.next, self.other)}"),
            (EACH_SLOT, "self.downloaded = {slot: cuda.Event() for slot in (self.slot, self.next, self.other)}"),
        )),
    ],
    ids=["late", "loop", "scramble"],
)  # fmt: skip
def test_another_repair_of_a_bug_passes(name, changes, ruled):
    passed, said = ruled(LABS[name], edited(LABS[name].starter, changes))
    assert passed, said


# --- the wrong turns in the instructor's tables ---

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


@pytest.mark.parametrize(("name", "turn"), [(name, turn) for name, turns in TURNS.items() for turn in turns])
def test_the_judge_says_of_a_wrong_turn_what_the_table_says(name, turn, ruled):
    lab, changes = LABS[name], TURNS[name][turn]
    source = lab.starter if changes[:1] == ("*",) else chapter_path(lab.goal).read_text()
    passed, said = ruled(lab, edited(source, tuple(change for change in changes if change != "*")))
    told = TABLES[name][turn]
    assert passed == (told == CONTENT), said
    quoted = re.findall(r'"(.*?)"', told)
    assert quoted or passed
    for words in quoted:
        assert words in said


# --- engines that cannot be judged, rewrites, and the last word ---


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Engine(", "SyntaxError"),
        ("x = 1\n", "AttributeError"),
        ("Engine = 1\n", "the Engine of"),
        ("exit()\n", "importing it calls exit"),
        ("class Engine:\n    pass\n", "the Engine has no method `run`"),
    ],
)
def test_what_is_no_engine_is_told_why(source, said, ruled):
    passed, told = ruled(LABS["events"], source)
    assert not passed
    assert said in told


def test_an_engine_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="acb lab reset"):
        judging.load(tmp_path / "engine.py")


def test_another_right_engine_is_no_repair(ruled):
    passed, said = ruled(LABS["haste"], chapter_path("ch6").read_text())
    assert not passed
    assert "it is another engine now" in said


def test_a_version_is_judged_as_it_is_however_fast_it_is_saved(tmp_path):
    file = tmp_path / "engine.py"
    names = []
    for name in ("aaa", "bbb", "ccc"):
        file.write_text(f"class Engine:\n    name = {name!r}\n    def run(self): ...\n")
        names.append(judging.load(file).name)
    assert names == ["aaa", "bbb", "ccc"]
    assert [path.name for path in tmp_path.iterdir()] == ["engine.py"]


def test_the_lines_that_are_told_are_those_of_the_version_that_is_judged(tmp_path, ruled):
    lab, wait = LABS["events"], "self.compute.wait_event(self.uploaded)"
    source = chapter_path("ch3").read_text()
    ruled(lab, source.replace(wait, "pass"))
    _, said = ruled(lab, "\n\n\n" + source.replace(wait, "pass").replace("self.model.forward(", "self.model.forward ("))
    assert "line 37: self.model.forward (self.slot)" in said


def test_the_last_word_tells_how_many_schedules_are_covered(tmp_path):
    file = tmp_path / "engine.py"
    file.write_text(LABS["streams"].solution)
    said = []
    ruling = judging.thorough(LABS["streams"], file, judging.quick(LABS["streams"], file), said.append)
    assert ruling.passed
    assert "No hazard, no wrong token: 4 schedules are covered." in str(ruling.shown)
    assert "all schedules of 'rows'" in said


def test_the_last_word_finds_what_comes_seldom(tmp_path):
    wait = "self.compute.wait_event(self.uploaded)"
    file = tmp_path / "engine.py"
    file.write_text(chapter_path("ch3").read_text().replace(wait, f"batch.number % 16 == 15 or {wait}"))
    lab = LABS["events"]
    found = judging.quick(lab, file)
    assert found.passed
    ruling = judging.thorough(lab, file, found)
    assert (ruling.passed, ruling.said) == (False, "nothing makes compute wait for h2d")
    assert f"acb check {file} --replay long:" in str(judging.again(file, ruling))


def test_what_can_be_said_at_once_names_the_schedule_with_a_wrong_token(tmp_path):
    file = tmp_path / "my engine.py"
    file.write_text(LABS["haste"].starter)
    shown = str(judging.again(file, judging.quick(LABS["haste"], file)))
    assert "What it can do: batch 1 gave request" in shown
    assert re.search(r"acb check '.*my engine.py' --replay \d+$", shown)


def test_the_judge_has_no_patience_with_what_hangs(tmp_path, monkeypatch, ruled):
    monkeypatch.setattr(judge, "PATIENCE", 2.0)
    begun = time.monotonic()
    passed, said = ruled(LABS["events"], "class Engine:\n    def __init__(self, *parts): ...\n"
                                         "    def run(self):\n        while True: pass\n")  # fmt: skip
    assert not passed
    assert "it is in line 4: while True: pass" in said
    assert time.monotonic() - begun < 60
