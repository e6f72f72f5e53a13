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


def read_events(
    path: Path, header: dict | None = None, progress: Callable[[float], None] = lambda share: None
) -> Iterator[dict]:
    """Each event that is an object, in the order of a file of JSON or gzipped JSON, whatever its name: an object with a
    list `traceEvents`, or a bare list of events.

    Names of Python functions bring in what is not valid UTF-8 or JSON, and are not worth losing a trace for.

    Args:
        header: gets all but the events, once they have been read.
        progress: is told now and then which share of the file has been read, 0 to 1.

    Raises:
        InputError: there is no such file, or it is no whole trace.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size or 1
            data = gzip.GzipFile(fileobj=file) if _zipped(file) else file
            text = io.TextIOWrapper(data, "utf-8-sig", "replace")

            def read() -> str:
                progress(file.tell() / size)
                return text.read(PIECE)

            yield from _events(read, repr(str(path)), {} if header is None else header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{str(path)!r} is cut short or damaged: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not a trace in JSON or gzipped JSON: {error}") from error


def _events(read: Callable[[], str], name: str, header: dict) -> Iterator[dict]:
    decode, count = json.JSONDecoder(strict=False).raw_decode, 0
    text, position = _head(read)
    if not position:
        json.loads(text, strict=False)
        raise InputError(f"there is no trace in {name}: it needs a list of events, or one as 'traceEvents'")
    other = [text[: position - 1], "[]"]
    while not text.startswith("]", position := BETWEEN.match(text, position).end()):
        try:
            event, position = decode(text, position)
        except json.JSONDecodeError as error:  # for want of its end, most likely
            if len(text) - position < LONGEST and (more := read()):
                text, position = text[position:] + more, 0
                continue
            if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
                raise InputError(f"event {count} of {name} is cut short: the file ends in it") from error
            raise InputError(f"event {count} of {name} is not valid JSON: {error.msg}") from error
        count += 1
        if isinstance(event, dict):
            yield event
    other.append(text[position + 1 :])
    while (more := read()) and sum(map(len, other)) < LONGEST:
        other.append(more)
    if other[0].strip() and not more:
        header.update(json.loads("".join(other), strict=False))


def with_events(source: Path, target: Path, events: list[dict]) -> None:
    """Writes a file of a trace again with more events, which come first; gzipped if its name ends in .gz."""
    as_it_is = {"encoding": "utf-8", "errors": "surrogateescape"}
    with source.open("rb") as file:
        old = (gzip.open if _zipped(file) else open)(source, "rt", **as_it_is)
    new = (gzip.open if target.suffix == ".gz" else open)(target, "wt", **as_it_is)
    with old, new:
        text, begin = _head(lambda: old.read(PIECE))
        new.write(text[:begin] + "".join(json.dumps(event) + ",\n" for event in events) + text[begin:])
        shutil.copyfileobj(old, new, PIECE)


def _zipped(file: io.BufferedReader) -> bool:
    return file.peek(2).startswith(b"\x1f\x8b")


def _head(read: Callable[[], str]) -> tuple[str, int]:
    """What a file begins with, and where in that the first event may begin; 0 if there is no list of events."""
    text, looked, characters = "", 0, 0
    while more := read():
        if (characters := characters + len(more)) > LONGEST:
            return "{}", 0
        text = text.lstrip() + more
        if found := re.match(r"\s*\[", text) or LIST.search(text, looked):
            return text, found.end()
        looked = max(len(text) - 100, 0)  # the key may be cut in two
    return text, 0
