"""Asks the counter to count, looks for mistakes: `python -m acb_minimal.models.counter.check [--pairs N] [--all]`.

This file loads the model as any user would and decodes it with transformers' own greedy `generate`. It knows
nothing of how the model was trained. It also reports the margin: how far the chosen token's logit lies above
the next best at the closest call. Another attention kernel sums in another order, so its logits differ a
little; the margin is how far they may drift apart before a token changes.
"""

import argparse
import random
import sys
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..counter import PATH, all_pairs, answer, prompt

Pair = tuple[int, int]


class Mistake(NamedTuple):
    """A pair, and what the model said instead of counting from the one to the other."""

    pair: Pair
    said: str


@torch.no_grad()
def check(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[Pair], batch: int = 256
) -> tuple[list[Mistake], float]:
    """The wrong answers among `pairs`, and the smallest margin over all tokens generated, in logits.

    An answer is right if it is the expected numbers followed by the end token, and nothing else.
    """
    mistakes, margin = [], float("inf")
    pairs = sorted(pairs, key=lambda pair: pair[1] - pair[0])  # rows of a batch end at about the same time
    for start in range(0, len(pairs), batch):
        asked = pairs[start : start + batch]
        # Every prompt has four tokens, so no row is padded.
        inputs = tokenizer([prompt(a, b) for a, b in asked], return_tensors="pt").to(model.device)
        out = model.generate(**inputs, do_sample=False, output_logits=True, return_dict_in_generate=True)
        tokens = out.sequences[:, inputs.input_ids.shape[1] :]
        for pair, row in zip(asked, tokens.tolist(), strict=True):
            said = tokenizer.decode([token for token in row if token != tokenizer.pad_token_id])
            if said != f"{answer(*pair)} {tokenizer.eos_token}":
                mistakes.append(Mistake(pair, said))
        for column, logits in zip(tokens.T, out.logits, strict=True):
            best, second = logits[column != tokenizer.pad_token_id].topk(2).values.T  # rows still counting
            margin = min(margin, (best - second).min().item())
    return mistakes, margin


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the counter model.")
    parser.add_argument("--pairs", type=int, default=10_000, help="how many random pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="every pair there is, in place of random ones")
    args = parser.parse_args()
    pairs = all_pairs() if args.all else random.Random(args.seed).choices(all_pairs(), k=args.pairs)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(PATH), AutoTokenizer.from_pretrained(PATH)
    mistakes, margin = check(model, tokenizer, pairs)
    print(f"{len(pairs) - len(mistakes):,} of {len(pairs):,} exact; smallest margin {margin:.2f} logits")
    for pair, said in mistakes[:5]:
        print(f"  {prompt(*pair)}: {said}")
    sys.exit(1 if mistakes else 0)


if __name__ == "__main__":
    main()
