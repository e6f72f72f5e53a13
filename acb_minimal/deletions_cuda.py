"""The deletions of deletions.py on a real GPU: what goes wrong there, and what torch's CUDA sanitizer sees.

A GPU runs what it is given as soon as it can, so most statements are missed by luck or not at all: that is what the
simulator is for. The sanitizer compares accesses on the GPU as hazards.py does, but it knows nothing of the host's
accesses, nor of what a graph does when it is replayed.

Every run has a process of its own: a race can leave the GPU in a state in which nothing works any more.

    python -m acb_minimal.deletions_cuda CHAPTER LINE    one such run; line 0 is the chapter as it is
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.table import Table

from . import counter
from .deletions import deletions
from .run import Session, chapter_path
from .variants import engine
from .workload import workload

RUNS, TIMEOUT = 3, 300
AT_ONCE = max((os.cpu_count() or 1) - 4, 1)  # processes that share the GPU; each keeps a core busy
SANITIZER = "TORCH_CUDA_SANITIZER"


def rows(chapter: str, progress: Callable[[str], None]) -> list[dict]:
    """For the chapter as it is (line 0), and without each line that orders: what `run` returns, plain and sanitized."""
    lines = [(0, "as it is"), *((deletion.line, deletion.text) for deletion in deletions(chapter))]
    found = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for sanitize in (True, False):
            progress(f"{len(lines)} runs, {'sanitized' if sanitize else 'plain'}")
            found.append(list(pool.map(lambda line, how=sanitize: _process(chapter, line[0], how), lines)))
    return [
        {"line": line, "text": text, "plain": plain, "sanitized": sanitized}
        for (line, text), sanitized, plain in zip(lines, *found, strict=True)
    ]


def table(chapter: str, rows: list[dict]) -> Table:
    """Answers that are wrong, and what the sanitizer says, with each line taken away by itself."""
    table = Table(title=f"{chapter}, each line taken away by itself, on CUDA", title_justify="left")
    for column in ("line", "", f"wrong answers in {RUNS} runs", "sanitizer"):
        table.add_column(column, justify="right" if column == "line" else "left", overflow="fold")
    for row in rows:
        plain, seen = row["plain"], row["sanitized"]
        wrong = plain["error"] or ", ".join(f"{wrong} of {plain['answers']}" for wrong in plain["wrong"])
        table.add_row(str(row["line"] or ""), row["text"], wrong, seen["race"] or seen["error"] or "nothing")
    return table


def _process(chapter: str, line: int, sanitize: bool) -> dict:
    """What `run` returns, from a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != SANITIZER}
    command = [sys.executable, "-m", "acb_minimal.deletions_cuda", chapter, str(line)]
    try:
        done = subprocess.run(
            command,
            env=environment | ({SANITIZER: "1"} if sanitize else {}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        error = f"not done after {TIMEOUT} s"
    except (IndexError, json.JSONDecodeError):  # it died
        error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"answers": 0, "wrong": [], "race": None, "error": error}


def run(chapter: str, line: int) -> dict:
    """Serves the counter's workload a few times: how many answers were wrong each time, the race that the sanitizer
    has seen, or the error that it ended in."""
    if line:
        engine_class = next(deletion for deletion in deletions(chapter) if deletion.line == line).engine()
    else:
        engine_class = engine(chapter_path(chapter).read_text(), chapter)
    sanitized = SANITIZER in os.environ
    load = workload("demo").override(requests=20 if sanitized else 200)  # it looks at every kernel, and takes its time
    prompts = load.prompts(0)
    right = [counter.answer(*(int(word) for word in prompt.split()[1::2])) for prompt in prompts]
    found = {"answers": len(prompts), "wrong": [], "race": None, "error": None}
    for _ in range(1 if sanitized else RUNS):
        session = Session(
            prompts, engine_class, device="cuda", max_running=load.max_running, max_batch_tokens=18,
            page_size=16, pages=60,
        )  # fmt: skip
        try:
            texts = {int(completion.id): completion.text for completion in session.run()}
        except Exception as error:
            races = getattr(error, "errors", None)  # CUDASanitizerErrors has them
            found["race" if races else "error"] = _race(races[0]) if races else " ".join(f"{error!r}".split())[:200]
            break
        found["wrong"].append(sum(texts.get(number) != text for number, text in enumerate(right)))
    return found


def _race(error) -> str:
    """A torch.cuda._sanitizer.UnsynchronizedAccessError on one line."""
    accesses = (error.current_access, error.previous_access)
    return " after ".join(f"{str(access.operator).split('(')[0]} {access.type} it" for access in accesses)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
