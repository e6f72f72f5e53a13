"""Reads a trace in Chrome's format event by event: one of any size needs only the memory of what is kept of it.

Time and memory grow with the size of a file, not with what is odd in it: what comes before the events, and one event,
may be so long and no longer.
"""

import gzip
import io
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import InputError

PIECE = 1 << 20  # characters that are read at a time
LONGEST = 1 << 24  # characters of an event, and of all that is no event; what is longer is no trace
LIST = re.compile(r'"traceEvents"\s*:\s*\[')
BETWEEN = re.compile(r"[\s,]*")


class ChromeFile:
    """A file of JSON or gzipped JSON, whatever its name: an object with a list `traceEvents`, or a bare list of events.

    Names of Python functions bring in what is not valid UTF-8 or JSON, and are not worth losing a trace for.

    Attributes:
        header: all but the events; known once they have been read.
    """

    def __init__(self, path: Path, progress: Callable[[float], None] = lambda share: None):
        """
        Args:
            progress: is told now and then which share of the file has been read, 0 to 1.
        """
        self.path, self.progress, self.header = Path(path), progress, {}

    def events(self) -> Iterator[dict]:
        """Each event that is an object, in the order of the file.

        Raises:
            InputError: there is no such file, or it is no whole trace.
        """
        try:
            with self.path.open("rb") as file:
                yield from self._events(file)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{str(self.path)!r} is cut short or damaged: {error}") from error
        except OSError as error:
            raise InputError(f"cannot read {str(self.path)!r}: {error.strerror}") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{str(self.path)!r} is not a trace in JSON or gzipped JSON: {error}") from error

    def _events(self, file: io.BufferedReader) -> Iterator[dict]:
        read, decode, count = self._reader(file), json.JSONDecoder(strict=False).raw_decode, 0
        text, position = _head(read)
        if not position:
            json.loads(text, strict=False)
            raise InputError(
                f"there is no trace in {str(self.path)!r}: it needs a list of events, or one as 'traceEvents'"
            )
        other = [text[: position - 1], "[]"]
        while True:
            position = BETWEEN.match(text, position).end()
            if text[position : position + 1] == "]":
                break
            try:
                event, position = decode(text, position)
            except json.JSONDecodeError as error:  # for want of its end, most likely
                if len(text) - position < LONGEST and (more := read()):
                    text, position = text[position:] + more, 0
                    continue
                where = f"event {count} of {str(self.path)!r}"
                if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
                    raise InputError(f"{where} is cut short: the file ends in it") from error
                raise InputError(f"{where} is not valid JSON: {error.msg}") from error
            count += 1
            if isinstance(event, dict):
                yield event
        other.append(text[position + 1 :])
        while (more := read()) and sum(map(len, other)) < LONGEST:
            other.append(more)
        if other[0].strip() and not more:
            self.header = json.loads("".join(other), strict=False)

    def _reader(self, file: io.BufferedReader) -> Callable[[], str]:
        size = self.path.stat().st_size
        data = gzip.GzipFile(fileobj=file) if file.peek(2).startswith(b"\x1f\x8b") else file
        text = io.TextIOWrapper(data, "utf-8-sig", "replace")

        def read() -> str:
            self.progress(file.tell() / size if size else 1.0)
            return text.read(PIECE)

        return read


def with_events(source: Path, target: Path, events: list[dict]) -> None:
    """Writes a file of a trace again with more events, which come first; gzipped if its name ends in .gz."""
    zipped = source.open("rb").read(2) == b"\x1f\x8b"
    as_it_is = {"encoding": "utf-8", "errors": "surrogateescape"}
    old = (gzip.open if zipped else open)(source, "rt", **as_it_is)
    new = (gzip.open if target.suffix == ".gz" else open)(target, "wt", **as_it_is)
    with old, new:
        text, begin = _head(lambda: old.read(PIECE))
        new.write(text[:begin] + "".join(json.dumps(event) + ",\n" for event in events) + text[begin:])
        shutil.copyfileobj(old, new, PIECE)


def _head(read: Callable[[], str]) -> tuple[str, int]:
    """What a file begins with, and where in that the first event may begin; 0 if there is no list of events."""
    text, looked, characters = "", 0, 0
    while more := read():
        if (characters := characters + len(more)) > LONGEST:
            return "{}", 0
        text = text.lstrip() + more
        if bare := re.match(r"\s*\[", text):
            return text, bare.end()
        if found := LIST.search(text, looked):
            return text, found.end()
        looked = max(len(text) - 100, 0)  # the key may be cut in two
    return text, 0
