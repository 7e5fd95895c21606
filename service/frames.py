"""Where frames live between decoding and encoding: slots in system shared memory, which Triton reads and writes.

A lane is one region for frames of one size. Its inputs lie side by side and so do its outputs, so frames in
neighbouring slots are a batch without a copy. Slots are handed out around the lane, so that frames that arrive together
are neighbours.

A slot is held by whoever may touch its memory: the call it belongs to, a codec thread, the batch in Triton. It is free
when the last of them lets go. If a batch ends without an answer, Triton may still write: its lane is retired, never
reused.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from service.errors import OverloadedError
from service.settings import RGB_BYTES

SHARED_MEMORY = Path("/dev/shm")
_REGION_PREFIX = "upscale-frames-"


@dataclass(frozen=True)
class FrameSize:
    """The size of a frame and of its answer: what frames of one lane, and of one batch, have in common."""

    height: int
    width: int
    scale: int

    @property
    def input_bytes(self) -> int:
        """Bytes of the frame as RGB24."""
        return RGB_BYTES * self.height * self.width

    @property
    def output_bytes(self) -> int:
        """Bytes of the answer as RGB24."""
        return self.input_bytes * self.scale**2

    @property
    def slot_bytes(self) -> int:
        """Bytes of both."""
        return self.input_bytes + self.output_bytes


class Slot:
    """Room for one frame and its answer; memory of a lane, held until the last holder releases it.

    Who takes it is its first holder; as a context manager it is released at the end of the block.
    """

    def __init__(self, lane: Lane, index: int) -> None:
        self.lane = lane
        self.index = index
        self._holders = 1

    @property
    def input(self) -> memoryview:
        """The frame: RGB24, height * width * 3 bytes, writable."""
        return self.lane.inputs(self.index, 1)

    @property
    def output(self) -> memoryview:
        """The answer: RGB24, the frame's bytes times scale squared."""
        return self.lane.outputs(self.index, 1)

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
            self.lane.free(self.index)


class Lane:
    """A region of shared memory with slots for frames of one size."""

    def __init__(self, name: str, size: FrameSize, capacity: int) -> None:
        self.name = name
        self.size = size
        self.capacity = capacity
        self.retired = False
        self._used: set[int] = set()
        self._backed: set[int] = set()
        self._next = 0
        self._descriptor = os.open(SHARED_MEMORY / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        # The lock lives as long as this process: who can take it knows that the owner is gone, in any PID namespace.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.ftruncate(self._descriptor, self.byte_size)
        self._map = mmap.mmap(self._descriptor, self.byte_size)

    @property
    def byte_size(self) -> int:
        """Bytes of the whole region."""
        return self.capacity * self.size.slot_bytes

    @property
    def in_use(self) -> int:
        """Slots somebody holds."""
        return len(self._used)

    def input_offset(self, index: int) -> int:
        """Where slot `index`'s frame begins in the region."""
        return index * self.size.input_bytes

    def output_offset(self, index: int) -> int:
        """Where slot `index`'s answer begins in the region."""
        return self.capacity * self.size.input_bytes + index * self.size.output_bytes

    def inputs(self, first: int, count: int) -> memoryview:
        """The frames of `count` neighbouring slots."""
        start = self.input_offset(first)
        return memoryview(self._map)[start : start + count * self.size.input_bytes]

    def outputs(self, first: int, count: int) -> memoryview:
        """The answers of `count` neighbouring slots."""
        start = self.output_offset(first)
        return memoryview(self._map)[start : start + count * self.size.output_bytes]

    def take(self) -> Slot | None:
        """The next free slot around the lane, or None.

        Raises:
            OSError: the system has no memory left for it.
        """
        for step in range(self.capacity):
            index = (self._next + step) % self.capacity
            if index not in self._used:
                self._back(index)
                self._used.add(index)
                self._next = (index + 1) % self.capacity
                return Slot(self, index)
        return None

    def _back(self, index: int) -> None:
        """Have the system back the slot's pages now: a full /dev/shm would end us with SIGBUS later."""
        if index not in self._backed:
            os.posix_fallocate(self._descriptor, self.input_offset(index), self.size.input_bytes)
            os.posix_fallocate(self._descriptor, self.output_offset(index), self.size.output_bytes)
            self._backed.add(index)

    def free(self, index: int) -> None:
        """Give a slot back; its last holder does."""
        self._used.remove(index)

    def close(self) -> None:
        """Remove the region's name; the memory goes when the last mapping of it does."""
        (SHARED_MEMORY / self.name).unlink(missing_ok=True)
        os.close(self._descriptor)
        with contextlib.suppress(BufferError):  # a view that is still referenced keeps the mapping, and only that
            self._map.close()


class FrameStore:
    """All lanes, within limits on frames and on memory.

    Args:
        max_frames: slots in use at once, over all lanes.
        max_bytes: of shared memory, over all lanes.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        # Least recently used first.
        self._lanes: dict[FrameSize, Lane] = {}
        self._retired: list[Lane] = []
        self.removed: list[str] = []
        """Names of regions that are gone; whoever registered them with Triton takes them from here. Retired ones are
        not among them: Triton must not unmap what it may still write to."""
        _remove_leftovers()

    @property
    def in_use(self) -> int:
        """Slots somebody holds, in all lanes."""
        return sum(lane.in_use for lane in (*self._lanes.values(), *self._retired))

    @property
    def retired(self) -> int:
        """Slots in use in lanes that will not be used again."""
        return sum(lane.in_use for lane in self._retired)

    @property
    def byte_size(self) -> int:
        """Bytes of all regions."""
        return sum(lane.byte_size for lane in (*self._lanes.values(), *self._retired))

    def take(self, size: FrameSize) -> Slot:
        """A slot for a frame; the caller holds it.

        Raises:
            OverloadedError: all frames' places are taken, or there is no memory for one of this size.
        """
        self._drop_retired()
        if self.in_use >= self._max_frames:
            raise OverloadedError(f"{self._max_frames} frames are in flight already, the most allowed; try again later")
        try:
            lane = self._lanes.pop(size, None) or self._add(size)
            self._lanes[size] = lane
            slot = lane.take()
        except OSError as error:
            raise OverloadedError(f"no shared memory for a frame: {error.strerror}; try again later") from None
        if slot is None:
            raise OverloadedError(f"no shared memory for another frame of {size.width}x{size.height}; try again later")
        return slot

    def retire(self, lane: Lane) -> None:
        """Use no slot of this lane again: somebody outside may still write to it."""
        if not lane.retired:
            lane.retired = True
            self._retired.append(lane)
            if self._lanes.get(lane.size) is lane:
                del self._lanes[lane.size]

    def close(self) -> None:
        """Remove every region."""
        for lane in (*self._lanes.values(), *self._retired):
            self._remove(lane)
        self._lanes.clear()
        self._retired.clear()

    def _add(self, size: FrameSize) -> Lane:
        wanted = self._max_frames * size.slot_bytes
        for old in [lane for lane in self._lanes.values() if lane.in_use == 0]:
            if self.byte_size + wanted <= self._max_bytes:
                break
            del self._lanes[old.size]
            self._remove(old)
        capacity = min(self._max_frames, (self._max_bytes - self.byte_size) // size.slot_bytes)
        if capacity < 1:
            raise OverloadedError(
                f"no shared memory for a frame of {size.width}x{size.height} beside those in flight; try again later"
            )
        name = f"{_REGION_PREFIX}{secrets.token_hex(8)}"
        return Lane(name, size, capacity)

    def _drop_retired(self) -> None:
        for lane in [lane for lane in self._retired if lane.in_use == 0]:
            self._retired.remove(lane)
            self._remove(lane)

    def _remove(self, lane: Lane) -> None:
        lane.close()
        if not lane.retired:
            self.removed.append(lane.name)


def _remove_leftovers() -> None:
    """Remove the regions of gateways that were killed."""
    for path in SHARED_MEMORY.glob(f"{_REGION_PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as region:
            fcntl.flock(region, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
