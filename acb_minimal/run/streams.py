"""What a run hands out: completions, and, if they are asked for, tokens as they come; and how a request is cancelled.

Engines yield whatever `scheduler.update` returns. For a stream it returns tokens as well; no engine knows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import EngineError
from ..request import Batch, FinishReason, Request
from ..scheduler import Scheduler


@dataclass(frozen=True)
class Completion:
    """What became of one prompt: either `error` is None, or all else but `id` is empty.

    Attributes:
        id: the prompt's number, from "0".
        tokens: generated token ids, the stop token included.
        text: those as text, special tokens left out; None for a prompt of token ids to a model without a tokenizer.
        finish_reason: "stop" for a stop token, "length" for as many tokens as were asked for, "grammar"
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


class Stream(Iterator):
    """Completions as requests finish, and tokens before them if they were asked for.

    The engine stands still while its reader does: nothing is lost, and nobody else gets a token meanwhile.
    """

    def __init__(self, session):
        """
        Args:
            session: a Session that has not run.
        """
        self._session, self._items = session, session.completions()

    def __next__(self) -> Completion | Token:
        return next(self._items)

    def cancel(self, id: str) -> bool:
        """Ends a request: its completion, with what it has got so far, comes next. That can be a token more than was
        handed out, if they came from one batch. False if it has finished already.

        Raises:
            InputError: there is no such request.
        """
        return self._session.cancel(id)

    def close(self) -> None:
        """Ends the run: whatever is not finished is dropped."""
        self._items.close()


class StreamingScheduler(Scheduler):
    """A scheduler whose `update` returns tokens too, each as a request and a place, before the finished requests."""

    def update(self, batch: Batch, tokens) -> list:
        before = {row.request: len(row.request.tokens) for row in batch.rows}
        finished = super().update(batch, tokens)
        given = ((request, place) for request, count in before.items() for place in range(count, len(request.tokens)))
        return [*given, *finished]


def once(requests: Sequence[Request], yielded: Iterable, cancelled: list[Request]) -> Iterator:
    """What an engine yields, if that is each request once, when it is finished; and those that are cancelled meanwhile.

    Args:
        requests: all of them.
        yielded: by the engine: requests, and what StreamingScheduler has for tokens.
        cancelled: grows as requests are, and is emptied here.

    Raises:
        EngineError: it is something else.
    """
    missing, yielded, end = {request.id for request in requests}, iter(yielded), object()
    while True:
        found = cancelled.pop(0) if cancelled else next(yielded, end)
        if found is end:
            break
        if not isinstance(found, Request):
            request, _ = found
            if request.finish_reason != "abort":  # by who has just been handed another token of the same batch
                yield found
            continue
        if found.finish_reason is None:
            raise EngineError(f"the engine yielded request {found.id!r} before it was finished")
        if found.id not in missing:
            raise EngineError(f"the engine yielded request {found.id!r} twice")
        missing.remove(found.id)
        yield found
    if missing:
        first = min(missing, key=int)
        raise EngineError(f"the engine stopped without yielding {len(missing)} requests, request {first!r} first")


class Texts:
    """Makes text of tokens that come one by one."""

    def __init__(self, decode: Callable[[Sequence[int]], str | None]):
        """
        Args:
            decode: the text of tokens; None if there is none to be had.
        """
        self._decode = decode
        self._read: dict[str, tuple[int, int]] = {}  # by request: from where on to decode, and up to where it was said

    def added(self, request: Request, place: int) -> str | None:
        """What the token at a place adds. Some before it are decoded along: a token's text depends on its neighbours.
        An unfinished character is kept back."""
        first, said = self._read.get(request.id, (request.prompt_len, request.prompt_len))
        before, text = (self._decode(request.tokens[first:end]) for end in (said, place + 1))
        if text is None or text.endswith("\N{REPLACEMENT CHARACTER}") or len(text) <= len(before):
            return text and ""
        self._read[request.id] = said, place + 1
        return text[len(before) :]
