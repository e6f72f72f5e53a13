"""The options of `acb` that say how tokens are sampled."""

import dataclasses
from typing import Annotated

import typer

from ..errors import InputError


def _option(help: str, **more):
    return typer.Option(help=help, rich_help_panel="Sampling", show_default=False, **more)


@dataclasses.dataclass
class Draws:
    """How tokens are chosen: fields of a Sampling."""

    temperature: Annotated[float | None, _option("Draw tokens, scores divided by this; 0: take the likeliest.")] = None
    top_k: Annotated[int | None, _option("Draw from so many of the likeliest; 0: from all.")] = None
    top_p: Annotated[float | None, _option("Draw from the fewest with so much of the probability.")] = None
    seed: Annotated[int | None, _option("Of the noise; the same for every prompt.")] = None
    repetition_penalty: Annotated[
        float | None, _option("Divides scores of tokens that were in prompt or answer.")
    ] = None
    presence_penalty: Annotated[float | None, _option("Taken off scores of tokens that were in the answer.")] = None
    frequency_penalty: Annotated[float | None, _option("The same for each time they were.")] = None
    logit_bias: Annotated[list[str] | None, _option("Added to a token's score; repeatable.", metavar="ID=VALUE")] = None
    min_tokens: Annotated[int | None, _option("No stop token before there are so many.")] = None
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Tell how likely tokens were.", rich_help_panel="Sampling")
    ] = False


Mistake = Annotated[
    str | None,
    _option("Sample with a mistake: host-counts, batch-generator, kept-rows; drafts: stale-drafts.", metavar="NAME"),
]
Asked = Annotated[
    list[str] | None,
    typer.Option("--sampling", metavar="NAME=VALUE", help="Sample: temperature=0.8, top_p=0.9, ...; repeatable."),
]


def choose_sampling(checkpoint, **asked):
    """The Sampling that the command line asks for: what the model's generation config says, but for what is given.

    Args:
        checkpoint: the model's.
        asked: fields of a Sampling, None where nothing is said; logit_bias as the command line has it.

    Returns:
        None if nothing is asked for.

    Raises:
        InputError: they make no sense.
    """
    asked = {name: value for name, value in asked.items() if value not in (None, []) and value is not False}
    if not asked:
        return None
    if "logit_bias" in asked:
        pairs = [_pair("--logit-bias", text, "ID=VALUE, as in 9=2.5") for text in asked["logit_bias"]]
        asked["logit_bias"] = {_number("--logit-bias", name, int): value for name, value in pairs}
    return dataclasses.replace(checkpoint.sampling, **asked)


def parse_sampling(texts: list[str] | None, checkpoint):
    """The same from `--sampling NAME=VALUE`, as often as given."""
    from ..sampling import Sampling

    kinds = {field.name: type(field.default) for field in dataclasses.fields(Sampling)}
    known = [name for name, kind in kinds.items() if kind in (int, float)]
    asked = {}
    for text in texts or []:
        name, value = _pair("--sampling", text, "NAME=VALUE, as in temperature=0.8")
        if name not in known:
            raise InputError(f"--sampling {text}: it takes {', '.join(known)}")
        asked[name] = _number("--sampling", text.partition("=")[2], int) if kinds[name] is int else value
    return choose_sampling(checkpoint, **asked)


def _pair(option: str, text: str, form: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{option} {text}: it takes {form}")
    return name, _number(option, value, float)


def _number(option: str, text: str, kind: type):
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{option}: {text!r} is no {'whole ' if kind is int else ''}number") from None
