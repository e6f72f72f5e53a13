"""`acb run`: answers, figures, and what it refuses."""

import json
import os
import subprocess
import sys

import pytest

from acb_minimal.models import counter


@pytest.mark.slow
def test_prompts_are_answered_and_a_table_ends_the_run():
    """In a process: nothing but the answers may reach stdout, and nothing at all stderr."""
    command = [sys.executable, "-m", "acb_minimal.cli", "run", "ch1_sync", "--prompt", "count 3 to 7"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("count 3 to 7 -> 3 4 5 6 7\n")
    for row in ("requests", "new tokens", "seconds", "new tokens/s", "ms per step"):
        assert row in done.stdout
    assert done.stderr == ""  # no progress bar and no noise where there is no terminal


def test_a_bad_prompt_among_good_ones(acb):
    done = acb("run", "ch1", "--prompt", "count 3 to 4", "--prompt", "count bananas", "--prompt", "")
    assert done.returncode == 1
    assert "count 3 to 4 -> 3 4\n" in done.stdout
    assert done.stderr.splitlines() == [
        "refused: request '1': prompt 'count bananas': model 'counter' does not know 'bananas'; it knows "
        "count, to and the numbers 0 to 999",
        "refused: request '2': the prompt is empty; it needs at least one token",
    ]


def test_demo_answers_every_request_and_writes_json(acb, tmp_path):
    file = tmp_path / "run.json"
    done = acb("run", "ch1", "--workload", "demo", "--requests", 9, "--json", file)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert record["chapter"] == "ch1"
    assert record["figures"]["requests"] == len(record["completions"]) == 9
    assert record["environment"].keys() >= {"device", "date", "torch", "transformers", "python"}
    for completion in record["completions"]:
        numbers = [int(word) for word in completion["text"].split()]
        assert completion["text"] == counter.answer(numbers[0], numbers[-1])


def test_a_workload_of_token_ids_runs_with_every_override(acb):
    done = acb(
        "run", "ch1", "--workload", "small", "--model", "counter", "--requests", 3, "--context", 20,
        "--new-tokens", 5, "--max-running", 2, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "15" in done.stdout  # 3 requests of exactly 5 new tokens: stop tokens are ignored


@pytest.mark.parametrize("device", ["sim", "cpu"])
def test_a_chapter_runs_without_a_gpu(acb, device):
    done = acb("run", "ch6", "--device", device, "--prompt", "count 3 to 7")
    assert done.returncode == 0, done.stderr
    assert "count 3 to 7 -> 3 4 5 6 7\n" in done.stdout
    assert ("simulated H200" in done.stdout) == (device == "sim")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ch0",), "unknown chapter 'ch0': give one of ch1_sync"),
        (("ch1", "--device", "cuda"), "device 'cuda' is not available here: torch finds no CUDA GPU; use sim"),
        (("ch1", "--requests", "0"), "requests is 0; it must be at least 1"),
        (("ch1", "--prompt", "count 1 to 2", "--workload", "demo"), "--workload demo does not go with --prompt"),
        (("ch1", "--json", "/no/such/folder/x.json"), "cannot write '/no/such/folder/x.json'"),
        (("ch1", "--prompt", "hi", "--model", "llama-3.2-1b"), "has random weights and no tokenizer"),
        # This would take more memory than there is, and first of all minutes.
        (("ch1", "--workload", "long", "--context", 10**8), "100000000 prompt + 256 new tokens are past the model's"),
        (("ch1", "--gpus", "0"), "--gpus is 0; it must be at least 1"),
        (("ch1", "--gpus", "2"), "2 GPUs go with device cuda or cpu, not with 'auto': the simulated GPU is alone"),
        (("ch1", "--gpus", "2", "--device", "cpu", "--rank-timeout", "0"), "--rank-timeout is 0; it must be a number"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(refused, arguments, message):
    assert message in refused("run", *arguments)


def test_all_requests_refused(acb):
    done = acb("run", "ch1", "--new-tokens", "0")
    assert done.returncode == 2
    assert "request '0': max_new_tokens is 0; it must be at least 1" in done.stderr
    assert done.stderr.splitlines()[-1] == "refused: 43 more"
    assert done.stdout == ""


def test_sampling_is_asked_for_by_options(acb):
    asked = ["--temperature", 3, "--seed", 7, "--top-k", 400, "--logprobs", "--new-tokens", 4]
    done = acb("run", "ch5", "--prompt", "count 10 to 12", "--prompt", "count 3 to 7", *asked)
    assert done.returncode == 0, done.stderr
    assert "temperature 3, top k 400, seed 7, logprobs" in " ".join(done.stdout.split())
    assert done.stdout.count("log probabilities: -") == 2
    again = acb("run", "ch8", "--prompt", "count 3 to 7", *asked)
    assert again.stdout.splitlines()[:2] == done.stdout.splitlines()[2:4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--logit-bias", "nine=1"], "--logit-bias: 'nine' is no whole number"),
        (["--logit-bias", "9=a"], "--logit-bias: 'a' is no number"),
        (["--logit-bias", "9"], "--logit-bias 9: it takes ID=VALUE, as in 9=2.5"),
    ],
)  # fmt: skip
def test_what_sampling_cannot_be_is_told_in_one_line(acb, options, said):
    done = acb("run", "ch5", "--prompt", "count 3 to 7", *options)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")


def test_requests_that_arrive_have_latencies(acb, tmp_path):
    file = tmp_path / "run.json"
    done = acb("run", "ch5", "--requests", 4, "--rate", 50, "--ttft-ms", 1000, "--json", file)
    assert done.returncode == 0, done.stderr
    assert "50 requests a second arrive, seed 0" in " ".join(done.stdout.split())
    assert [name for name in ("TTFT", "TPOT", "ITL", "E2EL") if f"\n{name} " not in done.stdout] == []
    latency = json.loads(file.read_text())["latency"]
    assert latency["finished"] == 4
    assert latency["goodput"] == latency["requests_per_second"]


def test_a_file_has_the_requests(acb, tmp_path):
    file, record = tmp_path / "arrivals.jsonl", tmp_path / "run.json"
    file.write_text('{"at": 1, "prompt_tokens": 9, "new_tokens": 4}\n{"at": 0, "prompt_tokens": 3, "new_tokens": 2}\n')
    done = acb("run", "ch1", "--arrivals", file, "--json", record)
    assert done.returncode == 0, done.stderr
    assert [len(each["tokens"]) for each in json.loads(record.read_text())["completions"]] == [2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "2", "--concurrency", "3"), "--rate 2.0 and --concurrency 3 do not go together: give one of them"),
        (("--ttft-ms", "5"), "--ttft-ms 5 needs arrivals: give --rate, --concurrency or --arrivals"),
        (("--arrivals", "x", "--new-tokens", "3"), "--new-tokens 3 does not go with --arrivals: its file says that"),
        (("--arrivals", "x", "--prompt", "count"), "--arrivals x does not go with --prompt: it describes a workload"),
    ],
)
def test_arrivals_that_make_no_sense_are_refused(acb, options, message):
    done = acb("run", "ch1", *options)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_pages_are_given_on_demand(acb):
    asked = ["--prompt", "count 7 to 15", "--prompt", "count 20 to 28", "--new-tokens", 12, "--device", "sim"]
    for chapter, preempt in (("ch1", "recompute"), ("ch9", "swap")):
        done = acb("run", chapter, "--pages", 5, "--page-size", 4, "--preempt", preempt, *asked)
        assert "count 20 to 28 -> 20 21 22 23 24 25 26 27 28\n" in done.stdout
        assert f"5 KV pages, pages on demand ({preempt})" in done.stdout
