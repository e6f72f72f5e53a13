"""What is shown to somebody whose engine has passed."""

import shlex
from dataclasses import replace

import pytest
import typer

from acb_minimal.cli import app
from acb_minimal.course.labs import winnings
from acb_minimal.course.labs.catalog import LABS
from acb_minimal.course.labs.folder import Started, start
from acb_minimal.measure import tables
from acb_minimal.run.engines import chapter_path


@pytest.fixture
def solved(tmp_path):
    """A lab in which the chapter's own engine was put: solved("events")."""

    def make(name: str) -> Started:
        each = start(LABS[name], tmp_path / "my labs" / name)
        each.engine.write_text(chapter_path(each.lab.goal).read_text())
        return each

    return make


@pytest.mark.parametrize(("name", "rows"), [("idle", ["before", "yours"]), ("haste", ["yours"])])
def test_the_step_before_is_shown_where_the_starter_was_in_order(name, rows):
    lab = LABS[name]
    mine = winnings.of_chapter(lab.goal)
    _, _, *bars, waits = winnings.bars(lab, replace(mine, name="yours"))
    assert [str(bar).split()[0] for bar in bars] == [*rows, mine.name]
    assert str(waits) == f"The host waits in a step: {', '.join(f'{row} 1' for row in [*rows, mine.name])}"
    if "before" in rows:
        assert len(str(bars[0])) > len(str(bars[1]))


def test_of_the_chapter_s_own_engine_there_is_no_diff(solved):
    each = solved("slots")
    assert winnings.beside_the_chapter(each) == ""
    each.engine.write_text(each.engine.read_text().replace("self.h2d", "self.up"))
    assert "+++ ch4_dual_slots.py" in winnings.beside_the_chapter(each)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("batch", "--chapter ch1 --chapter '{}' --host-work 4 --graphs"),
        ("carry", "--chapter ch4 --chapter ch5 --chapter '{}' --host-work 4 --graphs"),
        ("loop", "--chapter ch6 --chapter '{}' --host-work 4"),
    ],
)
def test_what_is_measured_on_a_gpu_is_what_its_command_says(name, options, solved, monkeypatch):
    each = solved(name)
    command = winnings.command(each)
    assert command == f"acb compare --workload small {options.format(each.engine)}"

    asked = {}

    def compare(workload, device, chapters, options, progress):
        asked.update(workload=workload.name, device=device, chapters=chapters, options=options)

    monkeypatch.setattr(winnings.compare, "compare", compare)
    monkeypatch.setattr(tables, "entry", lambda *_: {})
    winnings.measured(each, print)
    parsed = {}
    made = typer.main.get_command(app.app).commands["compare"]
    made.callback = lambda **options: parsed.update(options)
    made.main(shlex.split(command)[2:], standalone_mode=False)
    assert asked["device"] == "cuda"
    assert (asked["workload"], asked["chapters"]) == (parsed["workload"], parsed["chapter"])
    assert (1e3 * asked["options"].host_work, asked["options"].graphs) == (parsed["host_work"], parsed["graphs"])
