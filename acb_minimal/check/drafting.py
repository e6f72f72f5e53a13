"""How many drafts are right: by nothing that an engine uses, one request and one step at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from ..speculation import NGRAM


class Step(NamedTuple):
    """One decode of a request.

    Attributes:
        drafts: that it is to verify.
        accepted: how many of them are right.
    """

    drafts: list[int]
    accepted: int


def steps(prompt: Sequence[int], answer: Sequence[int], drafts: int) -> dict[int, Step]:
    """The decodes of a request, by how many tokens it has generated before.

    Args:
        answer: the tokens that are right, and at least `drafts` more than it may generate.
    """
    tokens, found, place = [*prompt, *answer], {}, 1
    while place + drafts < len(answer):
        before = len(prompt) + place
        guessed = guesses(tokens[:before], drafts)
        right = [guess == token for guess, token in zip(guessed, tokens[before:], strict=False)]
        accepted = (*right, False).index(False)
        found[place] = Step(guessed, accepted)
        place += accepted + 1
    return found


def guesses(tokens: list[int], count: int) -> list[int]:
    """What came behind the newest of these tokens where most of them, NGRAM at most, were before."""
    newest = len(tokens) - 1

    def alike(end: int) -> int:
        backs = range(min(NGRAM, end + 1))
        return next((back for back in backs if tokens[end - back] != tokens[newest - back]), len(backs))

    end = max(range(newest), key=lambda end: (alike(end), end), default=-1)
    period = newest - end
    return [tokens[end + 1 + place % period] for place in range(count)]
