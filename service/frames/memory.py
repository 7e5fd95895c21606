"""Pieces of shared memory."""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


class Region:
    """A file in shared memory, mapped here and, if need be, by Triton.

    Args:
        descriptor: of the open file; it is closed with the region.
        file: its name in /dev/shm.
        name: under which it is registered with Triton.
        byte_size: of the file.
    """

    ours = False
    """Whether it was made here, and not by a client."""

    def __init__(self, descriptor: int, file: str, name: str, byte_size: int) -> None:
        self.file = file
        self.name = name
        self.byte_size = byte_size
        self.retired = False
        """Whether Triton may still write to it, after a batch that ended without an answer."""
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, byte_size)

    def view(self, offset: int, size: int) -> memoryview:
        """A piece of its memory, writable."""
        return memoryview(self._map)[offset : offset + size]

    def check(self) -> None:
        """Fail if the memory is not to be touched now."""

    def is_at_its_name(self) -> bool:
        """Whether its name in /dev/shm still means this file."""
        with contextlib.suppress(OSError):
            found = (SHARED_MEMORY / self.file).lstat()
            ours = os.fstat(self.descriptor)
            return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
        return False

    def unmap(self) -> None:
        """Let the memory go."""
        os.close(self.descriptor)
        with contextlib.suppress(BufferError):  # a view that is still referenced keeps the mapping, and only that
            self._map.close()


@dataclass(frozen=True)
class Span:
    """A piece of a region."""

    region: Region
    offset: int
    size: int

    @property
    def view(self) -> memoryview:
        """Its memory, writable."""
        self.region.check()
        return self.region.view(self.offset, self.size)

    @property
    def end(self) -> int:
        """Where it ends in the region."""
        return self.offset + self.size

    def precedes(self, other: Span) -> bool:
        """Whether `other` begins where this ends."""
        return self.region is other.region and self.end == other.offset
