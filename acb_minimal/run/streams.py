"""What a run hands out: completions, and, if they are asked for, tokens as they come; and how a request is cancelled.

Engines yield whatever `scheduler.update` returns. For a stream it returns tokens as well; no engine knows. Text is made
outside the engine too, and so are texts looked for that end an answer. By the time that one is found the next batch may
be on the GPU, with a row for the request: as with a stop token, that row is dead.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import EngineError, InputError
from ..request import Batch, FinishReason, Request
from ..scheduler import Scheduler


@dataclass(frozen=True)
class Completion:
    """What became of one prompt: either `error` is None, or all else but `id` is empty.

    Attributes:
        id: the prompt's number, from "0".
        tokens: generated token ids, the stop token included.
        text: those as text, special tokens left out; None for a prompt of token ids to a model without a tokenizer.
        finish_reason: "stop" for a stop token or text, "length" for as many tokens as were asked for, "grammar"
            where its grammar allowed no more, "abort" if it was cancelled: then `tokens` are those it had.
        error: why it was not served.
        logprobs: of each token, by the model alone; None where its Sampling does not ask.
    """

    id: str
    tokens: list[int]
    text: str | None
    finish_reason: FinishReason | None
    error: str | None = None
    logprobs: list[float] | None = None


class Token(NamedTuple):
    """A token, as it comes.

    Attributes:
        id: of the prompt it answers, as in a Completion.
        token: its id.
        text: what it adds to the text; empty for a special token, or if it ends within a character, which comes with
            the token that completes it; what may be the beginning of a stop text comes likewise with the token after
            which it is none, or with the last; None where a Completion has no text.
    """

    id: str
    token: int
    text: str | None


class StreamingScheduler(Scheduler):
    """A scheduler whose `update` returns tokens too, each as a request and a place, before the finished requests."""

    def update(self, batch: Batch, tokens) -> list:
        before = {row.request: len(row.request.tokens) for row in batch.rows}
        finished = super().update(batch, tokens)
        given = ((request, place) for request, count in before.items() for place in range(count, len(request.tokens)))
        return [*given, *finished]


def once(requests: Sequence[Request], yielded: Iterable, cancelled: list[Request]) -> Iterator:
    """What an engine yields, requests and what StreamingScheduler has for tokens; and those that are `cancelled`
    meanwhile, which is emptied here. EngineError if that is not each request once, when it is finished."""
    missing, yielded, end = {request.id for request in requests}, iter(yielded), object()
    while (found := cancelled.pop(0) if cancelled else next(yielded, end)) is not end:
        if isinstance(found, Request):
            if found.finish_reason is None:
                raise EngineError(f"the engine yielded request {found.id!r} before it was finished")
            if found.id not in missing:
                raise EngineError(f"the engine yielded request {found.id!r} twice")
            missing.remove(found.id)
        elif not (isinstance(found, tuple) and found and isinstance(found[0], Request)):
            raise EngineError(f"the engine yielded {found!r}; it has to yield each request once, when it is finished")
        elif found[0].finish_reason == "abort":  # by who has just been handed another token of the same batch
            continue
        yield found
    if missing:
        first = min(missing, key=int)
        raise EngineError(f"the engine stopped without yielding {len(missing)} requests, request {first!r} first")


class Texts:
    """The texts of answers, whose tokens come one by one, and the texts before which they end."""

    def __init__(self, decode: Callable[[Sequence[int]], str | None], stops: Sequence[str] = ()):
        """InputError if a stop text is empty, or none. `decode` has the text of tokens; None if there is none."""
        for text in stops:
            if not isinstance(text, str) or not text:
                raise InputError(f"the stop text is {text!r}; it must have at least one character")
        self.decode, self.stops = decode, stops
        self._longest = max((len(text.encode()) for text in stops), default=0)
        self._read: dict[str, tuple[int, int]] = {}  # by request: from where on to decode, and up to where it was said
        self._kept: dict[str, str] = {}  # by request: text that may be the beginning of a stop text

    def stop(self, tokens: Sequence[int]) -> bool:
        """Whether a stop text ends within the newest token. Of the others, no more are looked at than a text has bytes:
        each has at least one."""
        text = self.decode(tokens[-self._longest - 1 :])
        return any(each in text for each in self.stops)

    def cut(self, text: str) -> str:
        """Up to the first of the stop texts."""
        return text[: min((place for each in self.stops if (place := text.find(each)) >= 0), default=len(text))]

    def added(self, request: Request, place: int) -> str | None:
        """What the token at a place adds. Some before it are decoded along: a token's text depends on its neighbours.
        Kept back are an unfinished character, and what may be the beginning of a stop text, unless nothing follows."""
        first, said = self._read.get(request.id, (request.prompt_len, request.prompt_len))
        before, text = (self.decode(request.tokens[first:end]) for end in (said, place + 1))
        if text is None:
            return None
        new = self._kept.pop(request.id, "")
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(before):
            self._read[request.id] = said, place + 1
            new += text[len(before) :]
        ended = request.finish_reason is not None and place == len(request.tokens) - 1
        told = self.cut(new)
        if told == new and not ended:
            begun = (n for n in range(1, len(new) + 1) if any(each.startswith(new[-n:]) for each in self.stops))
            told = new[: len(new) - max(begun, default=0)]
        self._kept[request.id] = new[len(told) :]
        return told


class StoppingScheduler(Scheduler):
    """A scheduler that ends requests at the stop texts of `texts`."""

    texts: Texts

    def finish_reason(self, request: Request, token: int) -> FinishReason | None:
        return super().finish_reason(request, token) or ("stop" if self.texts.stop(request.generated) else None)
