"""Things that are wrong, each in its way: what the fuzzer must find, or it finds nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from tests.fuzz.fuzzed import Fuzzed


class _Faulty(Fuzzed):
    def seeds(self) -> Sequence[bytes]:
        return [b"GIF89a"]


class Crashes(_Faulty):
    """On a word that no seed has: only who sees how far its letters lead will find it."""

    def one(self, data: bytes) -> None:
        if data[:1] == b"C" and data[1:2] == b"R" and data[2:3] == b"A" and data[3:4] == b"S":
            raise IndexError("found")


class Hangs(_Faulty):
    """On every long input."""

    def one(self, data: bytes) -> None:
        if len(data) > 8:
            time.sleep(60)


class Leaks(_Faulty):
    """A kilobyte of every input, and now and then a descriptor."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def one(self, data: bytes) -> None:
        self._kept.append(bytes(1024) + data)
        if len(self._kept) % 100 == 0:
            os.dup(0)


CRASHES, HANGS, LEAKS = Crashes(), Hangs(), Leaks()
