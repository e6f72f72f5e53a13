"""transformers' own continuous batching on the shape of the published run: how long a step takes, what its host does.

    python docs/results/peer.py [FOLDER]    # on a GPU: makes peer.json anew; traces of the short prompts go to FOLDER

`generate_batch` serves 32 requests of llama-3.1-8b's shape, synchronously and asynchronously, with CUDA graphs and
without. Steps are measured without a profiler, by the times that transformers keeps of every token; its kernels in a
second run under torch's profiler; and in a third, what its host does: a thread looks every millisecond which function
the serving thread is in.

Its attention is FlashAttention-2 as torch brings it, so that no other package is needed. transformers hands it the keys
and values of all requests in one piece, gathered from their pages in every step. With the package of FlashAttention it
would read decodes from the pages themselves, which was not tried.
"""

import gzip
import itertools
import json
import logging
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from common import need_gpu, store
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile
from transformers import AttentionInterface, AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.trace import idle
from acb_minimal.trace.torch_profiler import Recording

MODEL, ROWS, NEW_TOKENS = "llama-3.1-8b", 32, 96
CONTEXTS = (128, 4096)  # tokens of each prompt; at the shortest, there are steps without CUDA graphs as well
FIRST, WHOLE = 128, 8192  # tokens that each request of the published run has at its beginning; its steps
PROMPTS = 16_384  # tokens of a batch of prompts, by its source a graph for each size: so there had better be few
RECORDED = 20  # steps of a trace that is kept
ATTENTION = "paged|flash_of_torch"  # "flash" in the name tells transformers that no mask is to be built
EVERY = 0.001  # seconds from one look at the host to the next
SHOWN = 8  # functions of a setting


class Setting(NamedTuple):
    """How transformers is asked to serve: tokens of each prompt, with CUDA graphs, asynchronously."""

    context: int
    graphs: bool
    ahead: bool


class Served(NamedTuple):
    """What a setting gave.

    Attributes:
        setting: which.
        step: median seconds of a step of decodes, without a profiler.
        kernels: seconds of a typical step, with any of them running, under the profiler; None if that is not known.
        doing: share of its time, 0 to 1, that the host spent in each function of transformers, whatever that calls in
            other packages included; longest first.
        said: the verdict of `acb idle` on the trace, or why there is none.
    """

    setting: Setting
    step: float
    kernels: float | None
    doing: list[tuple[str, float]]
    said: str


def serve(settings: list[Setting], folder: Path | None) -> list[Served]:
    """Serves ROWS requests in each setting three times: timed, looked at, and under the profiler.

    Args:
        settings: how.
        folder: for their traces, RECORDED steps of each.
    """
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    AttentionInterface.register(ATTENTION, attend)
    config = Checkpoint(MODEL).config
    with torch.device("cuda"):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    network.config._attn_implementation = ATTENTION  # by from_config, a name with "flash" is looked for on the hub
    torch.manual_seed(0)
    prompts = {each.context: torch.randint(1000, (ROWS, each.context)).tolist() for each in settings}
    runs = {each: partial(generate, network, each, prompts[each.context]) for each in settings}
    steps, begins, looks, served = {}, {}, {}, []
    for each, run in runs.items():
        began = time.perf_counter()
        results = run()
        steps[each] = statistics.median(step_times(results))
        begins[each] = max(result.timestamps[NEW_TOKENS // 3] for result in results.values()) - began
        looks[each] = looked_at(run)
        # transformers keeps what it has captured for the next call, and would serve that one in the same way, whatever
        # it is asked.
        network.destroy_cached_continuous_batching_manager()
    for each, run in runs.items():  # last: a process in which torch's profiler has run launches more slowly ever after
        trace = recorded(run, begins[each], 1.5 * RECORDED * steps[each])
        network.destroy_cached_continuous_batching_manager()
        recording = Recording.of(trace["traceEvents"])
        (report,) = idle.analyse(recording, step=steps[each])
        if folder:
            name = f"transformers_{'async' if each.ahead else 'sync'}{'_graphs' * each.graphs}_{each.context}.json.gz"
            part = json.dumps(middle(trace, recording, report), separators=(",", ":")).encode()
            (folder / name).write_bytes(gzip.compress(part, mtime=0))
        said = report.verdict.kind if report.verdict else report.refusals[0]
        parts = report.typical and report.typical.parts
        served.append(Served(each, steps[each], parts and parts.kernels, looks[each], said))
    return served


def attend(module, query, key, value, attention_mask, cache, cu_seq_lens_q, cu_seq_lens_k, max_seqlen_q, max_seqlen_k,
           read_index, write_index, **kwargs):  # fmt: skip
    """FlashAttention-2 of torch on transformers' paged cache; shapes as in its integrations/flash_paged.py."""
    if isinstance(cu_seq_lens_k, dict):
        cu_seq_lens_k, max_seqlen_k = cu_seq_lens_k["full_attention"], max_seqlen_k["full_attention"]
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, read_index=read_index, write_index=write_index
    )
    attended, *_ = torch.ops.aten._flash_attention_forward(
        query.transpose(1, 2).squeeze(0).contiguous(), key.contiguous(), value.contiguous(),
        cu_seq_lens_q.to(torch.int32), cu_seq_lens_k.to(torch.int32), max_seqlen_q, max_seqlen_k, 0.0, True, False,
        scale=module.scaling,
    )  # fmt: skip
    return attended.unsqueeze(0), None


def generate(network, setting: Setting, prompts: list[list[int]]) -> dict:
    pages = ROWS * (-(-(setting.context + NEW_TOKENS) // 256) + 1)
    return network.generate_batch(
        inputs=prompts,
        generation_config=GenerationConfig(
            max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0, use_cache=True
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            use_cuda_graph=setting.graphs, use_async_batching=setting.ahead, num_blocks=pages, max_batch_tokens=PROMPTS,
            allow_block_sharing=False,
        ),
        record_timestamps=True,
        progress_bar=False,
        persistent_manager=True,  # captures its graphs once
    )  # fmt: skip


def step_times(results: dict) -> list[float]:
    """Seconds from token to token of the request that came last: by then, all of them decode."""
    if not results or any(result.error for result in results.values()):
        raise RuntimeError(f"transformers served nothing: {next(iter(results.values())).error if results else ''}")
    times = max((result.timestamps for result in results.values()), key=lambda times: times[0])
    return [after - before for before, after in itertools.pairwise(times[1:])]


def looked_at(run: Callable[[], dict]) -> list[tuple[str, float]]:
    """What the serving thread is in while all requests decode."""
    looks: list[tuple[float, str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            for frame in sys._current_frames().values():
                if name := function(frame):
                    looks.append((time.perf_counter(), name))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        results = run()
    finally:
        done.set()
        thread.join()
    begin = max(result.timestamps[1] for result in results.values())
    end = min(result.timestamps[-1] for result in results.values())
    seen = Counter(name for when, name in looks if begin <= when <= end)
    return [(name, count / seen.total()) for name, count in seen.most_common()]


def function(frame) -> str:
    """The innermost function of transformers on the stack of its serving thread; "" for another thread's stack."""
    inner = ""
    while frame:
        code = frame.f_code
        if not inner and "transformers" in Path(code.co_filename).parts:
            inner = code.co_qualname
        if code.co_name == "_run_generation_loop":
            return inner
        frame = frame.f_back
    return ""


def recorded(run: Callable[[], dict], begin: float, seconds: float) -> dict:
    """A trace of some seconds of a run, every thread of it; `begin` is when, in seconds from its start."""
    every_thread = _ExperimentalConfig(profile_all_threads=True)  # it serves in a thread
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    profiler = profile(activities=activities, acc_events=True, experimental_config=every_thread)
    with ThreadPoolExecutor(1) as threads, tempfile.TemporaryDirectory() as folder:
        running = threads.submit(run)
        time.sleep(begin)
        with profiler:
            time.sleep(seconds)
        running.result()
        profiler.export_chrome_trace(f"{folder}/trace.json")
        return json.loads(Path(folder, "trace.json").read_text())


def middle(trace: dict, recording: Recording, report: idle.Report) -> dict:
    """The events of RECORDED typical steps from the middle, without arrows and shapes, which nothing here reads."""
    typical = report.chosen if report.typical else report.steps
    some = typical[max(len(typical) - RECORDED, 0) // 2 :][:RECORDED]
    begin = recording.zero + min(some[0].called, some[0].start) / 1e3
    end = recording.zero + max(some[-1].end, some[-1].ready) / 1e3
    events = []
    for event in trace["traceEvents"]:
        if event.get("ph") == "M":
            events.append(event)
        elif event.get("ph") == "X" and event["ts"] + (event.get("dur") or 0) >= begin and event["ts"] <= end:
            args = event.get("args") or {}
            events.append(event | {"args": {k: args[k] for k in ("correlation", "device", "stream") if k in args}})
    header = {key: trace[key] for key in ("deviceProperties", "distributedInfo") if key in trace}
    return header | {"traceEvents": events}


def whole(served: list[Served]) -> float:
    """Seconds of the published run's steps, if steps between the lengths measured lie on straight lines. The last line
    is drawn on to the end of the run."""
    points = sorted((each.setting.context + NEW_TOKENS / 2, each.step) for each in served)
    pairs, total = list(itertools.pairwise(points)), 0.0
    for length in range(FIRST, FIRST + WHOLE):
        (x0, y0), (x1, y1) = next((pair for pair in pairs if length <= pair[1][0]), pairs[-1])
        total += y0 + (y1 - y0) * (length - x0) / (x1 - x0)
    return total


def tables(served: list[Served]) -> None:
    """Stores the settings as "steps"; the "whole" run, drawn from them; and what the "host" does."""
    name = {False: "no", True: "yes"}
    rows = [
        [each.setting.context, name[each.setting.graphs], name[each.setting.ahead], 1e3 * each.step,
         each.kernels and 1e3 * each.kernels, each.said] for each in served
    ]  # fmt: skip
    note = (
        f"{ROWS} requests, {NEW_TOKENS} new tokens each; step: median, without a profiler; kernels: under it, where "
        "those of graphs run a little longer."
    )
    columns = {"tokens each has": ",d", "CUDA graphs": "", "asynchronous": ""}
    columns |= {"ms per step": ".2f", "kernels, ms": ".2f", "acb idle on its trace": ""}
    store("peer.json", "steps", "transformers' generate_batch", columns, rows, note)

    served = [each for each in served if each.setting.graphs]
    seconds = {ahead: whole([each for each in served if each.setting.ahead == ahead]) for ahead in name}
    rows = [[name[ahead], took, 1e3 * took / WHOLE] for ahead, took in seconds.items()]
    note = (
        f"{WHOLE:,} steps with CUDA graphs, from {FIRST} tokens on: not run, but drawn from the steps that were "
        "measured, as if those between two lengths, and beyond, lay on a straight line."
    )
    columns = {"asynchronous": "", "seconds": ".0f", "ms per step": ".2f"}
    store("peer.json", "whole", "What the whole run would take", columns, rows, note)

    rows = [
        [each.setting.context, name[each.setting.ahead], function, share, 1e3 * share * each.step]
        for each in served
        for function, share in each.doing[:SHOWN]
    ]
    note = f"With CUDA graphs, decodes only; looked at every {1e3 * EVERY:.0f} ms, without a profiler."
    columns = {"tokens each has": ",d", "asynchronous": "", "the host is in": "", "of its time": ".1%"}
    columns |= {"ms per step": ".2f"}
    store("peer.json", "host", "Where the time of its host goes", columns, rows, note)


if __name__ == "__main__":
    need_gpu()
    folder, served = Path(sys.argv[1]) if sys.argv[1:] else None, []
    for context, graphs in [*((context, True) for context in CONTEXTS), (CONTEXTS[0], False)]:
        settings = [Setting(context, graphs, ahead) for ahead in (False, True)]
        with ProcessPoolExecutor(1, get_context("spawn")) as process:  # the profiler leaves its mark on a process
            served += process.submit(serve, settings, folder if context == CONTEXTS[0] else None).result()
    tables(served)
