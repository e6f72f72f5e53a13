"""The `acb` command, called as its entry point calls it; in a process of its own where that matters."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch

from acb_minimal.cli import app
from acb_minimal.measure import record as measured
from acb_minimal.models import counter
from acb_minimal.run.engines import chapter_paths
from acb_minimal.trace.spans import Trace


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def acb(monkeypatch, capsys):
    """Runs the command on a machine without CUDA: acb("run", "ch1") -> Done."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(app.console, "_width", 120)
    monkeypatch.setattr(app.console, "_height", 50)

    def run(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["acb", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            app.main()
        return Done(exit.value.code or 0, *capsys.readouterr())

    return run


def process(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from acb_minimal.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


def test_prompts_are_answered_and_a_table_ends_the_run():
    """In a process: nothing but the answers may reach stdout, and nothing at all stderr."""
    done = process("run", "ch1_sync", "--prompt", "count 3 to 7", "--prompt", "count 998 to 999")
    assert done.returncode == 0, done.stderr
    assert "count 3 to 7 -> 3 4 5 6 7\n" in done.stdout
    assert "count 998 to 999 -> 998 999\n" in done.stdout
    for row in ("requests", "new tokens", "seconds", "new tokens/s", "ms per step", "$ per million new tokens"):
        assert row in done.stdout
    assert done.stderr == ""  # no progress bar and no noise where there is no terminal


def test_a_bad_prompt_among_good_ones(acb):
    done = acb("run", "ch1", "--prompt", "count 3 to 4", "--prompt", "count bananas", "--prompt", "")
    assert done.returncode == 1
    assert "count 3 to 4 -> 3 4\n" in done.stdout
    assert done.stderr.splitlines() == [
        "refused: request '1': prompt 'count bananas': model 'counter' does not know 'bananas'",
        "refused: request '2': the prompt is empty; it needs at least one token",
    ]


def test_demo_answers_every_request_and_writes_json(acb, tmp_path):
    file = tmp_path / "run.json"
    done = acb("run", "ch1", "--workload", "demo", "--requests", 9, "--json", file, "--gpu-hour-price", 2)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert record["chapter"] == "ch1"
    assert record["figures"]["requests"] == len(record["completions"]) == 9
    assert record["environment"].keys() >= {"device", "date", "torch", "transformers", "python"}
    rate = record["figures"]["tokens_per_second"]
    assert record["figures"]["usd_per_million"] == pytest.approx(2 / 3600 / rate * 1e6)
    for completion in record["completions"]:
        numbers = [int(word) for word in completion["text"].split()]
        assert completion["text"] == counter.answer(numbers[0], numbers[-1])


def test_a_workload_of_token_ids_runs_with_every_override(acb):
    done = acb(
        "run", "ch1", "--workload", "small", "--model", "counter", "--requests", 3, "--context", 20,
        "--new-tokens", 5, "--max-running", 2, "--page-size", 8, "--pages", 20, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "15" in done.stdout  # 3 requests of exactly 5 new tokens: stop tokens are ignored


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ch0",), "unknown chapter 'ch0': give one of ch1_sync"),
        (("ch1", "--workload", "huge"), "unknown workload 'huge': the workloads are demo, long, wide, small, headline"),
        (("ch1", "--model", "nope"), "unknown model 'nope': not one of counter, llama-3.1-8b"),
        (("ch1", "--device", "tpu"), "unknown device 'tpu': the devices are auto, cuda, sim, cpu"),
        (("ch1", "--device", "cuda"), "device 'cuda' is not available here: torch finds no CUDA GPU; use sim"),
        (("ch1", "--requests", "0"), "requests is 0; it must be at least 1"),
        (("ch1", "--context", "9"), "workload 'demo' has prompts of text: a context length does not apply to it"),
        (("ch1", "--max-running", "0"), "max_running is 0; it must be at least 1"),
        (("ch1", "--page-size", "-4"), "page size is -4; it must be at least 1"),
        (("ch1", "--pages", "0"), "the page pool has 0 pages; it needs at least 1"),
        (("ch1", "--gpu-hour-price", "0"), "gpu hour price is 0; it must be above 0"),
        (("ch1", "--prompt", "count 1 to 2", "--workload", "demo"), "--workload demo does not go with --prompt"),
        (("ch1", "--json", "/no/such/folder/x.json"), "cannot write '/no/such/folder/x.json'"),
        (("ch1", "--prompt", "hi", "--model", "llama-3.2-1b"), "has random weights and no tokenizer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(acb, arguments, message):
    done = acb("run", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_all_requests_refused(acb):
    done = acb("run", "ch1", "--new-tokens", "0")
    assert done.returncode == 2
    assert "request '0': max_new_tokens is 0; it must be at least 1" in done.stderr
    assert done.stderr.splitlines()[-1] == "refused: 43 more"
    assert done.stdout == ""


def test_an_error_in_an_engine_is_one_line_that_says_where(acb, tmp_path, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "class Engine:\n"
        "    def __init__(self, model, scheduler, cuda):\n"
        "        pass\n"
        "    def run(self):\n"
        "        yield 1 // 0\n"
    )
    done = acb("run", mine, "--prompt", "count 1 to 2")
    assert done.returncode == 1
    assert done.stderr == f"error: ZeroDivisionError: integer division or modulo by zero ({mine}:5)\n"
    monkeypatch.setenv("ACB_TRACEBACK", "1")
    assert "Traceback" in acb("run", mine, "--prompt", "count 1 to 2").stderr


@pytest.mark.parametrize("chapter", chapter_paths())
@pytest.mark.parametrize("device", ["sim", "cpu"])
def test_every_chapter_runs_without_a_gpu(acb, chapter, device):
    done = acb("run", chapter, "--device", device, "--prompt", "count 3 to 7")
    assert done.returncode == 0, done.stderr
    assert "count 3 to 7 -> 3 4 5 6 7\n" in done.stdout
    assert ("simulated H200" in done.stdout) == (device == "sim")


def test_a_profile_prints_a_breakdown_and_writes_trace_and_picture(acb, tmp_path):
    trace, plot = tmp_path / "trace.json", tmp_path / "steps.png"
    done = acb("profile", "ch5", "--requests", 6, "--trace", trace, "--plot", plot)
    assert done.returncode == 0, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("ch5")]
    decode, *parts = map(float, row[1:5])
    assert sum(parts) == pytest.approx(decode, abs=0.02)
    lanes = {e["args"]["name"] for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "thread_name"}
    assert lanes == {"CPU", "H2D", "compute", "D2H"}
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profile", "ch1", "--trace", "/no/such/folder/x.json"), "cannot write '/no/such/folder/x.json'"),
        (("profile", "ch1", "--device", "cpu"), "there is no profile of device 'cpu'"),
        (("profile", "ch1", "--plot", "steps.txt"), "cannot draw 'steps.txt': its name must end in .png, .svg or .pdf"),
        (("profile", "ch1", "--kernels", "k.json"), "cannot write 'k.json': there are kernels on a CUDA GPU only"),
        (("compare", "--plot", "/no/such/folder/x.png"), "cannot write '/no/such/folder/x.png'"),
        (("compare", "--chapter", "ch9"), "unknown chapter 'ch9'"),
        (("results", "no/such/file.json"), "cannot read results from 'no/such/file.json'"),
        (("idle", "no/such/trace.json"), "no/such/trace.json"),
    ],
)
def test_what_cannot_be_measured_or_written_is_one_line(acb, arguments, message):
    done = acb(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_compare_puts_all_chapters_side_by_side(acb):
    done = acb("compare", "--requests", 6)
    assert done.returncode == 0, done.stderr
    assert "demo (counter) on simulated H200" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("ch")]
    assert [row[0] for row in rows[1:]] == list(chapter_paths())  # the first is the head of the table
    assert all(row[-1] == "yes" for row in rows[1:])
    answers = [line for line in done.stdout.splitlines() if " -> " in line]
    assert len(answers) == 5


def test_results_are_stored_and_shown_again(acb, tmp_path):
    file, plot = tmp_path / "results.json", tmp_path / "results.svg"
    options = ("--workload", "small", "--requests", 2, "--context", 8, "--new-tokens", 9, "--chapter", "ch1")
    options += ("--chapter", "ch6", "--json", file, "--traces", tmp_path)
    live = acb("compare", *options)
    assert live.returncode == 0, live.stderr
    again = acb("results", file, "--plot", plot)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() in live.stdout
    assert "ch6_cuda_graphs" in again.stdout
    assert (tmp_path / "results-small.svg").is_file()
    (entry,) = json.loads(file.read_text()).values()
    assert entry["command"] == f"acb compare {' '.join(map(str, options))}"
    chrome = json.loads((tmp_path / "small-ch6_cuda_graphs.json").read_text())
    assert chrome["otherData"]["command"] == entry["command"]
    assert len(Trace.of_chrome(chrome).batches()) == 6


def test_compare_does_not_write_over_what_holds_no_results(acb, tmp_path):
    file = tmp_path / "thesis.json"
    file.write_text("[]")
    assert "holds no results" in acb("compare", "--json", file).stderr
    assert file.read_text() == "[]"


def test_the_headline_run_stands_beside_the_published_one(acb, tmp_path):
    file = tmp_path / "results.json"
    small = ("--requests", 2, "--context", 8, "--new-tokens", 4)
    assert acb("compare", "--workload", "headline", *small, "--json", file).returncode == 0
    shown = acb("results", file).stdout
    assert "300.6" in shown
    assert "76.0%" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--new-tokens", 0), "request '0': max_new_tokens is 0; it must be at least 1"),
        (("--workload", "long", "--context", 200_000), "are past the model's 131072 positions"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_compare_refuses_what_it_cannot_serve(acb, arguments, message):
    done = acb("compare", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_compare_says_that_large_models_are_only_timed(acb):
    done = acb("compare", "--workload", "small", "--requests", 4, "--context", 8, "--new-tokens", 4)
    assert "small (llama-3.2-1b) on simulated H200" in done.stdout
    assert "The simulator only keeps time for this model: its tokens are placeholders." in done.stdout


def test_a_model_that_was_not_calibrated_is_timed_as_the_nearest(acb):
    small = ("--workload", "small", "--requests", 2, "--context", 8, "--new-tokens", 2)
    done = acb("compare", *small, "--model", "qwen3-8b")
    assert "on simulated H200, timed as llama-3.1-8b" in done.stdout


def test_diff_shows_what_a_chapter_changes(acb):
    done = acb("diff", "ch2", "ch3_events")
    assert "--- ch2_streams.py" in done.stdout
    assert "+        self.compute.wait_event(self.uploaded)" in done.stdout
    assert "-        self.compute.synchronize()" in done.stdout
    assert acb("diff", "ch2", "ch7").stderr.startswith("error: unknown chapter 'ch7': give one of ch1_sync, ")


def test_calibrate_needs_a_gpu(acb):
    assert acb("calibrate").stderr == "error: calibration needs a CUDA GPU; torch finds none\n"


def test_help_does_not_wait_for_torch(acb):
    code = "import sys, acb_minimal.cli.app; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "Serve prompts" in acb("--help").stdout


def test_bench_host_prints_every_size(acb):
    done = acb("bench", "host")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8,192") == done.stdout.count("256") == 3


def test_bench_attention_needs_a_gpu(acb):
    done = acb("bench", "attention")
    assert done.returncode == 2
    assert done.stderr == "error: the attention benchmark needs a CUDA GPU; torch finds none\n"


def test_check_says_what_a_clean_chapter_was_put_through(acb):
    done = acb("check", "ch2", "--schedules", 12)
    assert done.returncode == 0, done.stderr
    assert "ch2: no hazard, no wrong token" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("│")]
    assert [(row[1], row[3:5]) for row in rows] == [
        (case, ["all", "1"]) for case in ("pages", "rows", "prefill", "mixed")
    ]


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
    assert "--replay 0" in text
    again = acb("run", mine, "--replay", 0)
    assert again.returncode == 1
    rows = [line for line in again.stdout.splitlines() if line.startswith("│")]
    assert "the host (schedule, batch 0)" in rows[0]
    assert any("compute" in row and "the forward pass of batch 0" in row for row in rows)
    assert "nothing makes compute wait for h2d" in " ".join(again.stdout.split())


def test_replay_of_a_clean_schedule(acb):
    done = acb("run", "ch3", "--replay", "rows:1.0.1")
    assert done.returncode == 0
    assert "ch3, seed rows:1.0.1: in order of completion" in done.stdout


def test_check_takes_lines_away_and_keeps_what_it_found(acb, tmp_path):
    file = tmp_path / "deletions.json"
    done = acb("check", "ch3", "--deletions", "--json", file)
    assert done.returncode == 0, done.stderr
    found = measured.load(file)["ch3_events"]
    rows = {row[0]: row for row in found.rows}
    assert rows[32][1:] == ["self.compute.wait_event(self.uploaded)", "batch 0", "batch 0, seed 4", None]
    assert rows[18][-1] == "as before"
    assert found.environment["device"] == "simulated H200"
    assert all(row[1].split(".")[0] in done.stdout for row in found.rows)


def test_check_keeps_nothing_else(acb, tmp_path):
    file = tmp_path / "deletions.json"
    assert "--json goes with --deletions" in acb("check", "ch3", "--json", file).stderr
    file.write_text("{}")
    assert acb("bench", "host", "--json", tmp_path).stderr.startswith("error: cannot write")
    file.write_text('{"wide": {}}')
    assert "holds no results of this kind" in acb("bench", "host", "--json", file).stderr
    assert file.read_text() == '{"wide": {}}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "ch9"), "unknown chapter 'ch9'"),
        (("check", "ch5", "--schedules", 0), "schedules is 0; it must be at least 1"),
        (("check", "ch5", "--device", "cpu"), "device 'cpu' does not go with this check"),
        (("check", "ch5", "--device", "tpu"), "unknown device 'tpu'"),
        (("check", "ch5", "--deletions", "--device", "cuda"), "device 'cuda' is not available here"),
        (("run", "ch5", "--replay", "seven"), "unknown seed 'seven'"),
        (("run", "ch9", "--replay", "7"), "unknown chapter 'ch9'"),
    ],
)
def test_a_check_that_cannot_be_made_is_one_line(acb, arguments, message):
    done = acb(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
