"""Trains the counter on a CPU and saves it: `python -m acb_minimal.models.counter.train [--out DIR]`.

There are three things to learn: copy `a` from the prompt, follow every number by its successor, and stop once
the number just said equals `b`. Successors come quickly, there being many in an answer; starting and stopping
come slowly, being there once. So every other batch is made of short answers, of which many more fit. Training
is teacher-forced on whole answers, with the loss on the answer alone.

After that a few pairs are still wrong. There are few enough pairs to try them all, so that is how training
ends: try all, practise the hard ones, and again, until every one is right with some logits to spare.
"""

import argparse
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..counter import LARGEST, LONGEST, PATH, all_pairs

# A number's token id is the number itself; the other words follow.
COUNT, TO, END, PAD, UNK = range(LARGEST + 1, LARGEST + 6)
WORDS = [str(n) for n in range(LARGEST + 1)] + ["count", "to", "<end>", "<pad>", "<unk>"]

PROMPT_LENGTH = 4
IGNORED = -100  # the label that transformers' loss leaves out

# What one batch holds: so many pairs, at most so far apart. Taken in turn; both cost about the same.
BATCHES = [(32, LONGEST), (192, 12)]

# Margins, in logits: practice goes on until every pair has ENOUGH, on those that have not yet AMPLE.
ENOUGH, AMPLE = 3.0, 6.0


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, words split at white space. A word that is not in WORDS becomes `<unk>`."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model() -> LlamaForCausalLM:
    """An untrained counter, float32, its weights drawn from torch's global generator."""
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config)
    # Greedy is the default; this adds where to stop, and room for the longest answer.
    model.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD, max_new_tokens=LONGEST + 2)
    return model


def sample(pairs: int, longest: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pairs: a even over all numbers, b over its choices.

    Args:
        pairs: how many.
        longest: b - a at most.

    Returns:
        a and b, both int64 [pairs].
    """
    a = torch.randint(LARGEST + 1, (pairs,), generator=generator)
    choices = (LARGEST - a).clamp(max=longest) + 1
    return a, a + (torch.rand(pairs, generator=generator) * choices).long()


def sequences(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with their answers, padded on the right, where causal attention keeps the padding from mattering.

    Args:
        a: int64 [pairs].
        b: int64 [pairs].

    Returns:
        Token ids and labels, both int64 [pairs, 4 + longest answer + 1].
    """
    a, b = a[:, None], b[:, None]
    numbers = a + torch.arange(int((b - a).max()) + 2)
    answers = numbers.where(numbers <= b, PAD).where(numbers != b + 1, END)
    prompts = torch.cat([torch.full_like(a, COUNT), a, torch.full_like(a, TO), b], dim=1)
    tokens = torch.cat([prompts, answers], dim=1)
    labels = tokens.masked_fill(tokens == PAD, IGNORED)
    labels[:, :PROMPT_LENGTH] = IGNORED
    return tokens, labels


@torch.no_grad()
def margins(model: LlamaForCausalLM, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far the right token's logit lies above the best other one, at the closest call.

    Judged along the right answer: where the margin is positive, greedy decoding gives that answer.

    Args:
        a: int64 [pairs].
        b: int64 [pairs].

    Returns:
        The margins in logits, float32 [pairs].
    """
    tokens, labels = sequences(a, b)
    logits, wanted = model(tokens).logits[:, :-1], labels[:, 1:]
    right = tokens[:, 1:, None]
    best_other = logits.scatter(2, right, -torch.inf).amax(2)
    gaps = logits.gather(2, right).squeeze(2) - best_other
    return gaps.masked_fill(wanted == IGNORED, torch.inf).amin(1)


def descend(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, a: torch.Tensor, b: torch.Tensor
) -> float:
    """One step on these pairs (a and b are int64 [pairs]).

    Returns:
        The loss before it, in nats a token.
    """
    tokens, labels = sequences(a, b)
    loss = model(tokens, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def train(steps: int, peak_rate: float, seed: int) -> LlamaForCausalLM:
    """A trained counter. The same arguments on the same machine and thread count give the same weights.

    Args:
        peak_rate: the highest learning rate of the schedule.
    """
    torch.manual_seed(seed)
    pairs = torch.Generator().manual_seed(seed)
    tests = torch.Generator().manual_seed(seed + 1)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.05)
    began = time.monotonic()
    for step in range(1, steps + 1):
        loss = descend(model, optimizer, *sample(*BATCHES[step % len(BATCHES)], pairs))
        schedule.step()
        if step % 100 == 0 or step == steps:
            exact = (margins(model, *sample(200, LONGEST, tests)) > 0).float().mean().item()
            seconds = time.monotonic() - began
            print(f"step {step:5}  loss {loss:.6f}  exact {exact:6.1%}  {seconds:4.0f} s", flush=True)
    return model


def practise(model: LlamaForCausalLM, seed: int) -> None:
    """Trains on, in place, until the margin of every pair there is reaches ENOUGH, not before."""
    generator = torch.Generator().manual_seed(seed + 2)
    pairs = torch.tensor(sorted(all_pairs(), key=lambda pair: pair[1] - pair[0]))  # [all, 2], little padding
    while True:
        margin = torch.cat([margins(model, *chunk.T) for chunk in pairs.split(256)])
        hard = pairs[margin < AMPLE]
        least = margin.min().item()
        print(f"{(margin <= 0).sum()} wrong, {len(hard)} hard, smallest margin {least:.2f}", flush=True)
        if least >= ENOUGH:
            return
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.01)
        for _ in range(100):
            # Hard ones, and as many of any kind lest those be forgotten.
            drawn = hard[torch.randint(len(hard), (32,), generator=generator)]
            others = torch.stack(sample(32, LONGEST, generator), dim=1)
            descend(model, optimizer, *torch.cat([drawn, others]).T)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the counter model.")
    parser.add_argument("--out", type=Path, default=PATH, help="folder to save into")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)  # part of the recipe: the order of sums, and so the weights, depends on it
    model = train(args.steps, args.rate, args.seed)
    practise(model, args.seed)
    model.save_pretrained(args.out)
    build_tokenizer().save_pretrained(args.out)
    print(f"saved {model.num_parameters():,} parameters in {args.out}")


if __name__ == "__main__":
    main()
