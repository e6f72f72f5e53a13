"""The labs as texts: starters, solutions, hints, and what is counted as a change."""

import ast

import pytest

from acb_minimal.course.labs.lab import (
    BUILDERS,
    FOLDER,
    HUNTS,
    LABS,
    changed_lines,
    difference,
    edited,
    find,
)
from acb_minimal.errors import InputError
from acb_minimal.run.engines import chapter_path, chapter_paths, code_lines, engine

each_lab = pytest.mark.parametrize("lab", LABS.values(), ids=LABS)


def statements(source: str) -> list[str]:
    return list(code_lines(source, comments=False).values())


def code(source: str) -> list[str]:
    return list(code_lines(source, inner=False).values())


def test_every_folder_is_a_lab():
    assert sorted(BUILDERS + HUNTS) == sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
    assert {name for name, lab in LABS.items() if lab.kind == "hunt"} == set(HUNTS)


def test_builders_lead_from_the_first_chapter_to_the_last():
    beside = (
        "marks",
        "swap",
        "ahead",
        "masks",
        "held",
        "counts",
        "halves",
        "berths",
        "place",
    )
    beside += "truth", "reserve", "ready", "glance"
    long = [LABS[name] for name in BUILDERS if name not in beside]
    goals = list(chapter_paths())
    assert [chapter_path(lab.goal).stem for lab in long] == goals
    assert [chapter_path(lab.start).stem for lab in long[1:]] == goals[:-1]
    for lab in long[1:]:
        assert code(lab.starter) == code(chapter_path(lab.start).read_text())
        assert lab.solution == chapter_path(lab.goal).read_text()


@each_lab
def test_a_starter_is_a_file_with_the_task_and_no_more(lab):
    docstring = ast.get_docstring(ast.parse(lab.starter))
    head = "Lab" if lab.kind == "build" else "Bug hunt"
    assert docstring.startswith(f"{head} {lab.name}: {lab.title[0].lower()}{lab.title[1:]}.\n\n")
    assert docstring.endswith("acb lab reset            starts anew, and keeps what was here")
    assert "as fast as chapter" in lab.task or lab.kind == "build"
    assert 2 <= len(lab.task.split(". ")) <= 6
    assert max(map(len, lab.starter.splitlines())) <= 120
    assert callable(engine(lab.starter, "it").run)


@each_lab
def test_a_starter_does_not_hold_the_answer(lab):
    come = set(statements(lab.solution)) - set(statements(lab.starter))
    there = "haste", "late", "idle", "early", "held", "blank", "squared", "hurry", "behind", "gone"  # it is, elsewhere
    assert come or lab.name in there
    docstring = ast.get_docstring(ast.parse(lab.starter))
    told = [line.strip() for line in come if line.strip() in docstring]
    assert told in ([], ["slot.pad(rows)"])  # which nobody could know of
    if lab.kind == "hunt":
        assert lab.found.lower() not in lab.starter.lower()
        assert not [word for word in ("bug", "wrong", "broken", "TODO", "FIXME") if word in "".join(code(lab.starter))]


@each_lab
def test_hints_lead_from_a_question_to_nearly_the_line(lab):
    assert 3 <= len(lab.hints) <= 4
    assert lab.hints[0].endswith("?")
    come = [line.strip() for line in set(statements(lab.solution)) - set(statements(lab.starter))]
    assert not [line for line in come if line in lab.hints[0]]
    assert "self." not in lab.hints[0]
    assert "`" in lab.hints[-1]


@pytest.mark.parametrize("name", HUNTS)
def test_a_hunt_is_for_one_small_bug_and_names_where_it_was_seen(name):
    """What is told as the smallest fix known is no larger than any other that is known."""
    lab = LABS[name]
    smallest = changed_lines(lab.starter, lab.solution)
    assert smallest == {"lucky": 2, "loop": 2}.get(name, 1)
    others = [way.source for way in lab.others if way.source] + [chapter_path(lab.goal).read_text()]
    assert smallest <= min(changed_lines(lab.starter, source) for source in others)
    assert lab.found
    assert lab.threads
    assert all(link.startswith("https://github.com/") and link.split("/")[-1].isdecimal() for link in lab.links)


@each_lab
def test_a_copy_of_ours_is_known_and_work_of_one_s_own_is_not(lab):
    assert lab.copied(lab.solution)
    if lab.goal:
        assert lab.copied(chapter_path(lab.goal).read_text())
    assert not lab.copied(lab.starter)
    assert not lab.copied("\n".join(statements(lab.solution)))  # nobody writes our comments


def test_a_copy_below_the_task_is_known_by_its_comments():
    lab = LABS["slots"]
    docstring = lab.starter[: lab.starter.index('"""', 3) + 3]
    assert lab.copied("\n".join([docstring, *code(lab.solution)]))


def test_a_line_that_was_moved_counts_once():
    old = '"""Told."""\n\na = 1\nb = 2  # why\nc = 3\n'
    assert changed_lines(old, '"""Else."""\n\nb = 2\nc = 3\na = 1\n') == 1
    assert changed_lines(old, old.replace("# why", "# and why not\n\n")) == 0
    assert changed_lines(old, old.replace("b = 2", "b = 3")) == 1


def test_a_diff_tells_neither_names_nor_comments():
    theirs = LABS["slots"].solution
    renamed = theirs.replace("h2d", "up").replace("in_flight", "busy").replace("# ", "# so ")
    assert difference(renamed, theirs) == ""
    assert "+            self.slot.fill()" in difference(renamed.replace("self.slot.fill()", "pass"), theirs)
    one_name = theirs.replace("h2d", "stream").replace("d2h", "stream")
    assert "self.stream" in difference(one_name, theirs)  # that is no mere renaming


def test_a_change_needs_its_place_once():
    with pytest.raises(ValueError, match="'a' is there 2 times"):
        edited("a a", [("a", "b")])


def test_an_unknown_lab_is_told_which_there_are():
    with pytest.raises(InputError, match="unknown lab 'evnets': the labs are batch, streams, events, "):
        find("evnets")
