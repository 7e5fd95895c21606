"""Where frames live between decoding and encoding: pieces of shared memory, which Triton reads and writes.

A lane is one region for frames of one format. Its inputs lie side by side and so do its outputs, so frames in
neighbouring slots are a batch without a copy. A frame that joins a batch takes the slot behind the last one's; one that
begins a batch takes a slot with room behind it. A client's own region (`service.regions`) is used in the same way,
wherever the client put its frames.

A slot is held by whoever may touch its memory: the call it belongs to, a codec thread, the batch in Triton. It is free
when the last of them lets go. If a batch ends without an answer, Triton may still write: its regions are retired, never
reused.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from service.errors import OverloadedError
from service.settings import RGB_BYTES

SHARED_MEMORY = Path("/dev/shm")
_REGION_PREFIX = "upscale-frames-"

PixelFormat = Literal["rgb24", "nv12"]
"""How a slot's pixels lie: RGB interleaved; or Y rows, then rows of U and V in turn, at half the size each way."""


@dataclass(frozen=True)
class FrameFormat:
    """What frames of one lane, and of one batch, have in common."""

    height: int
    width: int
    scale: int
    pixels: PixelFormat = "rgb24"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the frame's bytes, as the network takes them."""
        return self._shape(1)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the answer's bytes."""
        return self._shape(self.scale)

    @property
    def input_bytes(self) -> int:
        """Bytes of the frame."""
        return self.height * self.width * RGB_BYTES // (1 if self.pixels == "rgb24" else 2)

    @property
    def output_bytes(self) -> int:
        """Bytes of the answer."""
        return self.input_bytes * self.scale**2

    @property
    def slot_bytes(self) -> int:
        """Bytes of both."""
        return self.input_bytes + self.output_bytes

    def _shape(self, scale: int) -> tuple[int, ...]:
        height, width = self.height * scale, self.width * scale
        return (height, width, RGB_BYTES) if self.pixels == "rgb24" else (height * 3 // 2, width)


class Region:
    """A file in shared memory, mapped here and, if need be, by Triton.

    Args:
        descriptor: of the open file; it is closed with the region.
        file: its name in /dev/shm.
        name: under which it is registered with Triton.
        byte_size: of the file.
    """

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


class Slot:
    """Room for one frame and its answer, held until the last holder releases it.

    Who takes it is its first holder; as a context manager it is released at the end of the block.

    Args:
        layout: of the frame.
        source, answer: where Triton reads and where it writes.
        on_free: called when the last holder lets go.
    """

    def __init__(self, layout: FrameFormat, source: Span, answer: Span, on_free: Callable[[], None]) -> None:
        self.layout = layout
        self.source = source
        self.answer = answer
        self.colours: NDArray[np.float32] | None = None
        """Of a YUV frame: the maps between its numbers and RGB, (2, 3, 4)."""
        self._on_free = on_free
        self._holders = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """One more holder."""
        assert self._holders > 0, "held a free slot. This is a bug."
        self._holders += 1

    def release(self) -> None:
        """One holder less; with the last, the slot is free."""
        assert self._holders > 0, "released a free slot. This is a bug."
        self._holders -= 1
        if self._holders == 0:
            self._on_free()

    def precedes(self, other: Slot) -> bool:
        """Whether `other` can follow in a batch: it lies next to this one, frame and answer both."""
        return self.layout == other.layout and self.source.precedes(other.source) and self.answer.precedes(other.answer)

    @property
    def retired(self) -> bool:
        """Whether somebody outside may still write to it."""
        return self.source.region.retired or self.answer.region.retired

    @property
    def ours(self) -> bool:
        """Whether it is in a lane, and in no client's region."""
        return isinstance(self.source.region, Lane) and isinstance(self.answer.region, Lane)

    def retire(self) -> None:
        """Use its memory never again: somebody outside may still write to it."""
        self.source.region.retired = self.answer.region.retired = True


@dataclass(frozen=True)
class SlotBatch:
    """Neighbouring slots, to be inferred together."""

    slots: Sequence[Slot]

    @property
    def layout(self) -> FrameFormat:
        """Of each of its frames."""
        return self.slots[0].layout

    @property
    def source(self) -> Span:
        """All the frames."""
        first = self.slots[0].source
        return Span(first.region, first.offset, len(self.slots) * first.size)

    @property
    def answer(self) -> Span:
        """All the answers."""
        first = self.slots[0].answer
        return Span(first.region, first.offset, len(self.slots) * first.size)

    def retire(self) -> None:
        """Triton gave no answer, so it may still write: use this memory never again."""
        for slot in self.slots:
            slot.retire()


class Lane(Region):
    """A region of our own, with slots for frames of one format."""

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


class FrameStore:
    """All lanes, within limits on frames and on memory.

    Args:
        max_frames: slots in use at once, over all lanes, and frames in clients' regions.
        max_bytes: of shared memory, over all lanes.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        # Least recently used first.
        self._lanes: dict[FrameFormat, Lane] = {}
        self._ending: list[Lane] = []
        """Those that give out no slots any more; each goes with its last."""
        self._borrowed = 0
        self._reserved = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._subscribers: list[deque[str]] = []
        _remove_leftovers()

    @property
    def in_use(self) -> int:
        """Frames that somebody holds."""
        return sum(lane.in_use for lane in (*self._lanes.values(), *self._ending)) + self._borrowed

    @property
    def retired(self) -> int:
        """Slots in use in lanes that will not be used again."""
        return sum(lane.in_use for lane in (*self._lanes.values(), *self._ending) if lane.retired)

    @property
    def byte_size(self) -> int:
        """Bytes of all lanes."""
        return sum(lane.byte_size for lane in (*self._lanes.values(), *self._ending))

    def take(self, layout: FrameFormat, *, room: int = 1, reserved: bool = False) -> Slot:
        """A slot for a frame; the caller holds it.

        Args:
            layout: of the frame.
            room: so many frames may become neighbours in a batch: the slots behind it are kept free if they can be.
            reserved: the caller has reserved a place.

        Raises:
            OverloadedError: all frames' places are taken, or there is no memory for one of this size.
        """
        self._drop_ended()
        if not reserved:
            self.refuse_overload()
        try:
            lane = self._lanes.pop(layout, None) or self._add(layout)
            self._lanes[layout] = lane
            slot = lane.take(self._wake, room)
        except OSError as error:
            raise OverloadedError(f"no shared memory for a frame: {error.strerror}; try again later") from None
        if slot is None:
            raise OverloadedError(
                f"no shared memory for another frame of {layout.width}x{layout.height}; try again later"
            )
        return slot

    def take_after(self, slot: Slot) -> Slot | None:
        """The slot behind another, in a place that the caller has reserved, or that was free; None if it is not free.

        Only slots of lanes that are in use have others behind them: not clients', and not those that were retired.
        """
        lane = self._lanes.get(slot.layout)
        if lane is None or lane is not slot.source.region or lane.retired:
            return None
        try:
            return lane.take_after(slot, self._wake)
        except OSError:
            return None

    def take_apart(self, layout: FrameFormat, count: int) -> list[Slot]:
        """Neighbouring slots in a lane of their own, zeroed, for frames that are nobody's; the caller holds each.

        No frame's lane makes room for them, and their lane goes with the last of them.

        Raises:
            OverloadedError: there are not as many frames' places, or not as much memory, left.
        """
        self._drop_ended()
        room = min(
            self._max_frames - self.in_use - self._reserved, (self._max_bytes - self.byte_size) // layout.slot_bytes
        )
        if count > room:
            raise OverloadedError(
                f"no room for {count} more frames of {layout.width}x{layout.height} now; try again later"
            )
        slots: list[Slot] = []
        try:
            lane = Lane(layout, count)
            self._ending.append(lane)
            while len(slots) < count and (slot := lane.take(self._drop_ended_and_wake)):
                slots.append(slot)
        except OSError as error:
            for slot in slots:
                slot.release()
            self._drop_ended()
            raise OverloadedError(f"no shared memory for frames: {error.strerror}; try again later") from None
        return slots

    def borrow(
        self, layout: FrameFormat, source: Span, answer: Span, on_free: Callable[[], None], *, reserved: bool = False
    ) -> Slot:
        """As `take`, but in somebody else's memory; it counts as a frame all the same.

        Raises:
            OverloadedError: all frames' places are taken.
        """
        if not reserved:
            self.refuse_overload()
        self._borrowed += 1

        def free() -> None:
            self._borrowed -= 1
            on_free()
            self._wake()

        return Slot(layout, source, answer, free)

    async def reserve(self) -> None:
        """Wait, in turn, until a frame's place is free, and keep it for `take` or `borrow`; then `unreserve`."""
        if not self._waiting and self.in_use + self._reserved < self._max_frames:
            self._reserved += 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(granted)
            else:
                self.unreserve()  # it was granted as the caller left
            raise

    def unreserve(self) -> None:
        """Give a reservation back, used or not."""
        self._reserved -= 1
        self._wake()

    def subscribe(self) -> deque[str]:
        """The names of regions that are gone from now on, for one who registers them with a Triton to take out."""
        removed: deque[str] = deque()
        self._subscribers.append(removed)
        return removed

    def unsubscribe(self, removed: deque[str]) -> None:
        """Put no more names into what `subscribe` gave."""
        self._subscribers = [each for each in self._subscribers if each is not removed]

    def tell_removed(self, name: str) -> None:
        """A region is gone, in which no batch is at work but those that were given up: tell all subscribers."""
        for removed in self._subscribers:
            removed.append(name)

    def close(self) -> None:
        """Remove every region."""
        for lane in (*self._lanes.values(), *self._ending):
            self._remove(lane)
        self._lanes.clear()
        self._ending.clear()

    def refuse_overload(self) -> None:
        """Raises OverloadedError if all frames' places are taken or reserved."""
        if self.in_use + self._reserved >= self._max_frames:
            raise OverloadedError(f"{self._max_frames} frames are in flight already, the most allowed; try again later")

    def _wake(self) -> None:
        while self._waiting and self.in_use + self._reserved < self._max_frames:
            granted = self._waiting.popleft()
            if not granted.cancelled():  # its caller has just left
                self._reserved += 1
                granted.set_result(None)

    def _add(self, layout: FrameFormat) -> Lane:
        wanted = self._max_frames * layout.slot_bytes
        for old in [lane for lane in self._lanes.values() if lane.in_use == 0]:
            if self.byte_size + wanted <= self._max_bytes:
                break
            del self._lanes[old.layout]
            self._remove(old)
        capacity = min(self._max_frames, (self._max_bytes - self.byte_size) // layout.slot_bytes)
        if capacity < 1:
            raise OverloadedError(
                f"no shared memory for a frame of {layout.width}x{layout.height} beside those in flight; "
                "try again later"
            )
        return Lane(layout, capacity)

    def _drop_ended_and_wake(self) -> None:
        self._drop_ended()
        self._wake()

    def _drop_ended(self) -> None:
        for lane in [lane for lane in self._lanes.values() if lane.retired]:
            del self._lanes[lane.layout]
            self._ending.append(lane)
        for lane in [lane for lane in self._ending if lane.in_use == 0]:
            self._ending.remove(lane)
            self._remove(lane)

    def _remove(self, lane: Lane) -> None:
        lane.close()
        self.tell_removed(lane.name)


def _remove_leftovers() -> None:
    """Remove the regions of gateways that were killed."""
    for path in SHARED_MEMORY.glob(f"{_REGION_PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as region:
            fcntl.flock(region, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
