"""A frame that waits for its inference: the planner's job, with its memory and with a caller who waits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from service.catalog import Variant
from service.frames import FrameFormat, FrameStore, Slot
from service.scheduling.jobs import Job, Priority, Work

if TYPE_CHECKING:
    from service.tracing import FrameSpan


class FrameJob(Job):
    """A frame of the gateway's: a job with memory, and with a caller who waits.

    Args:
        variants: that may answer, best first.
        layout: of the frame.
        deadline: on `time.monotonic`'s clock, when its answer must be in the slot; None if it need not.
        frames: where it gets a slot from.
        priority, client: as of any job.
        slot: where it lies already; None to have it lie beside a neighbour, if there is one.
        colours: of a YUV frame, as the slot's.
        on_begin: called when it is begun.
        span: its part in a trace, if there is one.
    """

    __slots__ = ("_frames", "_left", "colours", "done", "finished_at", "layout", "on_begin", "slot", "span", "variants")

    def __init__(
        self,
        variants: Sequence[Variant],
        layout: FrameFormat,
        deadline: float | None,
        frames: FrameStore,
        *,
        priority: Priority = Priority.LIVE,
        client: Hashable = None,
        slot: Slot | None = None,
        colours: NDArray[np.float32] | None = None,
        on_begin: Callable[[], None] = lambda: None,
        span: FrameSpan | None = None,
    ) -> None:
        super().__init__(
            [Work(variant.name, layout) for variant in variants],
            time.monotonic(),
            math.inf if deadline is None else deadline,
            priority=priority,
            client=client,
        )
        self.variants = variants
        self.layout = layout
        self.colours = colours
        self.slot = slot
        self.on_begin = on_begin
        self.span = span
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The number of frames in its batch, when its answer is there."""
        self.finished_at = 0.0
        self._frames = frames
        self._left: Slot | None = None

    @property
    def variant(self) -> Variant:
        """The network that it was accepted for."""
        return next(variant for variant in self.variants if variant.name == self.work.variant)

    def lie_after(self, other: Job) -> bool:
        """Whether it lies in the next slot, or takes that now."""
        before = cast("FrameJob", other).slot
        if before is None:  # it failed with this one, and has found no new slot yet
            return False
        if self.slot is None:
            self.slot = self._frames.take_after(before)
            return self.slot is not None
        return before.precedes(self.slot)

    def settle(self) -> None:
        """Be in a slot, if it is not yet, with the pixels that were in the last one.

        Raises:
            OverloadedError: there is no room.
        """
        if self.slot is None:
            self.slot = self._frames.take(self.layout, room=self.variant.max_batch_frames, reserved=True)
        self.slot.colours = self.colours
        if self._left is not None:
            self.slot.source.view[:] = self._left.source.view
            self._left.release()
            self._left = None

    def let_go(self) -> bool:
        """Leave a slot that somebody may still write to; false if it cannot be inferred again."""
        if self.done.done():
            return False
        assert self.slot is not None
        if self.slot.retired:
            if not self.slot.ours:
                return False
            self._left, self.slot = self.slot, None
        return True

    def free(self) -> None:
        """Its caller's hold on the slot ends."""
        for slot in (self.slot, self._left):
            if slot is not None:
                slot.release()
        self.slot = self._left = None

    def probe(self, slot: Slot) -> FrameJob:
        """A frame of nobody's, to see how long the last of its networks takes."""
        return FrameJob(
            self.variants[-1:],
            self.layout,
            None,
            self._frames,
            priority=Priority.OFFLINE,
            slot=slot,
            colours=self.colours,
        )
