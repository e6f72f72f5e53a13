"""The command `acb idle`."""

import gzip
import json
import os
from pathlib import Path

import pytest
from tape import Tape, asynchronous, sync


def saved(path, tape: Tape, **header):
    path.write_bytes(gzip.compress(json.dumps({**header, "traceEvents": tape.events}).encode()))
    return str(path)


@pytest.fixture
def before(tmp_path):
    return saved(tmp_path / "before.json.gz", sync(8, stream=7))


@pytest.fixture
def after(tmp_path):
    return saved(tmp_path / "after.json.gz", asynchronous(8))


def test_everything_is_written_that_is_asked_for(acb, before, tmp_path):
    files = {name: tmp_path / f"new.{name}" for name in ("json", "svg", "gz")}
    done = acb(
        "idle", before, "--json", str(files["json"]), "--plot", str(files["svg"]), "--annotate", str(files["gz"])
    )
    assert done.returncode == 0, done.stdout
    assert "Synchronous. Each batch is launched after the host has waited" in " ".join(done.stdout.split())
    assert json.loads(files["json"].read_text())[before][0]["verdict"]["kind"] == "synchronous"
    assert files["svg"].read_text().startswith("<?xml")
    assert b"acb_idle" in gzip.decompress(files["gz"].read_bytes())


@pytest.mark.parametrize("option", ["--annotate", "--json"])
@pytest.mark.parametrize("link", ["", "hard", "symbolic"])
def test_a_trace_is_never_written_over(acb, before, tmp_path, option, link):
    target, held = tmp_path / "link.json", Path(before).read_bytes()
    if link == "hard":
        target.hardlink_to(before)
    elif link:
        target.symlink_to(before)
    else:
        target = Path(before)
    done = acb("idle", before, option, str(target))
    assert (done.returncode, Path(before).read_bytes()) == (2, held)
    assert f"{option} {str(target)!r} is a trace that is read: give another file" in done.stderr


def test_a_pipe_is_no_file_to_write(acb, before, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = acb("idle", before, "--annotate", str(tmp_path / "pipe"))
    assert (done.returncode, "not of a pipe or a device" in done.stderr) == (2, True)


@pytest.mark.parametrize(("share", "status"), [("0.6", 1), ("0.61", 0)])
def test_ci_fails_above_a_share(acb, before, share, status):
    assert acb("idle", before, "--fail-above", share).returncode == status


def test_ci_fails_without_a_verdict_too(acb, tmp_path):
    done = acb("idle", saved(tmp_path / "short.json", sync(2)), "--fail-above", "0.9")
    assert done.returncode == 2
    assert "no verdict from the trace of GPU 0: it has 0 steps" in done.stderr


def test_two_traces_are_compared_and_ci_looks_at_the_second(acb, before, after):
    done = acb("idle", before, after, "--fail-above", "0.1")
    assert done.returncode == 0
    assert "Predicted from before" in done.stdout


def test_traces_of_several_ranks_are_shown_each_and_the_slowest_is_named(acb, tmp_path):
    files = [
        saved(tmp_path / f"{rank}.json", sync(8, length=20 + rank), distributedInfo={"rank": rank}) for rank in range(3)
    ]
    done = acb("idle", *files)
    assert done.returncode == 0, done.stdout
    assert "rank 0, GPU 0: " in done.stdout
    assert "Slowest: rank 2, GPU 0" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fail-above", "7"], "--fail-above is 7; it must be from 0 to 1"),
        (["--step-ms", "0"], "--step-ms is 0; it must be above 0"),
        (["--from", "2", "--to", "1"], "--from 2 --to 1 leaves nothing"),
        (["--plot", "picture.txt"], "its name must end in .png"),
        (["--json", "nowhere/x.json"], "cannot write 'nowhere/x.json'"),
    ],
)
def test_options_that_make_no_sense_are_named(acb, before, arguments, says):
    done = acb("idle", before, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_what_goes_with_one_trace_does_not_go_with_two(acb, before, after):
    for arguments in (["--plot", "x.png"], ["--annotate", "x.json"], ["--step-ms", "3"]):
        assert "are for one trace, not for 2" in acb("idle", before, after, *arguments).stderr
    assert "3 traces, and not of different ranks" in acb("idle", before, after, before).stderr
