"""All lanes, within what they may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from service.errors import OverloadedError
from service.frames.formats import FrameFormat
from service.frames.lanes import Lane, remove_leftovers
from service.frames.memory import Span
from service.frames.slots import Slot

_MOST_LANES = 64
"""An idle lane is kept for the next frame of its format, and is an open file: frames of ever other sizes shall not use
up what a process may have open."""


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
        remove_leftovers()

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
            if self.byte_size + wanted <= self._max_bytes and len(self._lanes) < _MOST_LANES:
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
