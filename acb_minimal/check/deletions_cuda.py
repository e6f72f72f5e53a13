"""The mutations of mutations.py on a real GPU: what goes wrong there, and what torch's CUDA sanitizer sees.

A GPU runs what it is given as soon as it can, so most statements are missed by luck or not at all: that is what the
simulator is for. The sanitizer compares accesses on the GPU as race_detector.py does, but it knows nothing of the
host's accesses, nor of what a graph does when it is replayed.

Every run has a process of its own: a race can leave the GPU in a state in which nothing works any more.

    python -m acb_minimal.check.deletions_cuda CHAPTER LINE    one such run; line 0 is the chapter as it is
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..measure.metrics import environment
from ..measure.result_table import ResultTable
from ..models import counter
from ..run.engines import chapter_path, engine
from ..run.session import Session
from ..run.timed import TimedCudaDevice
from ..run.workload import Job, workload
from .mutations import mutants

RUNS, TIMEOUT = 3, 300
AT_ONCE = max((os.cpu_count() or 1) - 4, 1)  # processes that share the GPU; each keeps a core busy
SANITIZER = "TORCH_CUDA_SANITIZER"


def measure(chapter: str, progress: Callable[[str], None]) -> ResultTable:
    """The chapter as it is, and without each line that orders: how many answers are wrong in each of a few runs, and
    what the sanitizer says of another, shorter one.

    Args:
        progress: is told what goes on.

    Raises:
        InputError: there is no such chapter.
    """
    lines = [(0, "as it is"), *((mutant.line, mutant.text) for mutant in mutants(chapter))]
    found = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for sanitize in (True, False):
            progress(f"{len(lines)} runs, {'sanitized' if sanitize else 'plain'}")
            found.append(list(pool.map(lambda line, how=sanitize: _process(chapter, line[0], how), lines)))
    rows = []
    for (line, text), seen, plain in zip(lines, *found, strict=True):
        wrong = [*plain["wrong"], *[None] * RUNS][:RUNS]
        rows.append([line or None, text, plain["answers"], *wrong, plain["error"], seen["race"] or seen["error"]])
    runs = [f"wrong in run {number}" for number in range(1, RUNS + 1)]
    columns = {"line": "d", "without": "", "answers": "d"} | dict.fromkeys(runs, "d") | {"error": "", "sanitizer": ""}
    title = f"{chapter}, each line taken away by itself, on CUDA"
    note = (
        "Answers that are wrong, of so many in each run. A run that ends in an error is the last. "
        f"{min(AT_ONCE, len(lines))} processes share the GPU."
    )
    return ResultTable(title, columns, rows, note, environment(TimedCudaDevice()))


def _process(chapter: str, line: int, sanitize: bool) -> dict:
    """What `run` returns, from a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != SANITIZER}
    command = [sys.executable, "-m", "acb_minimal.check.deletions_cuda", chapter, str(line)]
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
            found["race" if races else "error"] = _race(races[0]) if races else f"{error}".partition("\n")[0]
            break
        found["wrong"].append(len(right) - sum(right[int(each.id)] == each.text for each in said))
    return found


def _race(error) -> str:
    """A torch.cuda._sanitizer.UnsynchronizedAccessError on one line."""
    accesses = (error.current_access, error.previous_access)
    return " after ".join(f"{str(access.operator).split('(')[0]} {access.type} it" for access in accesses)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
