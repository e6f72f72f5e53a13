"""What a token drawn from scores has to be: one request at a time, in float64, by nothing that an engine uses.

The same formulas as draw.py, written anew: Python's integers, a sorted list, a loop over the answer.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..sampling import Sampling

WHOLE = 1 << 32


def drawn(
    scores: Sequence[float], tokens: Sequence[int], prompt_len: int, sampling: Sampling, stop: Sequence[int] = ()
) -> int:
    """The next token of a request.

    Args:
        scores: of every token.
        tokens: prompt and answer so far.
        prompt_len: of these are prompt.
        stop: stop tokens.
    """
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
