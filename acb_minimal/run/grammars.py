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
    """The grammar of that name, for a model's vocabulary: "any" allows everything, for timing; "twos" allows, of the
    counter's numbers, those two behind the one before, and "three" any three; another name is the path of a file with
    a JSON schema. InputError if there is none, the model has no such words, or it cannot be used."""
    file = "the path of a file with a JSON schema"
    if name not in NAMES:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"unknown grammar {name!r}: give one of {', '.join(NAMES)}, or {file}")
        try:
            schema = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read grammar {name!r}: {error}") from None
        return JsonSchema(schema, checkpoint.tokenizer(), checkpoint.vocab_size, checkpoint.stop_tokens)
    if name == "any":
        return Automaton(checkpoint.vocab_size, [dict.fromkeys(range(checkpoint.vocab_size), 0)])
    if checkpoint.name != "counter":
        other = f"not for model {checkpoint.name!r}: give any, or {file}"
        raise InputError(f"grammar {name!r} is for the counter, {other}")
    numbers = range(counter.LARGEST + 1)  # whose token ids are the numbers themselves
    (end,) = checkpoint.stop_tokens
    if name == "three":
        return Automaton(checkpoint.vocab_size, [dict.fromkeys(numbers, place) for place in (1, 2, 3)] + [{}])
    done = len(numbers) + 1  # state n + 1 is behind the number n
    after = [{end: done} | ({n + 2: n + 3} if n + 2 in numbers else {}) for n in numbers]
    return Automaton(checkpoint.vocab_size, [{n: n + 1 for n in numbers}, *after, {}])


def grammars(asked: Sequence[str | Grammar | None], checkpoint: Checkpoint) -> list[Grammar | None]:
    """Those that are asked for by name, each made once; the others as they are."""
    names = {one.removeprefix(TABLE) for one in asked if isinstance(one, str)}
    made = {name: grammar(name, checkpoint) for name in names}
    return [made[one.removeprefix(TABLE)] if isinstance(one, str) else one for one in asked]
