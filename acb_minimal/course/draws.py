"""Sampling in chapters: what requests are answered, how often tokens are drawn, and what the host waits for."""

from collections.abc import Sequence

import torch
from rich.table import Table

from .. import draw
from ..models import counter
from ..run.options import Options
from ..run.workload import workload
from ..sampling import Sampling
from ..trace.formatting import in_ms, share, table
from ..trace.idle import typical_of
from .counting import ask
from .notebook import machine, timed


def answered(
    sampling: Sampling,
    *chapters: str,
    pairs: Sequence[tuple[int, int]] = ((10, 12), (3, 7)),
    mistake: str | None = None,
    max_running: int = 3,
) -> Table:
    """What prompts that ask to count are answered by these chapters, on this machine, no more than 8 tokens each.

    Args:
        mistake: by name, as `acb run --mistake` takes it.
        max_running: requests at a time.
    """
    asked = [counter.prompt(*pair) for pair in pairs]
    limits = {"sampling": sampling, "max_running": max_running, "max_batch_tokens": 8, "page_size": 8}
    title = f"{f'with the mistake {mistake}' if mistake else 'drawn'}, on {machine().name}"
    made = table(title, "chapter", *asked, left=len(asked) + 1)
    for chapter in chapters:
        _, done = ask(asked, chapter, 8, Options(mistake=mistake), **limits)
        made.add_row(chapter, *(each.text for each in done))
    return made


def often(scores: Sequence[float], draws: int = 20_000) -> Table:
    """How often each of a few tokens is drawn, by as many seeds, beside its probability."""
    device, count = machine().torch_device, len(scores)
    seeds = torch.arange(draws, dtype=torch.int32, device=device)
    none, ones = torch.zeros_like(seeds), torch.ones(draws, device=device)
    rows = torch.tensor(scores, device=device).expand(draws, -1)
    found = draw.drawn(rows, draw.Settings(seeds, ones, none, ones, ones, none, none), none).bincount(minlength=count)
    made = table(f"{draws:,} draws on {machine().name}", "token", "probability", "drawn")
    for token, (chance, times) in enumerate(zip(rows[0].softmax(0).tolist(), found.tolist(), strict=True)):
        made.add_row(str(token), share(chance, 1.0), share(times, draws))
    return made


def steps(name: str, sampling: Sampling, *chapters: str) -> Table:
    """The decode step of chapters, launched as graphs, and how often the host waits in it, with the likeliest tokens
    and with these draws."""
    load = workload(name).override(new_tokens=40)
    made = table("", "chapter", "tokens", "ms per step", "waits in a step")
    for chapter in chapters:
        for told, asked in (("the likeliest", None), ("drawn", sampling)):
            trace = timed(load, chapter, graphs=True, sampling=asked).trace
            made.title = f"{name} on {trace.device}"
            waits = [span for span in trace.lane("CPU") if span.name == "wait"]
            made.add_row(chapter, told, in_ms(typical_of(trace).step), f"{len(waits) / len(trace.steps()):.0f}")
    return made
