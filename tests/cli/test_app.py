"""What holds for every command of `acb`: errors are one line, and help comes at once."""

import subprocess
import sys

import pytest

SLOW = ("torch", "transformers", "matplotlib")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--help",), "Asynchronous continuous batching"),
        (("run", "--help"), "Serve prompts"),
        (("run", "ch1", "--wokload", "demo"), "No such option: --wokload"),
        (("run", "ch1", "--max-running", "100000"), "max_running is 100000"),
        (("compare", "--plot", "steps.txt"), "cannot draw"),
        (("diff", "ch1", "ch2"), "ch2_streams"),
        (("lab",), "are solved here"),
    ],
    ids=" ".join,
)
def test_what_needs_no_torch_does_not_wait_for_it(arguments, said):
    code = (
        "import sys; from acb_minimal.cli.app import main\n"
        "try: main()\n"
        f"finally: print([name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_wrong_option_is_explained_under_the_commands_own_name(acb):
    assert "Usage: acb run" in acb("run", "ch1", "--wokload", "demo").stderr


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
    assert done.returncode == 70
    assert done.stderr == f"error: ZeroDivisionError: integer division or modulo by zero ({mine}:5)\n"
    monkeypatch.setenv("ACB_TRACEBACK", "1")
    assert "Traceback" in acb("run", mine, "--prompt", "count 1 to 2").stderr
