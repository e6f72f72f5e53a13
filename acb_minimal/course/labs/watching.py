"""Looks at a file until it is saved."""

import time
from collections.abc import Iterator
from pathlib import Path

EVERY = 0.2  # seconds


class Saved(BaseException):
    """The file that is being judged has been saved again. No Exception: an engine must not catch it."""


class Watch:
    """Knows which version of a file is looked at.

    Attributes:
        file: the file; it need not be there.
    """

    def __init__(self, file: Path):
        self.file = file
        self._seen: tuple[int, int] | None = None

    def versions(self) -> Iterator[None]:
        """Once for the file as it is, and again whenever it has been saved since."""
        while True:
            self._seen = self._now()
            yield
            self._wait()

    def check(self) -> None:
        """Ends what is being done for a version that is no longer there.

        Raises:
            Saved: the file was saved.
        """
        if self._now() != self._seen:
            self._seen = None
            raise Saved

    def _wait(self) -> None:
        """Until there is another version, and it does not change any more: some editors write in several steps."""
        before, now = None, self._seen
        while now is None or now == self._seen or now != before:
            time.sleep(EVERY)
            before, now = now, self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
