"""Regions of our own, divided into slots."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable

from service.frames.formats import FrameFormat
from service.frames.memory import SHARED_MEMORY, Region, Span
from service.frames.slots import Slot

_REGION_PREFIX = "upscale-frames-"


class Lane(Region):
    """A region of our own, with slots for frames of one format."""

    ours = True

    def __init__(self, layout: FrameFormat, capacity: int) -> None:
        self.layout = layout
        self.capacity = capacity
        self._used: set[int] = set()
        self._backed: set[int] = set()
        name = f"{_REGION_PREFIX}{secrets.token_hex(8)}"
        descriptor = os.open(SHARED_MEMORY / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        # The lock lives as long as this process: who can take it knows that the owner is gone, in any PID namespace.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, capacity * layout.slot_bytes)
        super().__init__(descriptor, name, name, capacity * layout.slot_bytes)

    @property
    def in_use(self) -> int:
        """Slots somebody holds."""
        return len(self._used)

    def take(self, on_free: Callable[[], None], room: int = 1) -> Slot | None:
        """A free slot, the first of `room` free ones if it can be; or None. `on_free` is called when it is free again.

        Raises:
            OSError: the system has no memory left for it.
        """
        index = self._free(max(1, room))
        return None if index is None else self._take(index, on_free)

    def take_after(self, slot: Slot, on_free: Callable[[], None]) -> Slot | None:
        """The slot behind another of the lane, or None if there is none or it is not free.

        Raises:
            OSError: as `take`.
        """
        index = slot.source.end // self.layout.input_bytes
        return None if index >= self.capacity or index in self._used else self._take(index, on_free)

    def _free(self, room: int) -> int | None:
        """Whoever comes next may take the slots behind, so that batches grow, and do not grow into each other."""
        used = self._used
        for start in range(0, self.capacity - room + 1, room):
            if used.isdisjoint(range(start, start + room)):
                return start
        longest, found, run = 0, None, 0
        for index in range(self.capacity):
            run = 0 if index in used else run + 1
            if run > longest:
                longest, found = run, index - run + 1
        return found

    def _take(self, index: int, on_free: Callable[[], None]) -> Slot:
        slot = self._slot(index, on_free)
        self._used.add(index)
        return slot

    def _slot(self, index: int, on_free: Callable[[], None]) -> Slot:
        layout = self.layout
        source = Span(self, index * layout.input_bytes, layout.input_bytes)
        answer = Span(self, self.capacity * layout.input_bytes + index * layout.output_bytes, layout.output_bytes)
        if index not in self._backed:
            # Have the system back the pages now: a full /dev/shm would end us with SIGBUS later.
            os.posix_fallocate(self.descriptor, source.offset, source.size)
            os.posix_fallocate(self.descriptor, answer.offset, answer.size)
            self._backed.add(index)

        def free() -> None:
            self._used.remove(index)
            on_free()

        return Slot(layout, source, answer, free)

    def close(self) -> None:
        """Remove the region's name; the memory goes when the last mapping of it does."""
        (SHARED_MEMORY / self.file).unlink(missing_ok=True)
        self.unmap()


def remove_leftovers() -> None:
    """Remove the regions of gateways that were killed."""
    for path in SHARED_MEMORY.glob(f"{_REGION_PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as region:
            fcntl.flock(region, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
