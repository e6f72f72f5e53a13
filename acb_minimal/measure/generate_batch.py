"""Has transformers' `generate_batch` serve requests of one length, and watches it: its steps, its kernels, its host.

Its attention is FlashAttention-2 as torch brings it, so that no other package is needed. transformers hands it the keys
and values of all requests in one piece, gathered from their pages in every step. With the package of FlashAttention it
would read decodes from the pages themselves, which was not tried.
"""

import functools
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from ..run.checkpoint import Checkpoint
from ..trace import idle
from ..trace.torch_profiler import Recording

ROWS, NEW_TOKENS = 32, 96
PROMPTS = 16_384  # tokens of a batch of prompts, by its source a graph for each size: so there had better be few
RECORDED = 20  # steps of a trace that is kept
ATTENTION = "paged|flash_of_torch"  # "flash" in the name tells transformers that no mask is to be built
EVERY = 0.001  # seconds from one look at the host to the next


class Setting(NamedTuple):
    """How transformers is asked to serve.

    Attributes:
        context: tokens of each prompt.
        graphs: with CUDA graphs.
        ahead: asynchronously.
    """

    context: int
    graphs: bool
    ahead: bool

    @property
    def name(self) -> str:
        """For a file."""
        return f"transformers_{'async' if self.ahead else 'sync'}{'_graphs' if self.graphs else ''}_{self.context}"


class Served(NamedTuple):
    """What a setting gave; times in seconds.

    Attributes:
        setting: which.
        step: median of a step of decodes, without a profiler.
        kernels: of a typical step, with any of them running, under the profiler.
        doing: share of its time, 0 to 1, that the host spent in each function of transformers, whatever that calls in
            other packages included; longest first.
        said: the verdict of `acb idle` on the trace, or why there is none.
    """

    setting: Setting
    step: float
    kernels: float
    doing: list[tuple[str, float]]
    said: str


def serve(settings: list[Setting], model: str, traces: Path | None = None, attention: str = ATTENTION) -> list[Served]:
    """Serves ROWS requests in each setting three times: timed, looked at, and under the profiler.

    Args:
        settings: how.
        model: a bundled shape, with random weights.
        traces: the folder for their traces, RECORDED steps of each.
        attention: a name that transformers knows, or ATTENTION.
    """
    network = _network(model, attention)
    vocab_size = network.config.vocab_size
    torch.manual_seed(0)
    prompts = {each: torch.randint(min(1000, vocab_size), (ROWS, each.context)).tolist() for each in settings}
    runs = {each: functools.partial(_generate, network, each, prompts[each]) for each in settings}
    steps, begins, looks, served = {}, {}, {}, []
    for each, run in runs.items():
        began = time.perf_counter()
        results = run()
        steps[each] = statistics.median(_steps(results))
        begins[each] = max(result.timestamps[NEW_TOKENS // 3] for result in results.values()) - began
        looks[each] = _looked_at(run)
        # transformers keeps what it has captured for the next call, and would serve that one in the same way, whatever
        # it is asked.
        network.destroy_cached_continuous_batching_manager()
    for each, run in runs.items():  # last: a process in which torch's profiler has run launches more slowly ever after
        recording, trace = _recorded(run, begins[each], 1.5 * RECORDED * steps[each])
        network.destroy_cached_continuous_batching_manager()
        (report,) = idle.analyse(recording, step=steps[each])
        if traces:
            traces.mkdir(parents=True, exist_ok=True)
            part = json.dumps(_part(trace, recording, report), separators=(",", ":")).encode()
            (traces / f"{each.name}.json.gz").write_bytes(gzip.compress(part, mtime=0))
        said = report.verdict.kind if report.verdict else report.refusals[0]
        kernels = report.typical.kernels if report.typical else 0.0
        served.append(Served(each, steps[each], kernels, looks[each], said))
    return served


def _network(model: str, attention: str):
    from transformers import AttentionInterface, AutoModelForCausalLM

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    AttentionInterface.register(ATTENTION, _attend)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        network = AutoModelForCausalLM.from_config(Checkpoint(model).config, dtype=torch.bfloat16).eval()
    network.config._attn_implementation = attention  # by from_config, a name with "flash" is looked for on the hub
    return network


def _attend(module, query, key, value, attention_mask, cache, cu_seq_lens_q, cu_seq_lens_k, max_seqlen_q, max_seqlen_k,
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


def _generate(network, setting: Setting, prompts: list[list[int]]) -> dict:
    from transformers import ContinuousBatchingConfig, GenerationConfig

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


def _steps(results: dict) -> list[float]:
    """Seconds from token to token of the request that came last: by then, all of them decode."""
    if not results or any(result.error for result in results.values()):
        raise RuntimeError(f"transformers served nothing: {next(iter(results.values())).error if results else ''}")
    times = max((result.timestamps for result in results.values()), key=lambda times: times[0])
    return [after - before for before, after in itertools.pairwise(times[1:])]


def _looked_at(run: Callable[[], dict]) -> list[tuple[str, float]]:
    """What the serving thread is in while all requests decode."""
    looks: list[tuple[float, str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            for frame in sys._current_frames().values():
                if name := _function(frame):
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


def _function(frame) -> str:
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


def _recorded(run: Callable[[], dict], begin: float, seconds: float) -> tuple[Recording, dict]:
    """Some seconds of a run under torch's profiler, every thread of it; `begin` is when, in seconds from its start."""
    options = {}
    if torch.cuda.is_available():
        from torch._C._profiler import _ExperimentalConfig

        options["experimental_config"] = _ExperimentalConfig(profile_all_threads=True)  # it serves in a thread
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True, **options)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run)
        time.sleep(begin)
        with profiler:
            time.sleep(seconds)
        running.result()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        trace = json.loads(file.read_text())
    return Recording.of(trace["traceEvents"]), trace


def _part(trace: dict, recording: Recording, report: idle.Report) -> dict:
    """The events of RECORDED steady steps from the middle, without arrows and shapes, which nothing here reads."""
    steady = report.steady or report.steps
    some = steady[max(len(steady) - RECORDED, 0) // 2 :][:RECORDED]
    begin = recording.zero + min(some[0].batch.called, some[0].batch.start) / 1e3
    end = recording.zero + max(some[-1].batch.end, some[-1].batch.ready) / 1e3
    events = []
    for event in trace["traceEvents"]:
        if event.get("ph") == "M":
            events.append(event)
        elif event.get("ph") == "X" and event["ts"] + (event.get("dur") or 0) >= begin and event["ts"] <= end:
            kept = {key: value for key, value in event.items() if key != "args"}
            args = event.get("args") or {}
            events.append(kept | {"args": {k: args[k] for k in ("correlation", "device", "stream") if k in args}})
    header = {key: trace[key] for key in ("deviceProperties", "distributedInfo") if key in trace}
    return header | {"traceEvents": events}
