"""The labs as texts: starters, solutions, hints, and what is counted as a change."""

import ast

import pytest

from acb_minimal.course.labs.catalog import BUILDERS, HUNTS, LABS, find, following
from acb_minimal.course.labs.lab import FOLDERS, changed_lines, code, edited, statements
from acb_minimal.errors import InputError
from acb_minimal.run.engines import CHAPTERS, chapter_path, chapter_paths

PACKAGE = CHAPTERS.parent / "acb_minimal" / "course" / "labs"
each_lab = pytest.mark.parametrize("lab", LABS.values(), ids=LABS)


def test_every_file_of_a_lab_is_one():
    for kind, names in (("build", BUILDERS), ("hunt", HUNTS)):
        assert sorted(names) == sorted(file.stem for file in (PACKAGE / FOLDERS[kind]).glob("*.toml"))


def test_builders_lead_from_the_first_chapter_to_the_last():
    goals = [f"ch{number}" for number in range(1, len(chapter_paths()) + 1)]
    assert [LABS[name].goal for name in BUILDERS] == goals
    assert [LABS[name].start for name in BUILDERS[1:]] == goals[:-1]
    for name in BUILDERS[1:]:
        assert code(LABS[name].starter) == code(chapter_path(LABS[name].start).read_text())


@each_lab
def test_a_starter_is_a_file_with_the_task_and_no_more(lab):
    docstring = ast.get_docstring(ast.parse(lab.starter))
    assert lab.title.lower() in docstring.splitlines()[0].lower()
    assert lab.task in " ".join(docstring.split())
    assert max(map(len, lab.starter.splitlines())) <= 120
    assert "\n\n\n\n" not in lab.starter
    assert len(lab.task.split(". ")) <= 6


@each_lab
def test_a_starter_does_not_hold_the_answer(lab):
    come = set(statements(lab.solution)) - set(statements(lab.starter))
    assert come or lab.name in ("haste", "late")  # whose line is there, in the wrong place
    docstring = ast.get_docstring(ast.parse(lab.starter))
    told = [line.strip() for line in come if line.strip() in docstring]
    assert told in ([], ["slot.pad(rows)"])  # which nobody could know of
    if lab.kind == "hunt":
        assert lab.found.lower() not in lab.starter.lower()
        assert not [word for word in ("bug", "wrong", "broken", "TODO", "FIXME") if word in code(lab.starter)]


@each_lab
def test_hints_lead_from_a_question_to_nearly_the_line(lab):
    assert 3 <= len(lab.hints) <= 4
    assert lab.hints[0].endswith("?")
    come = [line.strip() for line in set(statements(lab.solution)) - set(statements(lab.starter))]
    assert not [line for line in come if line in lab.hints[0]]
    assert "self." not in lab.hints[0]
    assert "`" in lab.hints[-1]


@each_lab
def test_a_solution_changes_no_more_than_the_chapter_would(lab):
    chapter = chapter_path(lab.goal).read_text()
    assert 0 < changed_lines(lab.starter, lab.solution) <= max(changed_lines(lab.starter, chapter), 1)


@pytest.mark.parametrize("name", HUNTS)
def test_a_hunt_is_for_one_small_bug_and_names_where_it_was_seen(name):
    lab = LABS[name]
    assert changed_lines(lab.starter, lab.solution) <= 7
    assert lab.found
    assert lab.threads
    assert all(link.startswith("https://github.com/") and link.split("/")[-1].isdecimal() for link in lab.links)


def test_a_line_that_was_moved_counts_once():
    old = '"""Told."""\n\na = 1\nb = 2  # why\nc = 3\n'
    assert changed_lines(old, '"""Else."""\n\nb = 2\nc = 3\na = 1\n') == 1
    assert changed_lines(old, old.replace("# why", "# and why not\n\n")) == 0
    assert changed_lines(old, old.replace("b = 2", "b = 3")) == 1


def test_what_is_not_python_can_be_counted_too():
    assert changed_lines("a = 1\n", "a = (\n") == 1


def test_a_change_needs_its_place_once():
    with pytest.raises(ValueError, match="'a' is there 2 times"):
        edited("a a", (("a", "b"),))


def test_labs_follow_one_another():
    names = list(LABS)
    assert [following(LABS[name]).name for name in names[:-1]] == names[1:]
    assert following(LABS[names[-1]]) is None


def test_an_unknown_lab_is_told_which_there_are():
    with pytest.raises(InputError, match="unknown lab 'evnets': the labs are batch, streams, events, "):
        find("evnets")
