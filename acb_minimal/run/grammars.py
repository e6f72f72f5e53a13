"""Grammars by name."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..grammar import Automaton, Grammar, JsonSchema
from ..models import counter
from .checkpoint import Checkpoint

NAMES = ("any", "twos", "three")
TABLE = "table:"  # before a name: followed by a table on the device, not by masks of the host's


def grammar(name: str, checkpoint: Checkpoint) -> Grammar:
    """The grammar of that name, for a model's vocabulary.

    Args:
        name: "any" allows everything, for timing; of the counter's numbers, "twos" allows those two behind the one
            before, "three" any three; another name is the path of a file with a JSON schema.

    Raises:
        InputError: there is none, the model has no such words, or it cannot be used.
    """
    if name not in NAMES:
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"unknown grammar {name!r}: give one of {', '.join(NAMES)}, or the path of a file with a JSON schema"
            )
        try:
            schema = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read grammar {name!r}: {error}") from None
        return JsonSchema(schema, checkpoint.tokenizer(), checkpoint.vocab_size, checkpoint.stop_tokens)
    if name == "any":
        return Automaton(checkpoint.vocab_size, [dict.fromkeys(range(checkpoint.vocab_size), 0)])
    if checkpoint.name != "counter":
        raise InputError(
            f"grammar {name!r} is for the counter, not for model {checkpoint.name!r}: give any, or the path of a file "
            "with a JSON schema"
        )
    numbers = range(counter.LARGEST + 1)  # whose token ids are the numbers themselves
    (end,) = checkpoint.stop_tokens
    if name == "three":
        return Automaton(checkpoint.vocab_size, [dict.fromkeys(numbers, place) for place in (1, 2, 3)] + [{}])
    done = len(numbers) + 1  # state n + 1 is behind the number n
    after = [{end: done} | ({n + 2: n + 3} if n + 2 in numbers else {}) for n in numbers]
    return Automaton(checkpoint.vocab_size, [{n: n + 1 for n in numbers}, *after, {}])


def grammars(
    asked: str | Grammar | Sequence[str | Grammar | None] | None, count: int, checkpoint: Checkpoint
) -> list[Grammar | None]:
    """A grammar, or None, for each of so many prompts.

    Raises:
        InputError: one cannot be used, or there are not as many as prompts.
    """
    each = [asked] * count if asked is None or isinstance(asked, str) or hasattr(asked, "matcher") else list(asked)
    if len(each) != count:
        raise InputError(f"there are {len(each)} grammars for {count} prompts: give one for all, or one for each")
    made = {name: grammar(name, checkpoint) for name in {name for name in each if isinstance(name, str)}}
    return [made[one] if isinstance(one, str) else one for one in each]


def without_table(asked):
    """What is asked for as `grammars` takes it, without TABLE before a name; and whether that was there."""
    names = [asked] if isinstance(asked, str) else asked if isinstance(asked, list | tuple) else []
    if not any(isinstance(name, str) and name.startswith(TABLE) for name in names):
        return asked, False
    each = [name.removeprefix(TABLE) if isinstance(name, str) else name for name in names]
    return each[0] if isinstance(asked, str) else each, True
