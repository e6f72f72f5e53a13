"""Every statement of the chapters that orders anything is missed when it is gone."""

import ast
import re

import pytest

from acb_minimal.check import mutations as module
from acb_minimal.check.mutations import Mutant, bubble, find, mutants
from acb_minimal.run.engines import changed, chapter_paths

ORDERS = re.compile(
    r"synchronize\(|wait_event\(|\.record\(|cuda\.stream\(|fill\(|carry_over\(|write_masks\(|self.other = self|"
    r"model\.(?:count|correct|draft)\(|Stream\(\), |new_slot\(\), |: cuda.Event\(\), "
)
# Three streams buy nothing before something runs side by side, as chapter 2 says: that is from chapter 5 on.
FOR_LATER = [(name, "self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()")
             for name in ("ch2_streams", "ch3_events", "ch4_dual_slots")]  # fmt: skip
FOR_SPEED = ("self.h2d, self.compute, self.d2h = ", "self.downloaded = {")
FOR_TOKENS = ("self.slot.fill()", "self.slot.write_masks()", "self.model.carry_over(", "model.carry_over(",
              "self.model.count(", "self.model.correct(", "self.model.draft(")  # fmt: skip
# What a deleted wait, or the record that it waits for, is missed by: who does not wait, and for whom.
EDGES = {
    "uploaded": ("compute", "h2d"), "masked": ("compute", "h2d"), "h2d.synchronize": ("compute", "h2d"),
    "computed": ("d2h", "compute"), "compute.synchronize": ("d2h", "compute"),
    "downloaded": ("the host", "d2h"), "d2h.synchronize": ("the host", "d2h"),
}  # fmt: skip
STEPS = ("self.slot.", "tokens = self.slot.download", "self.model.", "graph.replay", "return self.scheduler.update")

# After every change: chapter 3's lines that order, and a line of chapter 5 for each other thing that can go.
OTHERS = ("self.slot, self.other = self.other, self.slot", "self.model.carry_over(", "self.downloaded = {")
ALL = [
    (name, mutant) for name in chapter_paths(None) for mutant in mutants(name)
    if name != "ch9_preemption"  # those are in test_preemption.py
]  # fmt: skip


def quick(name: str, mutant: Mutant) -> bool:
    return (name == "ch3_events" and mutant.line > 20) or (name == "ch5_carry_over" and mutant.text.startswith(OTHERS))


@pytest.mark.parametrize("name", chapter_paths(None))
def test_no_statement_that_orders_is_left_out(name):
    lines = enumerate(chapter_paths(None)[name].read_text().splitlines(), start=1)
    assert [mutant.line for mutant in mutants(name)] == [number for number, line in lines if ORDERS.search(line)]


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=f"{name}:{mutant.line}", marks=() if quick(name, mutant) else pytest.mark.slow)
        for name, mutant in ALL
    ],
)
def test_it_is_missed(mutant):
    """By a hazard, and by wrong tokens too; what only hands tokens on by those alone, what is for speed by a bubble."""
    finding = find(mutant)
    if (mutant.chapter, mutant.text) in FOR_LATER:
        assert finding.caught is None
        assert finding.bubbles[0] == finding.bubbles[1]
    elif mutant.text.startswith(FOR_SPEED):
        assert finding.caught == "bubble"
        assert finding.hazard is finding.outcome is None
    elif mutant.text.startswith(FOR_TOKENS):
        assert finding.caught == "tokens"
        assert finding.outcome.wrong_batch_number is not None
    else:
        assert finding.caught == "hazard"
        assert finding.hazard.second.batch_number <= 1
        # Counting goes by its inputs to where it counts: with others' inputs, that may be nowhere.
        outcome = finding.outcome
        assert outcome.wrong_batch_number is not None or "illegal memory access" in outcome.failure
        assert all(each.line.text.startswith(STEPS) for each in (finding.hazard.first, finding.hazard.second))
        for part, (waits, awaited) in EDGES.items():
            if part in mutant.text and "with " not in mutant.text:
                assert finding.hazard.edge == (waits, awaited)
                assert str(finding.hazard).endswith(f"; nothing makes {waits} wait for {awaited}")


MINE = '''
class Engine:
    def step(self):
        """Größe."""
        with self.cuda.stream(self.größe): self.slot.upload()
        self.compute.wait_event(
            self.uploaded,
        )   # over several lines
        x = "ü"; self.done.record(self.h2d); self.slot.write(x)
        with open("x"), self.cuda.stream(self.h2d):
            pass
        self.a, self.b = self.b, self.a
        self.a, self.b = self.a, self.b
        self.s = [cuda.Stream(), cuda.Stream()]
        self.record(3)
'''


def test_a_file_of_one_s_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    made = list(mutants(str(file)))
    for mutant in made:
        ast.parse(mutant.source)
    assert [(mutant.line, mutant.source.splitlines()[mutant.line - 1].strip()) for mutant in made] == [
        (5, "with self.cuda.stream(None): self.slot.upload()"),
        (6, "pass   # over several lines"),
        (9, 'x = "ü"; pass; self.slot.write(x)'),
        (12, "pass"),
        (15, "pass"),
    ]


def test_the_table_has_numbers_of_batches_and_a_seed_or_two_bubbles(monkeypatch):
    texts = "self.compute.wait_event(self.uploaded)", "self.downloaded = {"
    monkeypatch.setattr(module, "mutants", lambda name: [each for each in mutants(name) if each.text.startswith(texts)])
    (_, _, *bubble), (_, _, *hazard) = module.table("ch5", lambda said: None).rows
    assert hazard == [0, 0, None, hazard[3], None, None]
    assert isinstance(hazard[3], int)
    *none, before, after = bubble
    assert none == [None] * 4
    assert before < after


def test_a_bubble_grows_when_the_host_waits_for_the_batch_it_has_just_launched():
    retire = "return self.retire(previous)"
    slower = changed("ch6", (retire, f"self.compute.synchronize(); {retire}"))
    assert bubble(changed("ch6")) < 1e-6 < 50e-6 < bubble(slower)
