"""What mini-sglang's own switch for overlap scheduling is worth on a CUDA GPU, beside what the law of overlap says.

    python docs/results/mini_sglang.py FOLDER MODEL [--trace TRACES]

FOLDER is `python` in a checkout of github.com/sgl-project/mini-sglang (20fcd7f), MODEL qwen3-8b or llama-3.2-1b, with
random weights. It needs flashinfer-python 0.5.3, whose kernels the first run compiles. Both loops run in one process,
in turns, on one loaded model: prompts of 1,024 random tokens, 160 new tokens, greedy, CUDA graphs. The result is put
under MODEL into mini_sglang.json beside this file; --trace writes a trace of torch's profiler for each loop instead.

K is from the first to the last kernel of a batch in the normal loop, L the host's time to launch it, H the rest of the
normal loop's step less what the host waits. Of each step the host's time is split by method; medians of decode steps.
"""

import argparse
import datetime
import gzip
import json
import os
import platform
import random
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

FILE = Path(__file__).with_suffix(".json")
PROMPT, NEW, TURNS, SETTLING = 1024, 160, 3, 20
PROFILED = 8, 28  # decode steps: from one to the other
CONFIGS = Path(__file__).parents[2] / "acb_minimal/models/configs"
ROWS = {"qwen3-8b": (8, 32, 128, 256), "llama-3.2-1b": (32, 128, 256)}
LOOPS = ("normal", "overlap")
STAGES = {"schedule": "_schedule_next_batch", "launch": "_forward", "take in": "_process_last_data"}


def config(model: str) -> SimpleNamespace:
    """The config of one of our bundled shapes, with what mini-sglang looks for."""
    config = json.loads((CONFIGS / model / "config.json").read_text())
    rope = config.get("rope_parameters", config)
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": None, "tie_word_embeddings": False}
    return SimpleNamespace(**config)


def load(model: str):
    """mini-sglang's offline engine, with random weights and no tokenizer."""
    import minisgl.engine.config
    import minisgl.engine.engine
    import minisgl.scheduler.scheduler
    import minisgl.utils.hf
    import torch

    found = config(model)
    minisgl.engine.config.cached_load_hf_config = minisgl.utils.hf.cached_load_hf_config = lambda path: found
    tokenizer = SimpleNamespace(eos_token_id=-1, decode=lambda ids, **_: "", encode=lambda *_, **__: None)
    minisgl.scheduler.scheduler.load_tokenizer = lambda path: tokenizer
    minisgl.engine.engine.Engine._load_weight_state_dict = lambda self, config: {
        name: torch.randn_like(weight, device=self.device) * 0.02 for name, weight in self.model.state_dict().items()
    }
    from minisgl.llm.llm import LLM

    most = max(ROWS[model])
    return LLM(
        "none", max_running_req=most, attention_backend="fi", use_dummy_weight=True, max_seq_len_override=8192,
        num_page_override=most * (PROMPT + NEW + 64), cuda_graph_bs=sorted({1, *ROWS[model]}), cache_type="naive",
        max_extend_tokens=8192,
    )  # fmt: skip


class Steps:
    """What an engine's decode steps of so many rows took. Wraps the engine's methods once.

    Attributes:
        rows: of the batches that count.
        seconds: of each, by stage, without what the host waited; "wait" is that.
        events: around each batch, on its stream.
        profiler: of torch, for PROFILED of them; or None.
    """

    def __init__(self, llm):
        import torch

        self.rows, self.seconds, self.events, self.waited = 0, [], [], 0.0
        self.profiler = None
        self.now: dict[str, float] = {}
        synchronize = torch.cuda.Event.synchronize

        def wait(event) -> None:
            began = time.perf_counter()
            synchronize(event)
            self.waited += time.perf_counter() - began

        torch.cuda.Event.synchronize = wait
        for stage, name in STAGES.items():
            setattr(llm, name, self.timed(stage, getattr(llm, name), llm.engine.stream))

    def timed(self, stage: str, method, stream):
        import torch

        def call(argument=None):
            counts = stage == "launch" and argument.batch.is_decode and argument.batch.size == self.rows
            if counts:
                self.seconds.append(self.now)
                self.now = {}
                if self.profiler and len(self.seconds) in PROFILED:
                    (self.profiler.start, self.profiler.stop)[PROFILED.index(len(self.seconds))]()
                events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                events[0].record(stream)
            began, waited = time.perf_counter(), self.waited
            result = method() if stage == "schedule" else method(argument)
            waited = self.waited - waited
            self.now[stage] = self.now.get(stage, 0.0) + time.perf_counter() - began - waited
            self.now["wait"] = self.now.get("wait", 0.0) + waited
            if counts:
                events[1].record(stream)
                self.events.append(events)
            return result

        return call

    def medians(self) -> dict[str, float]:
        """Milliseconds of a step, of a batch from its first to its last kernel, and of the host by stage."""
        events, seconds = self.events[SETTLING:-5], self.seconds[SETTLING:-5]
        step = statistics.median(a[0].elapsed_time(b[0]) for a, b in zip(events, events[1:], strict=False))
        batch = statistics.median(a.elapsed_time(b) for a, b in events)
        host = {
            stage: 1e3 * statistics.median(each.get(stage, 0.0) for each in seconds) for stage in (*STAGES, "wait")
        }
        return {"step": step, "batch": batch, **host}


def measure(llm, steps: Steps, loop: str, rows: int, seed: int, new: int = NEW, prompt: int = PROMPT) -> dict:
    """One run of `rows` requests through one of the two loops."""
    import torch
    from minisgl.core import SamplingParams
    from minisgl.env import ENV

    ENV.DISABLE_OVERLAP_SCHEDULING.value = loop == "normal"
    numbers = random.Random(seed)
    prompts = [numbers.choices(range(128_000), k=prompt) for _ in range(rows)]
    steps.rows, steps.seconds, steps.events = rows, [], []
    began = time.perf_counter()
    llm.generate(prompts, SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=new))
    torch.cuda.synchronize()
    torch.cuda.set_stream(llm.stream)
    return {"seconds": time.perf_counter() - began} | (steps.medians() if len(steps.events) > 2 * SETTLING else {})


def predicted(runs: list[dict]) -> dict[str, float]:
    """What the law of overlap says of the normal loop's medians alone, in ms."""
    step, k, launch = (statistics.median(run[what] for run in runs) for what in ("step", "batch", "launch"))
    h = step - max(k, launch)
    asynchronous = max(k, launch + h)
    return {"K": k, "L": launch, "H": h, "asynchronous": asynchronous, "speedup": step / asynchronous}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", choices=ROWS)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--out", type=Path, default=FILE)
    asked = parser.parse_args()
    os.environ |= {"FLASHINFER_CUDA_ARCH_LIST": "9.0a", "FLASHINFER_DISABLE_VERSION_CHECK": "1"}
    sys.path.insert(0, str(asked.folder))
    import torch

    llm = load(asked.model)
    steps, points = Steps(llm), []
    if asked.trace:
        rows = 128 if asked.model == "llama-3.2-1b" else 32
        with torch.inference_mode():
            for loop in LOOPS:
                trace(llm, steps, loop, rows, asked.trace / f"mini_sglang_{asked.model}_{loop}.json.gz")
        os._exit(0)  # its own end waits for processes that were never started
    with torch.inference_mode():
        for rows in ROWS[asked.model]:
            for loop in LOOPS:  # compiles and warms up what this size needs
                measure(llm, steps, loop, rows, 0, new=8)
            found = {loop: [] for loop in LOOPS}
            for turn in range(TURNS):
                for loop in LOOPS:
                    found[loop].append(measure(llm, steps, loop, rows, turn))
                    told = {what: round(number, 3) for what, number in found[loop][-1].items()}
                    print(asked.model, rows, loop, told, flush=True)
            point = {"rows": rows, **found, "law": predicted(found["normal"])}
            point["speedup"] = statistics.median(run["step"] for run in found["normal"])
            point["speedup"] /= statistics.median(run["step"] for run in found["overlap"])
            points.append(point)
            law = point["law"]
            print(f"  speedup {point['speedup']:.2f}, by the law {law['speedup']:.2f} ({law})", flush=True)
    entry = {
        "command": f"python docs/results/mini_sglang.py FOLDER {asked.model}",
        "environment": {
            "device": torch.cuda.get_device_name(), "date": datetime.date.today().isoformat(),
            "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
            "engine": "mini-sglang 20fcd7f, FlashInfer 0.5.3",
        },
        "points": points,
    }  # fmt: skip
    stored = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    asked.out.write_text(json.dumps(stored | {asked.model: entry}, indent=1) + "\n")
    os._exit(0)


def trace(llm, steps: Steps, loop: str, rows: int, file: Path) -> None:
    """Some decode steps of a short run under torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    measure(llm, steps, loop, rows, 0, new=8, prompt=512)
    steps.profiler = profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU])
    measure(llm, steps, loop, rows, 9, new=PROFILED[1] + 4, prompt=512)
    profiler, steps.profiler = steps.profiler, None
    plain = file.with_suffix("")
    profiler.export_chrome_trace(str(plain))
    file.write_bytes(gzip.compress(plain.read_bytes(), 9))
    plain.unlink()


if __name__ == "__main__":
    main()
