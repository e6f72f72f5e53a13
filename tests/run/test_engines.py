"""Chapters with something taken away: what is taken, what is left, and what cannot be taken."""

import linecache

import pytest

from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.run.engines import changed, chapter_path, diff, synchronous, without
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice


def source_of(engine_class: type) -> str:
    return "".join(linecache.getlines(engine_class.run.__code__.co_filename))


def test_a_diff_leaves_docstrings_out_and_says_where_a_hunk_begins():
    """A comment is no docstring, and a hunk can be found in both files by its numbers."""
    code = diff("ch4", "ch5")
    assert '"""' not in code
    assert "+        self.downloaded[self.slot].record(self.d2h)" in code
    old, new = (chapter_path(name).read_text().splitlines() for name in ("ch4", "ch5"))
    lines = code.splitlines()
    heads = [place for place, line in enumerate(lines) if line[:2] == "@@"]
    assert len(heads) > 1
    for place in heads:
        _, before, after, _ = lines[place].split()
        assert old[-int(before) - 1] == new[int(after) - 1] == lines[place + 1][1:]


@pytest.mark.parametrize(
    "variant",
    [
        lambda: without("ch3", "self.compute.wait_event", "self.downloaded.record", "self.d2h.wait_event"),
        lambda: changed("ch3", ("        self.compute.wait_event(self.uploaded)        # or", "# or")),
        lambda: changed("ch3", ("self.uploaded.record(self.h2d)\n        self.compute.wait_event", "str")),
    ],
)
def test_a_variant_s_lines_keep_the_chapter_s_numbers(variant):
    chapter = chapter_path("ch3").read_text().splitlines()
    lines = source_of(variant()).splitlines()
    assert len(lines) == len(chapter)
    other = [number for number, pair in enumerate(zip(chapter, lines, strict=True)) if pair[0] != pair[1]]
    assert 1 <= len(other) <= 3
    assert all("self." in chapter[number] for number in other)


def test_a_statement_over_several_lines_leaves_as_many(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SEVERAL.format("b = (\n            2\n        )", ""))
    assert source_of(without(str(file), "b = (")) == SEVERAL.format("pass", "\n\n")


SEVERAL = """
class Engine:
    def run(self):
        a = "ü"; {}; c = 1  # ü{}
        return a
"""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: without("ch1", "self.compute"), "'ch1' has no simple statement that begins with 'self.compute'"),
        (lambda: changed("ch2", ("synchronize", "x")), "'ch2' has 'synchronize' 4 times; a change needs it once"),
        (lambda: without("ch99", "pass"), "unknown chapter 'ch99'"),
        (lambda: without("ch1", "class"), "'ch1' has no simple statement that begins with 'class'"),
        (lambda: synchronous("ch4"), "'ch4' has 'previous, self.in_flight = self.in_flight, None' 0 times; a change"),
    ],
)
def test_what_is_not_there_cannot_be_taken(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("chapter", ["ch5", "ch6"])
def test_a_synchronous_engine_takes_in_a_batch_before_it_schedules_the_next(chapter):
    def ahead(engine_class: type) -> int:
        """How many batches were scheduled before the one in front was taken in."""
        device = SimulatedDevice(Costs.of("counter"), trace=True)
        job = Job([counter.prompt(3, 9), counter.prompt(90, 95)], max_running=2)
        session = Session(job, engine_class, device=device)
        assert [completion.text for completion in session.serve()] == [counter.answer(3, 9), counter.answer(90, 95)]
        ends = {(span.name, span.batch_number): span.end for span in device.trace.lane("CPU")}
        numbers = [number for name, number in ends if name == "update" and ("schedule", number + 1) in ends]
        return sum(ends["schedule", number + 1] < ends["update", number] for number in numbers)

    assert ahead(changed(chapter)) > 3
    assert ahead(synchronous(chapter)) == 0
