"""Files that are read again when they change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


class ReloadedFiles(Generic[T]):
    """What some files mean, as they are now. While they cannot be read or make no sense, what they were holds.

    Safe to use from any thread. Replace files by renaming, so that none is read half written.

    Args:
        paths: the files.
        parse: makes a value of their contents; raises ValueError if they make no sense.

    Raises:
        OSError, ValueError: they cannot be read, or make no sense, to begin with.
    """

    def __init__(self, paths: Sequence[Path], parse: Callable[..., T]) -> None:
        self._paths = paths
        self._parse = parse
        self._seen = self._look()
        self._value = self._read()
        self._looked_at = time.monotonic()
        self._complaint = ""

    @property
    def value(self) -> T:
        """Looks at the files at most once a second."""
        now = time.monotonic()
        if now >= self._looked_at + _LOOK_EVERY_S:
            self._looked_at = now
            self._look_again()
        return self._value

    def _look_again(self) -> None:
        names = ", ".join(map(str, self._paths))
        try:
            seen = self._look()
            if seen == self._seen and not self._complaint:
                return
            self._value = self._read()
            self._seen = seen
        except (OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("%s: %s; what was read before still holds", names, error)
            return
        self._complaint = ""
        log.info("read again: %s", names)

    def _look(self) -> list[tuple[int, int, int]]:
        stats = [path.stat() for path in self._paths]
        return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats]

    def _read(self) -> T:
        return self._parse(*(path.read_bytes() for path in self._paths))
