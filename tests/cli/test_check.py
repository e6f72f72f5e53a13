"""`acb check` and `acb diff`."""

import pytest

from acb_minimal.check import judge
from acb_minimal.measure import result_table
from acb_minimal.run.engines import chapter_paths


def test_check_says_what_a_clean_chapter_was_put_through(acb):
    done = acb("check", "ch2", "--seconds", 300)  # it ends when there are no more schedules
    assert done.returncode == 0, done.stderr
    assert "ch2: no hazard, no wrong token" in done.stdout
    cases, timed = ("pages", "rows", "prefill", "mixed"), "ch2_streams"
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith((*cases, timed))]
    assert [(row[0], row[1:3]) for row in rows] == [*((case, ["all", "1"]) for case in cases), (timed, rows[-1][1:3])]
    assert "line 33: self.compute.synchronize()" in done.stdout


def test_check_shows_the_hazard_its_lines_and_how_to_see_it_again(acb, tmp_path):
    mine = tmp_path / "mine.py"
    source = chapter_paths()["ch5_carry_over"].read_text()
    mine.write_text(source.replace("self.compute.wait_event(self.uploaded)", "pass"))
    done = acb("check", mine)
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert (
        "Hazard: the carry-over of batch 0 reads slot A's inputs; the upload of batch 0 writes them; nothing makes "
        "compute wait for h2d. line 43: self.slot.upload(non_blocking=True)"
    ) in text
    assert "What it can do: batch 0 gave request 0 token" in text
    assert "--replay 4" in text
    again = acb("check", mine, "--replay", 4)
    assert again.returncode == 1
    rows = [line for line in again.stdout.splitlines() if line.startswith("│")]
    assert "the host (schedule, batch 0)" in rows[0]
    assert any("compute" in row and "the forward pass of batch 0" in row for row in rows)
    assert "nothing makes compute wait for h2d" in " ".join(again.stdout.split())


def test_a_file_whose_import_does_not_come_back_is_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.5)
    mine = tmp_path / "mine.py"
    mine.write_text("x = 1\nwhile x: x += 1")
    assert "has not come to an end in 0.5 s; it is in line 2: while x: x += 1" in refused("check", mine)


@pytest.mark.slow
def test_check_takes_lines_away_and_keeps_what_it_found(acb, tmp_path):
    file = tmp_path / "deletions.json"
    done = acb("check", "ch3", "--deletions", "--json", file)
    assert done.returncode == 0, done.stderr
    found = result_table.load(file)["ch3_events"]
    rows = {row[0]: row for row in found.rows}
    assert rows[32][1:] == ["self.compute.wait_event(self.uploaded)", 0, 0, None, 4, None, None]
    with_it, without_it = rows[18][-2:]
    assert with_it == without_it
    assert found.environment["device"] == "simulated H200"
    shown = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {str(line) for line in rows} <= shown


def test_check_keeps_nothing_else(acb, tmp_path):
    file = tmp_path / "deletions.json"
    assert "--json goes with --deletions" in acb("check", "ch3", "--json", file).stderr
    file.write_text("{}")
    assert acb("check", "ch1", "--deletions", "--json", tmp_path).stderr.startswith("error: cannot write")
    file.write_text('{"wide": {}}')
    assert "holds no results of this kind" in acb("check", "ch1", "--deletions", "--json", file).stderr
    assert file.read_text() == '{"wide": {}}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "ch99"), "unknown chapter 'ch99'"),
        (("check", "ch1", "--beside", "ch2", "--deletions"), "--beside does not go with --deletions"),
        (("check", "ch5", "--seconds", 0), "seconds is 0; it must be a number above 0"),
        (("check", "ch5", "--replay", "seven"), "unknown seed 'seven'"),
        (("check", "ch5", "--replay", "7", "--seconds", 100), "--seconds does not go with --replay"),
    ],
)
def test_a_check_that_cannot_be_made_is_one_line(refused, arguments, message):
    assert message in refused(*arguments)


def test_diff_shows_what_a_chapter_changes(acb):
    done = acb("diff", "ch2", "ch3_events")
    assert "--- ch2_streams.py" in done.stdout
    assert "+        self.compute.wait_event(self.uploaded)" in done.stdout
    assert "-        self.compute.synchronize()" in done.stdout
    assert acb("diff", "ch2", "ch99").stderr.startswith("error: unknown chapter 'ch99': give one of ch1_sync, ")
