"""What others have published of asynchrony in their engines: gains, losses, and what is left. Read there, not measured
here. A gain is new tokens a second, or requests a second, with it over without it."""

from typing import NamedTuple

from acb_minimal.measure.result_table import PUBLISHED


class Report(NamedTuple):
    """One report.

    Attributes:
        engine: its name, with the version if that was given.
        model: what it served.
        gpu: on what; empty if it was not said.
        gains: by load, how many times as fast it was with asynchrony.
        said: what else was published, for engines with asynchrony on if no gain is given.
        source: what to call where it was published.
        url: where that is.
    """

    engine: str
    model: str
    gpu: str
    gains: dict[str, float]
    said: str
    source: str
    url: str

    def changes(self) -> str:
        """The gains and losses, load by load."""
        shares = {load: f"{100 * (gain - 1):+.1f} %".replace("+0.0", "0.0") for load, gain in self.gains.items()}
        return ", ".join(f"{share} ({load})" for load, share in shares.items())


def _github(engine: str, model: str, gpu: str, repository: str, number: int, said: str = "", **gains: float) -> Report:
    url = f"https://github.com/{repository}/issues/{number}"  # GitHub leads from here to a pull request, too
    gains = {load.replace("_", " "): gain for load, gain in gains.items()}
    return Report(engine, model, gpu, gains, said, f"{repository}#{number}", url)


GPUSTACK = "GPUStack, performance lab"
PAGES = "https://docs.gpustack.ai/latest/performance-lab/gpt-oss-20b/"
(SLOW, SLOW_ACTIVE), (FAST, FAST_ACTIVE) = PUBLISHED.values()
LOADS = ("ShareGPT", "short prompts", "medium", "long", "very long")
REPORTS = (
    Report(
        "transformers", "8B", "H100", {"32 requests, 8K new tokens each": SLOW / FAST},
        f"{SLOW} s without, {FAST} s with; GPU active {100 * SLOW_ACTIVE:.1f} % and {100 * FAST_ACTIVE:.1f} % of it",
        "Hugging Face, May 2026", "https://huggingface.co/blog/continuous_async",
    ),
    Report(
        "vLLM 0.11.0", "gpt-oss-20b", "H100", dict(zip(LOADS, (1.145, 1.163, 1.032, 1.018, 1.000), strict=True)), "",
        GPUSTACK, PAGES + "h100",
    ),
    Report(
        "vLLM 0.11.0", "gpt-oss-20b", "A100", dict(zip(LOADS, (1.121, 1.040, 1.050, 1.038, 1.011), strict=True)), "",
        GPUSTACK, PAGES + "a100",
    ),
    _github(
        "vLLM", "Qwen3-30B-A3B-Thinking-2507-FP8", "4, as a pipeline", "vllm-project/vllm", 32618,
        **{"128 requests, 512 new tokens each": 1.308},
    ),
    _github(
        "SGLang", "Llama-3.1-8B-Instruct", "", "sgl-project/sglang", 1738,
        **{"3,000 requests, no shared prefixes": 1.10},
    ),
    _github(
        "sglang-omni", "Fun-CosyVoice3-0.5B", "RTX 5070", "sgl-project/sglang-omni", 1669,
        "5.10 ms and 3.62 ms for a token, both with graphs", **{"1 request": 5.10 / 3.62},
    ),
    _github(
        "sglang-omni", "Fun-ASR-Nano", "H100", "sgl-project/sglang-omni", 1086,
        **{"1 at a time": 1.008, "8": 1.195, "16": 1.200, "32": 1.189},
    ),
    _github(
        "sglang-omni", "ARK-ASR-3B", "H200", "sgl-project/sglang-omni", 1257,
        **{"1 at a time": 0.987, "16": 1.247, "64, past saturation": 1.064},
    ),
    _github(
        "Megatron-LM", "583M", "8 x H100", "NVIDIA/Megatron-LM", 6104,
        **{"batches of 1": 0.964, "8": 1.000, "32": 0.995},
    ),
    _github(
        "TensorRT-LLM", "Llama-3.1-8B-Instruct-FP8", "B200", "NVIDIA/TensorRT-LLM", 13957,
        "64 at a time: the GPU still waits about 580 us in each step",
    ),
    _github(
        "TensorRT-LLM", "gpt-oss-120b", "GB200", "NVIDIA/TensorRT-LLM", 10273,
        "3,072 at a time: 45.1 ms of host time for a step",
    ),
    _github(
        "vllm-omni", "HunyuanImage3", "", "vllm-project/vllm-omni", 3730,
        "with graphs: a step of 11.13 ms is 6.98 ms of work and 4.14 ms in which the GPU waits for the host",
    ),
)  # fmt: skip


def reports() -> str:
    """All of it as a table, for a page in Markdown."""
    lines = ["| engine | model | GPU | gained or lost, by load | source |", "| --- | --- | --- | --- | --- |"]
    for each in REPORTS:
        said, gpu = "; ".join(filter(None, (each.changes(), each.said))), each.gpu or "not said"
        lines.append(f"| {each.engine} | {each.model} | {gpu} | {said} | [{each.source}]({each.url}) |")
    return "\n".join(lines)
