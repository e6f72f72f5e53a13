"""Started labs: progress survives, and nothing that a learner wrote is lost."""

import json

import pytest

from acb_minimal.course.labs import started, telling
from acb_minimal.course.labs.lab import LABS
from acb_minimal.course.labs.started import Started, following, furthest, next_after, open_lab, start
from acb_minimal.errors import InputError
from acb_minimal.run.engines import engine


@pytest.fixture
def events(tmp_path, monkeypatch) -> Started:
    """The lab `events`, begun in the folder in which one is."""
    monkeypatch.chdir(tmp_path)
    return start(LABS["events"], tmp_path / "events")


def test_a_started_lab_is_a_folder_with_an_engine_that_can_be_loaded(events):
    assert sorted(path.name for path in events.folder.iterdir()) == ["engine.py", "lab.json"]
    assert events.engine.read_text() == LABS["events"].starter
    assert callable(engine(events.engine.read_text(), "it").run)


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_is_not_written_into(there, tmp_path):
    place = tmp_path / "mine"
    {"folder": place.mkdir, "file": place.touch, "link": lambda: place.symlink_to("nowhere")}[there]()
    with pytest.raises(InputError, match="'.*mine' is there already"):
        start(LABS["events"], place)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write '.*/file/events': Not a directory"):
        start(LABS["events"], tmp_path / "file" / "events")


def test_progress_survives(events):
    events.checked("nothing makes compute wait for h2d", False)
    events.checked("nothing makes compute wait for h2d", False)
    events.hint()
    again = Started(events.folder).progress
    assert (again.checks, again.hints, again.same, again.said) == (2, 1, 2, "nothing makes compute wait for h2d")
    assert not again.solved
    events.checked("solved", True)
    solved = Started(events.folder).progress
    assert (solved.checks, solved.same) == (3, 1)
    events.checked("nothing makes compute wait for h2d", False)
    assert Started(events.folder).progress.solved == solved.solved != ""


def test_hints_come_one_by_one_and_end(events):
    given = [Started(events.folder).hint() for _ in range(len(LABS["events"].hints) + 1)]
    assert [len(hints) for hints in given] == [1, 2, 3, 4, 4]
    assert given[-1] == list(LABS["events"].hints)


def test_a_reset_keeps_what_was_written_every_time(events):
    assert events.reset() is None
    for number in (1, 2):
        events.engine.write_text(f"mine {number}")
        events.hint()
        assert events.reset() == events.folder / f"engine.{number}.py"
        assert events.engine.read_text() == LABS["events"].starter
    assert [(events.folder / f"engine.{number}.py").read_text() for number in (1, 2)] == ["mine 1", "mine 2"]
    assert Started(events.folder).progress.hints == 2
    events.engine.unlink()
    assert events.reset() is None
    assert events.engine.read_text() == LABS["events"].starter


def test_a_lab_is_found_by_folder_and_from_inside(events, monkeypatch):
    for where in ("events", "./events", "events/engine.py", str(events.folder)):
        assert open_lab(where).lab is LABS["events"]
    monkeypatch.chdir(events.folder)
    for where in (".", "engine.py"):
        assert open_lab(where).engine.resolve() == events.engine


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("slots", "lab 'slots' is not started here: acb lab start slots, or give its folder"),
        ("nothing", "no lab 'nothing': give the folder of a started lab, or one of batch, streams"),
        (".", "'.' is not the folder of a lab: it has no lab.json; start one with acb lab start NAME"),
    ],
)
def test_a_lab_that_is_not_there_is_one_line(where, said, events):
    with pytest.raises(InputError) as refused:
        open_lab(where)
    assert str(refused.value).startswith(said)


def test_what_is_copied_is_solved_once_it_is_one_s_own(events):
    events.checked("solved", True, copied=True, bubble=0.2)
    assert events.progress.copied
    assert events.progress.solved
    events.checked("solved", True, bubble=0.1)
    events.checked("solved", True, copied=True)
    assert not Started(events.folder).progress.copied
    assert events.progress.bubbles == [0.2, 0.1]


def test_next_is_what_is_not_solved(events, tmp_path):
    names = list(LABS)
    assert following({}).name == names[0]
    assert [following({}, name).name for name in names] == [*names[1:], names[0]]
    place = names.index("events")
    for name in [*names[place + 2 :], *names[1:place]]:
        start(LABS[name], tmp_path / name).checked("solved", True)
    assert next_after(events).name == names[place + 1]
    start(LABS[names[place + 1]], tmp_path / "another").checked("solved", True)
    assert next_after(events).name == names[0]
    start(LABS[names[0]], tmp_path / names[0]).checked("solved", True)
    assert next_after(events) is LABS["events"]
    events.checked("solved", True)
    assert next_after(events) is following(furthest(tmp_path)) is None


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"lab": "events"}', "null"])
def test_progress_that_cannot_be_read_is_one_line(kept, events):
    (events.folder / "lab.json").write_text(kept)
    with pytest.raises(InputError, match="cannot read '.*lab.json': "):
        Started(events.folder)
    assert furthest(events.folder.parent) == {}


def test_progress_in_a_lab_that_is_no_more_is_one_line(events):
    kept = json.loads((events.folder / "lab.json").read_text())
    (events.folder / "lab.json").write_text(json.dumps(kept | {"lab": "threads"}))
    with pytest.raises(InputError, match="unknown lab 'threads'"):
        Started(events.folder)


def test_of_a_lab_that_was_started_twice_the_better_counts(tmp_path):
    first, second = (start(LABS["events"], tmp_path / name) for name in ("a", "b"))
    first.checked("solved", True)
    second.checked("nothing makes compute wait for h2d", False)
    assert furthest(tmp_path)["events"].folder == first.folder
    assert furthest(first.folder)["events"].folder == first.folder


def test_who_is_told_the_same_again_and_again_is_told_of_hints_while_there_are_some(events):
    for _ in range(2):
        events.checked("nothing makes compute wait for h2d", False)
        assert telling.stuck(events) == ""
    events.checked("nothing makes compute wait for h2d", False)
    advice = "That is the same 3 times in a row. A hint:"
    assert telling.stuck(events) == advice
    while len(events.hint()) < len(events.lab.hints):
        assert telling.stuck(events) == advice
    assert telling.stuck(events) == ""


def test_the_progress_is_never_half_written(events, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    before = (events.folder / "lab.json").read_text()
    monkeypatch.setattr(started.Path, "write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        events.hint()
    assert (events.folder / "lab.json").read_text() == before
