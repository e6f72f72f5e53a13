"""What is right: tokens, draws and drafts, one request at a time, by nothing that an engine uses.

Draws by the same formulas as draw.py, written anew: in float64, with Python's integers, a sorted list, a loop over the
answer.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..grammar import Automaton
from ..sampling import Sampling
from ..speculation import NGRAM
from .network import NETWORK, SCALE, VOCAB, Network

WHOLE = 1 << 32


def generate(
    prompt: Sequence[int],
    new_tokens: int,
    grammar: Automaton | None = None,
    sampling: Sampling | None = None,
    network: Network = NETWORK,
) -> list[int]:
    """The network's tokens, one at a time, by nothing that an engine uses: no cache, pages, batches, masks, counts."""
    tokens, states, state = list(prompt), grammar.states if grammar else [dict.fromkeys(range(VOCAB), 0)], 0
    for _ in range(new_tokens):
        hidden = network.tokens[tokens] * network.places[: len(tokens)]
        seen = torch.softmax(SCALE * hidden @ hidden[-1], 0) @ hidden
        scores = network.logits(seen[None], torch.tensor(tokens[-1:]))[0].tolist()
        if sampling:
            tokens.append(drawn(scores, tokens, len(prompt), sampling))
            continue
        tokens.append(max(states[state], key=scores.__getitem__))
        state = states[state][tokens[-1]]
        if not states[state]:
            break
    return tokens[len(prompt) :]


def drawn(
    scores: Sequence[float], tokens: Sequence[int], prompt_len: int, sampling: Sampling, stop: Sequence[int] = ()
) -> int:
    """The next token of a request, by the scores of every token, and prompt and answer so far."""
    scores = np.array(scores, dtype=np.float64)
    for token, bias in sampling.logit_bias.items():
        scores[token] += _single(bias)
    if len(tokens) - prompt_len < sampling.min_tokens:
        scores[list(stop)] = -np.inf
    for token in set(tokens):
        penalty = _single(sampling.repetition_penalty)
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token, times in Counter(tokens[prompt_len:]).items():
        scores[token] -= _single(sampling.frequency_penalty) * times + _single(sampling.presence_penalty)
    if not sampling.temperature:
        return int(scores.argmax())
    scores /= _single(sampling.temperature)
    for token in sorted(range(len(scores)), key=lambda token: -scores[token])[_kept(scores, sampling) :]:
        scores[token] = -np.inf
    position = len(tokens)
    return max(range(len(scores)), key=lambda token: scores[token] + noise(sampling.seed, position, token))


def _kept(scores: np.ndarray, sampling: Sampling) -> int:
    """How many of the likeliest tokens are drawn from; as many as are as likely as the last of them."""
    ordered = np.sort(scores)[::-1]
    kept = min(sampling.top_k or len(ordered), len(ordered))
    if sampling.top_p < 1:
        weights = np.exp(ordered[:kept] - ordered[0])
        kept = min(kept, int(np.searchsorted(weights.cumsum(), _single(sampling.top_p) * weights.sum())) + 1)
    return int((ordered >= ordered[kept - 1]).sum())


def noise(seed: int, position: int, token: int) -> float:
    """What is added to the score of a token at a position."""
    key = _mixed((_mixed(seed) + position) % WHOLE)
    bits = _mixed((_mixed(key ^ token * 0x9E3779B1 % WHOLE) + key) % WHOLE)
    return -math.log(-math.log1p(-min((bits + 0.5) / WHOLE, 1 - 2**-24)))


def _mixed(bits: int) -> int:
    bits = (bits ^ bits >> 16) * 0x7FEB352D % WHOLE
    bits = (bits ^ bits >> 15) * 0x846CA68B % WHOLE
    return bits ^ bits >> 16


def _single(value: float) -> float:
    """As a slot takes it to the device, in float32."""
    return float(np.float32(value))


class Step(NamedTuple):
    """One decode of a request."""

    drafts: list[int]  # that it is to verify
    accepted: int  # how many of them are right


def steps(prompt: Sequence[int], answer: Sequence[int], drafts: int) -> dict[int, Step]:
    """The decodes of a request, by how many tokens it has generated before. The answer is the tokens that are right,
    and at least `drafts` more than it may generate."""
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
