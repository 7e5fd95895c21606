"""Forms batches: which frames are inferred together, and when.

A batch starts as soon as an instance of its model is free; nobody waits for company. It is the oldest frame and those
that wait in the slots beside it, up to the model's maximum. A frame whose deadline has passed, or whose caller has
gone, is dropped before it is inferred.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.catalog import Variant
from service.errors import BudgetSpentError, ShuttingDownError
from service.frames import FrameFormat, Slot, Span


@dataclass(frozen=True)
class Batch:
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


class InferenceBackend(Protocol):
    """What the scheduler needs of an inference server."""

    async def infer(self, variant: Variant, batch: Batch) -> None:
        """Fill the batch's outputs from its inputs.

        Raises:
            UpscaleError: with the reason; the whole batch fails with it.
        """
        ...


@dataclass(eq=False)
class _Waiting:
    """A frame in the queue."""

    slot: Slot
    deadline: float | None
    started: asyncio.Future[None]
    """Done when the frame's batch begins, or with the error that keeps it from beginning."""
    finished: asyncio.Future[int]
    """The number of frames in its batch, when its answer is there; or the error."""


class _Line:
    """The frames that wait for one variant."""

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.running = 0


class Scheduler:
    """One queue per variant.

    Args:
        backend: infers the batches.
        on_batch: called with the variant's name and the number of frames of every batch that begins.
        on_drop: called with the variant's name and a reason for every frame that is dropped.
    """

    def __init__(
        self,
        backend: InferenceBackend,
        on_batch: Callable[[str, int], None] = lambda variant, frames: None,
        on_drop: Callable[[str, str], None] = lambda variant, reason: None,
    ) -> None:
        self._backend = backend
        self._on_batch = on_batch
        self._on_drop = on_drop
        self._lines: dict[Variant, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def queued(self, variant: str) -> int:
        """Frames that wait for the variant."""
        return sum(len(line.waiting) for known, line in self._lines.items() if known.name == variant)

    async def infer(
        self, variant: Variant, slot: Slot, deadline: float | None, on_start: Callable[[], None] = lambda: None
    ) -> int:
        """Have the frame in `slot` inferred; returns the number of frames in its batch when the answer is in the slot.

        Args:
            variant: the network.
            slot: held by the caller; while the batch runs, by the scheduler too.
            deadline: on `time.monotonic`'s clock; after it the frame is not begun.
            on_start: called when the frame's batch begins.

        Raises:
            BudgetSpentError: the deadline passed in the queue.
            ShuttingDownError: the scheduler was closed.
            UpscaleError: what the backend said.
        """
        if self._closed:
            raise ShuttingDownError("the gateway is stopping")
        loop = asyncio.get_running_loop()
        entry = _Waiting(slot, deadline, loop.create_future(), loop.create_future())
        line = self._lines.setdefault(variant, _Line())
        line.waiting.append(entry)
        alarm = None
        if deadline is not None:
            alarm = loop.call_later(max(0.0, deadline - time.monotonic()), self._expire, variant, line, entry)
        try:
            self._start_batches(variant, line)
            await entry.started
            on_start()
            return await entry.finished
        finally:
            if alarm is not None:
                alarm.cancel()
            if entry in line.waiting:  # the caller has gone
                line.waiting.remove(entry)
                self._on_drop(variant.name, "cancelled")
            for future in (entry.started, entry.finished):
                future.cancel()

    async def close(self) -> None:
        """Refuse what waits, and wait for the batches that run."""
        self._closed = True
        for line in self._lines.values():
            while line.waiting:
                entry = line.waiting.popleft()
                if not entry.started.done():
                    entry.started.set_exception(ShuttingDownError("the gateway is stopping"))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _expire(self, variant: Variant, line: _Line, entry: _Waiting) -> None:
        if entry in line.waiting and not entry.started.done():
            line.waiting.remove(entry)
            entry.started.set_exception(BudgetSpentError("the frame's time ran out while it waited to be inferred"))
            self._on_drop(variant.name, "budget")

    def _start_batches(self, variant: Variant, line: _Line) -> None:
        while line.running < variant.instances and (entries := self._next_batch(line, variant.max_batch_frames)):
            line.running += 1
            for entry in entries:
                entry.slot.hold()
                entry.started.set_result(None)
            task = asyncio.create_task(self._run(variant, line, entries))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _next_batch(line: _Line, most: int) -> list[_Waiting]:
        """The oldest frame and its neighbours, in the order of their slots, out of the line; empty if none waits."""
        now = time.monotonic()
        # Those whose caller has just left, or whose alarm is about to ring, take themselves out of the line.
        waiting = [
            entry
            for entry in line.waiting
            if not entry.started.done() and (entry.deadline is None or now < entry.deadline)
        ]
        if not waiting:
            return []
        batch = [waiting[0]]
        # A frame whose slot begins, or ends, at a place: there is at most one of each.
        begins = {(entry.slot.source.region, entry.slot.source.offset): entry for entry in waiting}
        ends = {(entry.slot.source.region, entry.slot.source.end): entry for entry in waiting}
        while len(batch) < most:
            last = batch[-1].slot.source
            following = begins.get((last.region, last.end))
            if following is None or not batch[-1].slot.precedes(following.slot):
                break
            batch.append(following)
        while len(batch) < most:
            first = batch[0].slot.source
            previous = ends.get((first.region, first.offset))
            if previous is None or not previous.slot.precedes(batch[0].slot):
                break
            batch.insert(0, previous)
        for entry in batch:
            line.waiting.remove(entry)
        return batch

    async def _run(self, variant: Variant, line: _Line, entries: list[_Waiting]) -> None:
        self._on_batch(variant.name, len(entries))
        try:
            await self._backend.infer(variant, Batch([entry.slot for entry in entries]))
        except Exception as error:
            for entry in entries:
                if not entry.finished.done():
                    entry.finished.set_exception(error)
                    entry.finished.exception()  # looked at, even if the caller has gone
        else:
            for entry in entries:
                if not entry.finished.done():
                    entry.finished.set_result(len(entries))
        finally:
            line.running -= 1
            for entry in entries:
                entry.slot.release()
            self._start_batches(variant, line)
