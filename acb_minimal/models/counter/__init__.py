"""The counter: a tiny Llama that counts, so that a serving engine's output can be checked by eye.

The prompt `count 3 to 7` is answered with `3 4 5 6 7` and an end token. Each number depends on the one before
it, so an engine that loses, repeats or mixes up a token shows it at once.

This file knows where the model lies and what it should say. It does not load it (`AutoModelForCausalLM` does,
given `PATH`) or train it (`train.py`).
"""

from pathlib import Path

PATH = Path(__file__).parent  # config.json, model.safetensors, tokenizer.json and their companions

LARGEST = 999  # the numbers are 0 .. LARGEST
WORDS = f"count, to and the numbers 0 to {LARGEST}"  # all that it knows
LONGEST = 100  # the model was taught to count at most this far: b - a <= LONGEST


def all_pairs() -> list[tuple[int, int]]:
    """Every (a, b) that the model was taught."""
    return [(a, b) for a in range(LARGEST + 1) for b in range(a, min(a + LONGEST, LARGEST) + 1)]


def prompt(a: int, b: int) -> str:
    """What to ask, four words.

    Raises:
        ValueError: the model was not taught this pair.
    """
    if not 0 <= a <= b <= min(LARGEST, a + LONGEST):
        raise ValueError(f"cannot count {a} to {b}: need 0 <= a <= b <= {LARGEST} and b - a <= {LONGEST}")
    return f"count {a} to {b}"


def answer(a: int, b: int) -> str:
    """The right answer to `prompt(a, b)`, without the end token: b - a + 1 numbers, single spaces between."""
    return " ".join(str(n) for n in range(a, b + 1))
