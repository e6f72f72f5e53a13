"""How the judge times engines: beside a chapter, on the simulated GPU, and which line the host waits in."""

import pytest

from acb_minimal.check import judge, pace
from acb_minimal.check.pace import Pace, first_token_lies, nearest, of_chapter
from acb_minimal.check.tables import time
from acb_minimal.errors import InputError
from acb_minimal.run.engines import changed, chapter_paths


def timed(chapter: str, *changes: tuple[str, str]) -> Pace:
    """The pace of a chapter with other text in some places."""
    return pace.pace(changed(chapter, *changes), "mine")


def said(mine: Pace, chapter: str, capsys) -> str:
    """What is printed of an engine beside a chapter."""
    from rich.console import Console

    Console(width=200).print(time(mine, of_chapter(chapter)))
    return " ".join(capsys.readouterr().out.split())


RETIRE = "            self.launch(batch)\n        return self.retire(previous)                  # N\n"
RETIRED_FIRST = "        done = self.retire(previous)\n        if batch: self.launch(batch)\n        return done\n"
EVENTS = "{self.slot: cuda.Event(), self.other: cuda.Event()}"
LAST_WAIT = "        self.downloaded[slot].synchronize()  "

# Right answers, and slow for a reason: a chapter, the change, and the line in which the GPU runs dry.
SLOW = {
    "one event for two slots": (
        "ch5",
        (EVENTS, "dict.fromkeys([self.slot, self.other], cuda.Event())"),
        "self.downloaded[slot].synchronize()",
    ),
    "a wait in front of the next launch": (
        "ch5",
        ("        self.in_flight = batch, ", "        self.d2h.synchronize(); self.in_flight = batch, "),
        "self.d2h.synchronize(); self.in_flight",
    ),
    "retired before the next is launched": ("ch5", (RETIRE, RETIRED_FIRST), "self.downloaded[slot].synchronize()"),
    "asked again and again": (
        "ch3",
        ("        self.downloaded.synchronize()  ", "        while not self.downloaded.query(): pass\n"),
        "while not self.downloaded.query(): pass",
    ),
    "a blocking copy": (
        "ch5",
        ("self.slot.download(non_blocking=True)", "self.slot.download()"),
        "tokens = self.slot.download()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_a_synchronous_engine_is_told_the_line_in_which_the_gpu_runs_dry(name, capsys):
    chapter, change, text = SLOW[name]
    mine = timed(chapter, change)
    assert not mine.as_fast(of_chapter("ch5"))
    blamed = max(mine.waits, key=lambda wait: wait.bubble)
    assert blamed.line.text.startswith(text)
    assert blamed.ahead == 0
    assert blamed.bubble == pytest.approx(mine.parts.bubbles, rel=1e-3)
    printed = said(mine, "ch5", capsys)
    assert "mine takes " in printed
    assert f"line {blamed.line.number}: {text}" in printed
    assert "no other batch has been launched, so the GPU runs dry here" in printed


def test_an_engine_that_is_as_good_as_the_chapter_is_as_fast(capsys):
    mine = timed("ch4", ("self.downloaded.synchronize()", "self.d2h.synchronize()"))
    assert mine.as_fast(of_chapter("ch4"))
    assert round(mine.host_waits) == 1
    assert "mine is as fast as ch4_dual_slots." in said(mine, "ch4", capsys)


def test_a_wait_more_that_costs_nothing_is_counted(capsys):
    record = "        self.uploaded.record(self.h2d)\n"
    mine = timed("ch5", (record, record[:-1] + "; self.h2d.synchronize()\n"))
    assert mine.as_fast(of_chapter("ch5"))
    assert "Its host waits 2 times a step, that of ch5_carry_over 1." in said(mine, "ch5", capsys)


def test_each_chapter_is_faster_than_the_one_before_where_its_idea_is_speed():
    for slower, faster in (("ch3", "ch4"), ("ch4", "ch5"), ("ch5", "ch6")):
        assert not of_chapter(slower).as_fast(of_chapter(faster))
    assert of_chapter("ch3").as_fast(of_chapter("ch1"))
    assert [round(of_chapter(name).host_waits) for name in chapter_paths()] == [2, 3, 1, 1, 1, 1]
    assert [of_chapter(name).waits[-1].ahead for name in chapter_paths()] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", chapter_paths())
def test_the_nearest_chapter_is_the_one_that_does_the_same(name):
    assert nearest(of_chapter(name)) == name


@pytest.mark.parametrize(
    ("chapter", "change", "name"),
    [
        ("ch6", ("            if graph:", "            if False:"), "ch5_carry_over"),  # its graphs are for show
        ("ch5", (RETIRE, RETIRED_FIRST), "ch4_dual_slots"),  # written before the tokens are there, launched after
        ("ch5", ("cuda.Stream(), cuda.Stream(), cuda.Stream()", "[cuda.Stream()] * 3"), "ch5_carry_over"),
        ("ch3", ("self.downloaded.synchronize()", "self.h2d.synchronize(); self.d2h.synchronize()"), "ch2_streams"),
    ],
)
def test_it_is_chosen_by_what_an_engine_does_and_not_by_its_text(chapter, change, name):
    assert nearest(timed(chapter, change)) == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("assert len(batch.rows) < 6", "AssertionError: (line 25: assert len(batch.rows) < 6)"),
        ("while True: pass", "the engine has not come to an end in 0.5 s; it is in line 25: while True: pass"),
    ],
)
def test_an_engine_that_does_not_come_to_its_end_cannot_be_timed(change, message, monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.5)
    with pytest.raises(InputError) as refused:
        timed("ch1", ("        self.slot.write(batch)", f"        {change}\n        self.slot.write(batch)"))
    assert str(refused.value).startswith("the engine cannot be timed: ")
    assert message in str(refused.value)


def test_capturing_a_graph_takes_the_host_as_long_as_launching_what_is_in_it():
    """Before serving that is no part of a step; for every batch of decodes it is."""
    write = (
        "            self.slot.write(batch)                    # all but the token ids that N has not produced yet\n"  # noqa: E501
    )
    capture = """            if rows := batch.decode_size:
                self.slot.pad(rows)
                self.graphs[self.slot, rows] = self.cuda.CUDAGraph()
                with self.cuda.graph(self.graphs[self.slot, rows], stream=self.compute):
                    self.model.carry_over(self.slot, self.other)
                    self.model.forward(self.slot)
"""
    anew, once = timed("ch6", (write, capture + write)), of_chapter("ch6")
    assert nearest(anew) == "ch6_cuda_graphs"
    assert anew.parts.step == pytest.approx(once.parts.step + of_chapter("ch5").typical.law.launching, rel=0.05)


def test_both_looks_of_chapter_11_bring_first_tokens_sooner():
    """And without them it is chapter 5."""
    looks = [f"        yield from self.hand_out()                    # {why}" for why in ("N, if", "or if")]
    one, other = (first_token_lies(changed("ch11", (look, "        #"))) for look in looks)
    neither = first_token_lies(changed("ch11", *((look, "        #") for look in looks)))
    assert first_token_lies(changed("ch11")) < one - 5e-4 < other - 1e-3
    assert other < neither == first_token_lies(changed("ch5"))
    every_batch = first_token_lies(changed("ch11", ("batch.first_tokens and ", "")))
    assert every_batch > one - 1e-4  # retired at the second look, it is launched behind, and not done at the first
