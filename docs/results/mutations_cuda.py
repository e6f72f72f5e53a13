"""Each line of a chapter that orders, taken away by itself, on a real GPU: what goes wrong there, and what torch's CUDA
sanitizer sees.

    python docs/results/mutations_cuda.py    # on a GPU: makes deletions_cuda.json anew

A GPU runs what it is given as soon as it can, so most lines are missed by luck or not at all: that is what the
simulator is for. The sanitizer compares accesses on the GPU as the race detector does, but it knows nothing of the
host's accesses, nor of what a graph does when it is replayed.

Every run has a process of its own, which this file is with a chapter and a line for arguments: a race can leave the GPU
in a state in which nothing works any more.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from common import need_gpu, store

from acb_minimal.check.mutations import mutants
from acb_minimal.models import counter
from acb_minimal.run.engines import chapter_path, chapter_paths, engine
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job, workload

RUNS, TIMEOUT = 3, 300
AT_ONCE = max((os.cpu_count() or 1) - 4, 1)  # processes that share the GPU; each keeps a core busy
SANITIZER = "TORCH_CUDA_SANITIZER"
NOTE = (
    "Answers that are wrong, of so many in each run. A run that ends in an error is the last. "
    "{} processes share the GPU."
)


def measure(chapter: str) -> None:
    """Stores the chapter as it is, and without each line that orders: how many answers are wrong in each of a few runs,
    and what the sanitizer says of another, shorter one."""
    lines = [(0, "as it is"), *((mutant.line, mutant.text) for mutant in mutants(chapter))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen, plain = (
            list(pool.map(lambda line, how=how: in_process(chapter, line[0], how), lines)) for how in ("1", None)
        )
    rows = []
    for (line, text), race, run in zip(lines, seen, plain, strict=True):
        wrong = [*run["wrong"], *[None] * RUNS][:RUNS]
        rows.append([line or None, text, run["answers"], *wrong, run["error"], race["race"] or race["error"]])
    columns = {"line": "d", "without": "", "answers": "d"}
    columns |= {f"wrong in run {number + 1}": "d" for number in range(RUNS)} | {"error": "", "sanitizer": ""}
    title = f"{chapter.partition('_')[0]}, each line taken away by itself, on CUDA"
    store("deletions_cuda.json", chapter, title, columns, rows, NOTE.format(min(AT_ONCE, len(lines))))


def in_process(chapter: str, line: int, sanitizer: str | None) -> dict:
    """What `run` returns, from a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != SANITIZER}
    environment |= {SANITIZER: sanitizer} if sanitizer else {}
    command = [sys.executable, __file__, chapter, str(line)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        error = f"not done after {TIMEOUT} s"
    except (IndexError, json.JSONDecodeError):  # it died
        said = [line for line in done.stderr.splitlines() if "Error: " in line or "CUDA error" in line]
        error = said[0].strip().removeprefix("what():").strip() if said else f"exit status {done.returncode}"
    return {"answers": None, "wrong": [], "race": None, "error": error}


def run(chapter: str, line: int) -> dict:
    """Serves the counter's workload a few times.

    Args:
        line: the number of the line to take away; 0 for none.

    Returns:
        "answers": how many there are each time; "wrong": how many of them are wrong, each time that came to its end;
        "race": what the sanitizer has seen, or None; "error": what another run ended in, or None.
    """
    if line:
        engine_class = next(mutant for mutant in mutants(chapter) if mutant.line == line).engine()
    else:
        engine_class = engine(chapter_path(chapter).read_text(), chapter)
    sanitized = SANITIZER in os.environ
    requests = 20 if sanitized else 200  # the sanitizer looks at every kernel, and takes its time
    demo = workload("demo").override(requests=requests)
    prompts = demo.prompts(0)
    right = [counter.answer(*(int(word) for word in prompt.split()[1::2])) for prompt in prompts]
    found = {"answers": len(prompts), "wrong": [], "race": None, "error": None}
    for _ in range(1 if sanitized else RUNS):
        job = Job(prompts, max_running=demo.max_running, max_batch_tokens=18, page_size=16, pages=60)
        try:
            said = Session(job, engine_class, device="cuda").serve()
        except Exception as error:
            races = getattr(error, "errors", None)  # CUDASanitizerErrors has them
            found["race" if races else "error"] = told(races[0]) if races else f"{error}".partition("\n")[0]
            break
        found["wrong"].append(len(right) - sum(right[int(each.id)] == each.text for each in said))
    return found


def told(error) -> str:
    """A torch.cuda._sanitizer.UnsynchronizedAccessError on one line."""
    accesses = (error.current_access, error.previous_access)
    return " after ".join(f"{str(access.operator).split('(')[0]} {access.type} it" for access in accesses)


if __name__ == "__main__":
    need_gpu()
    if sys.argv[1:]:
        print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
    else:
        for chapter in chapter_paths():
            measure(chapter)
