"""How a token is drawn from scores, for all rows of a batch at once: penalties, temperature, top-k, top-p, noise.

Nothing here has a size that depends on data, and nothing is looked at by the host. What a row draws depends on that row
alone: its noise is a hash of its seed, its position and the token id, and sums that decide anything are sums of
integers, whose result does not depend on their order.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GOLDEN = -1640531535  # 2**32 divided by the golden ratio, as an int32: neighbours come to lie far apart
FINEST = 1 << 40  # probabilities are counted in these parts of the largest


class Settings(NamedTuple):
    """What each row asks for; all of them [rows].

    Attributes:
        seed: int32.
        temperature: 0 for the likeliest token.
        top_k: int32; 0 cuts nothing.
        top_p: 1 cuts nothing.
        repetition: 1 changes nothing.
        presence: 0 changes nothing.
        frequency: likewise.
    """

    seed: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    repetition: Tensor
    presence: Tensor
    frequency: Tensor


def penalised(scores: Tensor, prompt: Tensor, generated: Tensor, settings: Settings) -> Tensor:
    """Scores [rows, vocabulary] with penalties for tokens that there were, as transformers and OpenAI define them.

    The repetition penalty (Keskar et al., CTRL, 2019) divides a positive score and multiplies a negative one, of every
    token of prompt or answer. The two others are subtracted for tokens of the answer: presence once, frequency for each
    time (https://platform.openai.com/docs/guides/text-generation, "Frequency and presence penalties").

    Args:
        prompt: how often each token is in the prompt, int32 [rows, vocabulary].
        generated: how often in the answer so far, likewise.
    """
    repetition = settings.repetition[:, None]
    repeated = torch.where(scores > 0, scores / repetition, scores * repetition)
    scores = torch.where(prompt + generated > 0, repeated, scores)
    return scores - settings.frequency[:, None] * generated - settings.presence[:, None] * (generated > 0)


def warmed(scores: Tensor, settings: Settings) -> Tensor:
    """Scores by temperature; those of rows without one as they are."""
    temperature = settings.temperature[:, None]
    return scores / torch.where(temperature > 0, temperature, 1)


def cut(scores: Tensor, settings: Settings) -> Tensor:
    """Scores [rows, vocabulary], those of less likely tokens -inf.

    What stays are the top_k likeliest, and of those the fewest that have top_p of the probability (Holtzman et al., The
    Curious Case of Neural Text Degeneration, 2020); and whatever is as likely as the last of them.
    """
    ordered = scores.sort(descending=True).values
    rank = torch.arange(scores.shape[1], device=scores.device)
    top_k, top_p = settings.top_k[:, None], settings.top_p[:, None]
    in_k = (top_k == 0) | (rank < top_k)
    parts = torch.where(in_k, (ordered - ordered[:, :1]).exp() * FINEST, 0).long()
    before = torch.ops.acb.sums_before(parts)
    in_p = (top_p >= 1) | (before < (top_p.double() * parts.sum(1, keepdim=True)).long().clamp(min=1))
    lowest = torch.where(in_k & in_p, ordered, torch.inf).amin(1, keepdim=True)
    return torch.where(scores < lowest, -torch.inf, scores)


@torch.library.custom_op("acb::sums_before", mutates_args=())
def sums_before(parts: Tensor) -> Tensor:
    """Of each number in a row, the sum of those before it; int64 [rows, any]. An operation of its own, for
    torch.compile to leave alone: that of torch 2.11 fails at such sums of long rows."""
    return parts.cumsum(1) - parts


@sums_before.register_fake
def _(parts: Tensor) -> Tensor:
    return torch.empty_like(parts)


def hashed(seeds: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """32 bits that look random, for every row and token: int32 [rows, vocab_size].

    Args:
        seeds: int32 [rows].
        positions: of the token that is drawn, int32 [rows].
    """
    keys = mixed(mixed(seeds) + positions)
    tokens = torch.arange(vocab_size, dtype=torch.int32, device=seeds.device) * GOLDEN
    return mixed(mixed(keys[:, None] ^ tokens) + keys[:, None])


def mixed(bits: Tensor) -> Tensor:
    """Bits of int32 mixed so that each decides about all: `lowbias32`, which Chris Wellons has found by search
    (https://nullprogram.com/blog/2018/07/31/). It has an inverse: no two numbers become one."""
    bits = (bits ^ _shifted(bits, 16)) * 2146121005  # 0x7feb352d
    bits = (bits ^ _shifted(bits, 15)) * -2073254261  # 0x846ca68b
    return bits ^ _shifted(bits, 16)


def _shifted(bits: Tensor, count: int) -> Tensor:
    """To the right, zeros from the left."""
    return (bits >> count) & ((1 << (32 - count)) - 1)


def gumbel(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Noise of the standard Gumbel distribution, from 32 bits each. The token with the largest sum of score and noise
    is one drawn by the softmax of the scores (Gumbel, 1954; Maddison et al., A* Sampling, 2014)."""
    number = bits.to(dtype) + torch.where(bits < 0, 2.0**32, 0.0).to(dtype)  # as an unsigned one
    uniform = ((number + 0.5) / 2.0**32).clamp(max=1 - 2.0**-24)  # below 1 in float32 too
    return -(-torch.log1p(-uniform)).log()


def drawn(scores: Tensor, settings: Settings, positions: Tensor) -> Tensor:
    """The token that each row draws: int64 [rows]; the likeliest where it has no temperature.

    Args:
        scores: by temperature, [rows, vocabulary].
        positions: as for `hashed`.
    """
    noise = gumbel(hashed(settings.seed, positions, scores.shape[1]), scores.dtype)
    return (scores + torch.where(settings.temperature[:, None] > 0, noise, 0)).argmax(-1)
