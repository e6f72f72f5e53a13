"""Reads a trace in Chrome's format event by event: one of any size needs only the memory of what is kept of it."""

import gzip
import io
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import InputError

PIECE = 1 << 22  # characters that are read at a time
LONGEST = 1 << 26  # characters of an event; what is longer is damaged
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
        read, decode = self._reader(file), json.JSONDecoder(strict=False).raw_decode
        text = read()
        while not (begin := _beginning(text)) and (more := read()):
            text += more
        if not begin:
            json.loads(text, strict=False)
            raise InputError(
                f"there is no trace in {str(self.path)!r}: it needs a list of events, or one as 'traceEvents'"
            )
        before, position = text[: begin - 1], begin
        while True:
            position = BETWEEN.match(text, position).end()
            if text[position : position + 1] == "]":
                break
            try:
                event, position = decode(text, position)
            except json.JSONDecodeError:  # for want of its end, most likely
                if len(text) - position > LONGEST or not (more := read()):
                    raise
                text, position = text[position:] + more, 0
                continue
            if isinstance(event, dict):
                yield event
        rest = [text[position + 1 :]]
        while more := read():
            rest.append(more)
        if before.strip():
            self.header = json.loads("".join([before, "[]", *rest]), strict=False)

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
        text = old.read(PIECE)
        while not (begin := _beginning(text)):
            text += old.read(PIECE)
        new.write(text[:begin] + "".join(json.dumps(event) + ",\n" for event in events) + text[begin:])
        shutil.copyfileobj(old, new, PIECE)


def _beginning(text: str) -> int:
    """Where the first event may begin; 0 if the list is not there, or not yet."""
    if bare := re.match(r"\s*\[", text):
        return bare.end()
    found = LIST.search(text)
    return found.end() if found else 0
