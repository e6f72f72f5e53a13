"""`acb profile`, `compare` and `results`."""

import json
import re

import pytest
from typer.testing import CliRunner

from acb_minimal.cli import app, measure
from acb_minimal.errors import InputError
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.ranks import Ranks
from acb_minimal.trace.spans import Trace

SMALL = ("--workload", "small", "--requests", "4", "--context", "8", "--new-tokens", "12")


def test_a_profile_prints_a_breakdown_and_writes_trace_and_picture(acb, tmp_path):
    trace, plot = tmp_path / "trace.json", tmp_path / "steps.png"
    done = acb("profile", "ch5", "--requests", 6, "--trace", trace, "--plot", plot)
    assert done.returncode == 0, done.stderr
    bar, row = [line.split() for line in done.stdout.splitlines() if line.startswith("ch5")]
    assert bar[-2:] == [row[1], "ms"]  # of one chapter there is no speedup
    step, *parts = (float(cell.lstrip("<")) for cell in row[1:6])
    assert sum(parts) == pytest.approx(step, abs=0.03)
    lanes = {e["args"]["name"] for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "thread_name"}
    assert lanes == {"CPU", "H2D", "compute", "D2H"}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_compare_puts_all_chapters_side_by_side(acb):
    done = acb("compare", "--requests", 6, "--new-tokens", 16)
    assert done.returncode == 0, done.stderr
    whole = " ".join(done.stdout.split())
    assert "demo on simulated H200: counter, 6 requests, 16 at a time, each request timed as 24 of" in whole
    assert "8.8 ms of host work added to every step" in whole
    lines = [line for line in done.stdout.splitlines() if line.startswith(tuple(chapter_paths()))]
    bars, rows = lines[:6], lines[6:]
    assert [line.split()[0] for line in bars] == [line.split()[0] for line in rows] == list(chapter_paths())
    assert all(line.split()[-1] == "yes" for line in rows)
    for line, row in zip(bars, rows, strict=True):
        *_, step, _, speedup = line.split()
        assert [step, speedup.removesuffix("x")] == [row.split()[number] for number in (1, 6)]
    assert max(map(len, lines)) <= 80
    law = re.search(r"= ([\d.]+) ms, an asynchronous .*: a speedup of (\d.\d\d)", whole)
    first, *_, fifth, _ = (line.split() for line in rows)
    assert float(law[1]) == pytest.approx(float(first[1]), abs=0.011)
    assert float(law[2]) == pytest.approx(float(fifth[6]), rel=0.01)
    assert done.stdout.count(" -> ") == 5


def test_results_are_stored_and_shown_again(acb, tmp_path):
    file, plot = tmp_path / "results.json", tmp_path / "results.svg"
    options = ("--workload", "small", "--requests", 2, "--context", 8, "--new-tokens", 9, "--chapter", "ch1")
    options += ("--chapter", "ch6", "--batches", 5, "--json", file, "--traces", tmp_path)
    live = acb("compare", *options)
    assert live.returncode == 0, live.stderr
    again = acb("results", file, "--plot", plot)
    assert again.returncode == 0, again.stderr
    title, *table, wrote = again.stdout.strip().splitlines()
    assert "\n".join(table) in live.stdout
    assert title.startswith("small on simulated H200: llama-3.2-1b, 2 requests, 128 at a time (20")
    assert wrote == f"wrote {tmp_path / 'results-small.svg'}"
    assert "ch6_cuda_graphs" in again.stdout
    assert (tmp_path / "results-small.svg").is_file()
    (entry,) = json.loads(file.read_text()).values()
    assert entry["command"] == f"acb compare {' '.join(map(str, options))}"
    chrome = json.loads((tmp_path / "small-ch6_cuda_graphs.json").read_text())
    assert chrome["otherData"]["command"] == entry["command"]
    assert len(Trace.of_chrome(chrome).batches()) == 5


def test_a_model_that_was_not_calibrated_is_timed_as_the_nearest(acb):
    small = ("--workload", "small", "--requests", 2, "--context", 8, "--new-tokens", 2)
    done = acb("compare", *small, "--model", "qwen3-8b")
    assert "on simulated H200, timed as llama-3.1-8b" in done.stdout


def test_compare_does_not_write_over_what_holds_no_results_nor_serve_anything_before(acb, tmp_path, monkeypatch):
    monkeypatch.delattr("acb_minimal.run.session.Session.serve")
    file = tmp_path / "thesis.json"
    file.write_text("[]")
    assert "holds no results" in acb("compare", "--json", file).stderr
    assert file.read_text() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profile", "ch1", "--trace", "/no/such/folder/x.json"), "cannot write '/no/such/folder/x.json'"),
        (("profile", "ch1", "--device", "cpu"), "there is no profile of device 'cpu'"),
        (("compare", "--traces", "/no/such"), "cannot write into '/no/such': --traces takes a folder"),
        (("profile", "ch1", "--plot", "steps.txt"), "cannot draw 'steps.txt': its name must end in .png, .svg or .pdf"),
        (("profile", "ch1", "--kernels", "k.json"), "cannot write 'k.json': there are kernels on a CUDA GPU only"),
        (("compare", "--runs", 2), "runs is 2; it must be an odd number"),
        (("compare", "--json", "."), "cannot write '.': --json takes the path of a file in a folder that exists"),
        (("results", "no/such/file.json"), "cannot read results from 'no/such/file.json'"),
        (("profile", "ch1", "--host-work", "nan"), "it must be from 0 to 10,000 ms"),
        (("profile", "ch1", *SMALL, "--graphs", "--launching", 3), "launching is 3 ms, kernel by kernel; graphs take"),
    ],
)
def test_what_cannot_be_measured_or_written_is_one_line(refused, arguments, message):
    assert message in refused(*arguments)


def test_dials_are_turned_for_every_chapter_and_named(acb):
    chapters = ("--chapter", "ch1", "--chapter", "ch5")
    done = acb("compare", *SMALL, *chapters, "--host-work", 2, "--graphs")
    assert done.returncode == 0, done.stderr
    whole = " ".join(done.stdout.split())
    assert "2 ms of host work added to every step, decodes launched as graphs by the model" in whole
    rows = (line.split() for line in done.stdout.splitlines() if line.endswith("yes"))
    bubbles = {row[0]: float(row[5].lstrip("<")) for row in rows}
    assert bubbles["ch1_sync"] > 2
    assert bubbles["ch5_carry_over"] < 0.5 * bubbles["ch1_sync"]


@pytest.mark.parametrize("command", [("profile", "ch1"), ("run", "ch1")])
def test_the_simulated_host_launches_in_as_long_as_it_is_told(command):
    done = CliRunner().invoke(app.app, [*command, *SMALL, "--device", "sim", "--launching", "60"])
    assert done.exit_code == 0, done.output
    assert "decodes launched in 60 ms" in " ".join(done.output.split())
    assert re.search(r" 60\.\d\d\b", done.output)  # the step, whose kernels take 2 ms


def test_ranks_cannot_agree_on_a_run(monkeypatch):
    monkeypatch.setattr(measure, "start_ranks", lambda *arguments: Ranks(0, 2, 0, timeout=1.0))
    done = CliRunner().invoke(app.app, ["compare", "--runs", "3"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("runs is 3; with several GPUs it must be 1")


def test_compare_takes_sampling(acb):
    asked = ["--chapter", "ch8", "--requests", 3, "--sampling", "temperature=0.5", "--sampling", "top_k=5"]
    done = acb("compare", *asked)
    assert done.returncode == 0, done.stderr
    assert "sampled with temperature 0.5, top k 5" in " ".join(done.stdout.split())
    for wrong, said in (
        ("heat=1", "--sampling heat=1: it takes temperature, top_k, top_p, seed"),
        ("seed", "--sampling seed: it takes NAME=VALUE, as in temperature=0.8"),
    ):
        assert acb("compare", "--sampling", wrong).stderr.startswith(f"error: {said}")


def test_compare_says_what_those_waited_who_arrived(acb, tmp_path):
    file = tmp_path / "results.json"
    options = ("--rate", 200, "--tpot-ms", 50, "--chapter", "ch1", "--chapter", "ch5", "--json", file)
    live = acb("compare", *SMALL, *options)
    assert live.returncode == 0, live.stderr
    assert "200 requests a second arrive, seed 0" in " ".join(live.stdout.split())
    assert all(name in live.stdout for name in ("TTFT", "TPOT", "ITL", "E2EL", "goodput", "tokens"))
    (entry,) = json.loads(file.read_text()).values()
    assert all(row["latency"]["ttft"]["median"] > 0 for row in entry["chapters"])
    assert "TTFT" in acb("results", file).stdout
