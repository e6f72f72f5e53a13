"""Texts that end an answer. They are looked for in text, and text is made outside the engine, from tokens that have
come back.

By then the next batch may be on the GPU, with a row for the request: as with a stop token, that row is dead. What the
answer has past the text is cut.
"""

from collections.abc import Callable, Sequence

from ..errors import InputError
from ..request import FinishReason, Request
from ..scheduler import Scheduler


class StopTexts:
    """Texts, and how to find them."""

    def __init__(self, texts: Sequence[str], decode: Callable[[Sequence[int]], str]):
        """
        Args:
            decode: the text of tokens.

        Raises:
            InputError: a text is empty, or none.
        """
        for text in texts:
            if not isinstance(text, str) or not text:
                raise InputError(f"the stop text is {text!r}; it must have at least one character")
        self.texts, self._decode = texts, decode
        self._longest = max((len(text.encode()) for text in texts), default=0)
        self._kept: dict[str, str] = {}  # by request: text that may be the beginning of one of these

    def found(self, tokens: Sequence[int]) -> bool:
        """Whether one of the texts ends within the newest token. Of the others, no more are looked at than a text has
        bytes: each has at least one."""
        text = self._decode(tokens[-self._longest - 1 :])
        return any(each in text for each in self.texts)

    def cut(self, text: str) -> str:
        """Up to the first of the texts."""
        places = [place for each in self.texts if (place := text.find(each)) >= 0]
        return text[: min(places)] if places else text

    def passed(self, id: str, added: str | None, last: bool = False) -> str | None:
        """What may be handed out of an answer that comes piece by piece: not what may be the beginning of a text, which
        is kept back until it is known to be none, or nothing follows.

        Args:
            id: of the request.
            added: what its newest token adds.
            last: whether its answer ends with that token.
        """
        if not self.texts or added is None:
            return added
        text = self._kept.get(id, "") + added
        cut = self.cut(text)
        if cut == text and not last:
            begun = (n for n in range(1, len(text) + 1) if any(each.startswith(text[-n:]) for each in self.texts))
            cut = text[: len(text) - max(begun, default=0)]
        self._kept[id] = text[len(cut) :]
        return cut


class StoppingScheduler(Scheduler):
    """A scheduler that ends requests at these texts.

    Attributes:
        stops: the texts.
    """

    stops: StopTexts

    def finish_reason(self, request: Request, token: int) -> FinishReason | None:
        reason = super().finish_reason(request, token)
        return reason or ("stop" if self.stops.found(request.generated) else None)
