"""The network that serves the cases: as fast as a network can be, and it forgets nothing.

Its next token depends on every token so far, so a wrong token anywhere changes those after it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from .. import attention  # noqa: F401  (defines torch.ops.acb.paged_attention)
from ..kv_cache import AttentionLayer

VOCAB, WIDTH, POSITIONS, SCALE = 31, 4, 64, 0.1
CIRCLE, PULL = 3, 5.0


class Network(torch.nn.Module):
    """A causal LM of one attention layer, as Model runs it. In float64, so that rounding decides no token.

    A pull is added to the score of the token behind the newest one in a small circle of tokens: answers repeat
    themselves, and go on as they did before, the more the larger it is.
    """

    layers, dtype = (AttentionLayer("attention", 1, WIDTH),), torch.float64

    def __init__(self, pull: float = 0.0):
        super().__init__()
        self.pull = pull
        # Is told of every forward pass: ids, positions, which of them are sampled behind, the batch as paged_attention
        # is given it, and the output.
        self.ran: Callable | None = None
        self.attention = torch.nn.Module()
        random = torch.Generator().manual_seed(0)
        self.tokens, self.places, self.head = (
            torch.randn(shape, WIDTH, generator=random, dtype=torch.float64) for shape in (VOCAB, POSITIONS, VOCAB)
        )

    def forward(self, input_ids, position_ids, use_cache, logits_to_keep, batch):
        hidden = (self.tokens[input_ids[0]] * self.places[position_ids[0]])[:, None]
        caches = self.attention.key_cache, self.attention.value_cache
        seen = torch.ops.acb.paged_attention(hidden, hidden, hidden, *caches, *batch, SCALE, 0)
        output = Output(self.logits(seen[logits_to_keep, 0], input_ids[0, logits_to_keep])[None])
        if self.ran:
            self.ran(input_ids[0], position_ids[0], logits_to_keep, batch, output)
        return output

    def logits(self, seen: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, [rows, VOCAB], from what attention has seen, [rows, WIDTH], and the newest token,
        [rows]; the sine lets the smallest difference decide."""
        scores = (1000 * seen).sin() @ self.head.T
        if not self.pull:
            return scores
        behind = newest - newest % CIRCLE + (newest + 1) % CIRCLE
        return scores.scatter_add(-1, behind.long()[:, None] % VOCAB, torch.full_like(scores[:, :1], self.pull))


class Output(NamedTuple):
    """What a transformers model returns."""

    logits: torch.Tensor  # float64 [1, rows, VOCAB]


NETWORK, REPEATING = Network(), Network(PULL)
