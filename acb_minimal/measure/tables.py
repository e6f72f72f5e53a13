"""Results as tables for a terminal, drawn from what `entry` stores: a stored result looks as it did live."""

import dataclasses
from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from ..run.workload import Workload
from .compare import Comparison
from .metrics import PARTS, Breakdown, command, environment

COLUMNS = ("chapter", "decode", "kernels", "launch\ngaps", "bubbles", "active", "tokens\n/s", "speed-\nup", "same")
BARS = {"kernels": ("█", "green"), "launch gaps": ("▒", "yellow"), "bubbles": ("░", "magenta")}
BAR = 50  # characters of the longest
# "Unlocking asynchronicity in continuous batching", Hugging Face, May 2026: 8,192 tokens each for 32 requests, 8B.
PUBLISHED = {"synchronous": (300.6, 0.760), "asynchronous": (234.5, 0.994)}


def entry(workload: Workload, comparisons: Iterable[Comparison]) -> dict:
    """What to store of a comparison: all of its figures, the machine, the date and the command.

    Args:
        workload: that all of them served.
        comparisons: of one run, at least one.

    Returns:
        A JSON object that has the keys of metrics.COMPARISON.
    """
    comparisons = list(comparisons)
    chapters = [
        {
            "chapter": done.profile.chapter,
            "figures": dataclasses.asdict(done.profile.figures),
            "breakdown": dataclasses.asdict(done.profile.breakdown) if done.profile.breakdown else None,
            "profiled_bubbles": done.profile.profiled_bubbles,
            "speed_up": done.speed_up,
            "same_tokens": done.same_tokens,
            "run_steps": done.profile.run_steps,
        }
        for done in comparisons
    ]
    return {
        "command": command(),
        "environment": environment(comparisons[0].profile.device),
        "workload": dataclasses.asdict(workload),
        "dials": str(comparisons[0].profile.options),
        "chapters": chapters,
    }


def title(entry: dict) -> str:
    """The workload, model and machine of an entry, and what was turned."""
    workload, machine = entry["workload"], entry["environment"]
    turned = f", {entry['dials']}" if entry.get("dials") else ""
    return f"{workload['name']} ({workload['model']}{turned}) on {machine['device']}, {machine['date']}"


def breakdowns(entry: dict) -> dict[str, Breakdown]:
    """The breakdown of each chapter of an entry that has one."""
    return {row["chapter"]: Breakdown(**row["breakdown"]) for row in entry["chapters"] if row["breakdown"]}


def in_ms(parts: Breakdown) -> list[str]:
    """A decode step and what it is made of, in the order of metrics.PARTS."""
    # Kernels are timed in a run of their own, so a gap can be below zero; + 0.0 only makes -0.00 0.00.
    return [f"{round(1e3 * getattr(parts, part), 2) + 0.0:.2f}" for part in PARTS]


def bar(name: str, parts: Breakdown, longest: float) -> Text:
    """A decode step as a line of a terminal: kernels, launch gaps and bubbles to scale, and the whole in ms.

    Args:
        name: what to write before it.
        parts: the step.
        longest: seconds that fill BAR characters.
    """
    line, drawn, until = Text(f"{name:<15} "), 0, 0.0
    for seconds, (sign, style) in zip((parts.kernels, parts.launch_gaps, parts.bubbles), BARS.values(), strict=True):
        until += max(seconds, 0.0)
        end = min(round(BAR * until / longest), BAR)
        line.append(sign * (end - drawn), style)
        drawn = end
    return line.append(f" {1e3 * parts.step:.2f} ms")


def legend() -> Text:
    """What the signs of `bar` stand for."""
    signs = (Text(sign, style).append(f" {name}", "none") for name, (sign, style) in BARS.items())
    return Text("  ").join([Text("ms per decode step:"), *signs])


def comparison(entry: dict) -> Table:
    """The chapters of an entry side by side."""
    table = Table(
        title=title(entry),
        caption=(
            "decode: ms of a batch of decodes, median of the widest (simulated: mean), which is kernels + launch gaps "
            "(a batch is on the GPU, no kernel runs) + bubbles (no batch is). active: share of the whole run with a "
            f"batch on the GPU. same: share of tokens that are the first row's.{_runs(entry)}"
        ),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "chapter" else "right", no_wrap=True, vertical="bottom")
    for row in entry["chapters"]:
        figures, parts = row["figures"], row["breakdown"]
        decode = "-" if figures["ms_per_decode_step"] is None else f"{figures['ms_per_decode_step']:.2f}"
        table.add_row(
            row["chapter"],
            *(in_ms(Breakdown(**parts)) if parts else (decode, "-", "-", "-")),
            f"{figures['gpu_active']:.2%}",
            f"{figures['tokens_per_second']:,.0f}",
            f"{row['speed_up']:.2f}",
            "yes" if row["same_tokens"] == 1 else f"{row['same_tokens']:.1%}",
        )
    return table


def _runs(entry: dict) -> str:
    """A sentence on the runs of each chapter, if there was more than one."""
    runs = [row.get("run_steps", [0.0]) for row in entry["chapters"]]
    if len(runs[0]) == 1:
        return ""
    most = max(max(steps) / min(steps) - 1 for steps in runs)
    return (
        f" Of {len(runs[0])} runs each, the one in the middle by the step on the host's clock; a chapter's runs "
        f"differ by {most:.1%} at most."
    )


def markdown(results: dict[str, dict]) -> str:
    """The steps of all workloads that have breakdowns, a row for each chapter, for a page in Markdown."""
    parts = {name: breakdowns(entry) for name, entry in results.items()}
    parts = {name: chapters for name, chapters in parts.items() if chapters}
    lines = [
        f"| ms per decode step | {' | '.join(f'`{name}`' for name in parts)} |",
        f"| --- |{' --- |' * len(parts)}",
    ]
    for chapter in next(iter(parts.values())):
        cells = (chapters[chapter] for chapters in parts.values())
        values = ("**{}** = {} + {} + {}".format(*in_ms(each)) for each in cells)
        lines.append(f"| {chapter} | {' | '.join(values)} |")
    return "\n".join(lines)


def headline(entry: dict) -> Table:
    """The first and the last chapter of an entry beside the published run."""
    rows = [entry["chapters"][0], entry["chapters"][-1]]
    table = Table(
        title="32 requests of 8,192 new tokens, an 8B model: this run beside the published one",
        caption=(
            "GPU active: share of time with a batch on the GPU. The published run is of another engine (transformers' "
            "own) with weights, prompts and kernels of its own, and its two rows differ in asynchrony alone. Ours have "
            "random weights, prompts of 128 tokens, and differ in CUDA graphs too: compare each pair with itself."
        ),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("", "seconds", "GPU active", "published seconds", "published GPU active"):
        table.add_column(column, justify="right" if column else "left")
    for row, (name, (seconds, active)) in zip(rows, PUBLISHED.items(), strict=True):
        ours = row["figures"]
        table.add_row(
            f"{name} ({row['chapter']})",
            f"{ours['seconds']:.1f}",
            f"{ours['gpu_active']:.2%}",
            f"{seconds:.1f}",
            f"{active:.1%}",
        )
    return table
