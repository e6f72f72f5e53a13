"""All chapters on one workload, side by side; and the text that differs between two of them."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InputError
from .load import Checkpoint
from .results import Figures
from .run import Completion, Session, chapter_path, chapter_paths
from .workload import Workload


@dataclass(frozen=True)
class Comparison:
    """One chapter's figures beside those of the first.

    speed_up     new tokens per second over the first chapter's
    same_tokens  share of the generated tokens, 0 to 1, that are the first chapter's, place by place
    """

    chapter: str
    device: str
    figures: Figures
    speed_up: float
    same_tokens: float
    completions: list[Completion]


def compare(workload: Workload, device: str = "auto") -> Iterator[Comparison]:
    """Runs the workload through every chapter, on one and the same loaded model; yields each as it is done.

    Raises InputError if any of its requests cannot be served: the chapters would be compared on something else.
    """
    checkpoint = Checkpoint(workload.model)
    first: Comparison | None = None
    for chapter in chapter_paths():
        session = Session(
            workload.prompts(checkpoint.vocab_size),
            chapter,
            checkpoint,
            device,
            workload.new_tokens,
            max_running=workload.max_running,
            max_batch_tokens=workload.max_batch_tokens,
            ignore_stop=workload.prompt_tokens is not None,
            trace=True,
        )
        if session.refused:
            raise InputError(next(iter(session.refused.values())))
        completions = sorted(session.run(), key=lambda completion: int(completion.id))
        figures = session.figures()
        speed_up = figures.tokens_per_second / first.figures.tokens_per_second if first else 1.0
        same = _same(first.completions, completions) if first else 1.0
        done = Comparison(chapter, session.device.name, figures, speed_up, same, completions)
        first = first or done
        yield done


def _same(ours: list[Completion], theirs: list[Completion]) -> float:
    """Share of tokens that agree, place by place; a token that only one side has does not."""
    pairs = [(a.tokens, b.tokens) for a, b in zip(ours, theirs, strict=True)]
    agree = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return agree / sum(max(len(a), len(b)) for a, b in pairs)


def diff(old: str, new: str) -> str:
    """The unified diff from one chapter to another, each by name, short name or path. Raises InputError."""
    paths = [chapter_path(name) for name in (old, new)]
    lines = [path.read_text().splitlines(keepends=True) for path in paths]
    return "".join(difflib.unified_diff(*lines, *(path.name for path in paths)))
