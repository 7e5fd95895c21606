"""A stream's session: frames in, answers out in their order, never more in memory than its window.

Up to `window` frames are worked on at once, unread answers included, and one more may wait. While it does, the session
reads no further if it keeps all frames, and gRPC's flow control holds the client back; or, if the latest wins, the next
frame takes its place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.errors import (
    ReaderTooSlowError,
    RequestInvalidError,
    SessionIdleError,
    ShuttingDownError,
    UpscaleError,
)
from service.line import Answer, Caller, FrameLine
from service.timing import STAGES, StageClock, set_duration
from service.wishes import Wish
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Framed, serialise

Request = Framed[pb.UpscaleStreamRequest]
_DEFAULT_WINDOW = 2


@dataclass(frozen=True)
class _Arrived:
    """A frame that was read, and when, on `time.perf_counter`'s clock."""

    request: Request
    arrival: float


@dataclass(frozen=True)
class _Begun:
    """A frame that is worked on, or waits to be read by the client."""

    message: pb.UpscaleStreamRequest
    task: asyncio.Task[Answer]
    dropped: int
    """Frames dropped before it."""


class Session:
    """One call of UpscaleStream.

    Args:
        line: what every frame goes through.
        read: gives the next request, or None when the client has no more.
        write: sends a response's bytes; takes as long as the client lets it.
        caller: whose it is.
        max_window: the largest window.
        write_timeout_s: how long one answer may wait to be read.
        idle_s: how long the client may send nothing while no frame of its is worked on.
        call_s: gives the seconds until the call's deadline, or None.
        on_drop: called for every frame dropped because a later one came.
    """

    def __init__(
        self,
        line: FrameLine,
        read: Callable[[], Awaitable[Request | None]],
        write: Callable[[bytes], Awaitable[None]],
        *,
        caller: Caller,
        max_window: int,
        write_timeout_s: float,
        idle_s: float,
        call_s: Callable[[], float | None] = lambda: None,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        self._line = line
        self._caller = caller
        self._read = read
        self._write = write
        self._max_window = max_window
        self._write_timeout_s = write_timeout_s
        self._idle_s = idle_s
        self._call_s = call_s
        self._on_drop = on_drop
        self._wish = Wish.of(pb.StreamOptions())
        self._free = 0
        self._latest_wins = False
        self._next: _Arrived | None = None
        self._dropped_since = 0
        self._begun: asyncio.Queue[_Begun | None] = asyncio.Queue()
        self._ended = False
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Answer]] = set()
        self.summary = pb.StreamSummary()

    def stop(self) -> None:
        """Take no more frames; the session ends when those it has are answered."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve the session to its end.

        Raises:
            RequestInvalidError: its options make no sense.
            ReaderTooSlowError: an answer was not read in time.
            SessionIdleError: the client sent nothing for too long.
            ShuttingDownError: it was stopped.
        """
        first = await self._read_unless_stopped()
        options = first.message.options if first is not None else pb.StreamOptions()
        self._open(options)
        reader = asyncio.create_task(self._take_all(first))
        try:
            await self._answer_all(reader)
            await reader
        finally:
            reader.add_done_callback(lambda task: task.cancelled() or task.exception())  # looked at
            reader.cancel()
            for task in self._tasks:
                # Not after the wait: that may be cut short, by a client that leaves while we tidy up.
                task.add_done_callback(_let_go)
                task.cancel()
            await asyncio.wait({reader, *self._tasks})
        if self._stopping.is_set():
            raise ShuttingDownError(
                "the gateway is stopping: the frames it took are answered, send the others elsewhere"
            )

    def _open(self, options: pb.StreamOptions) -> None:
        self._wish = Wish.of(options)
        if options.window > self._max_window:
            raise RequestInvalidError(
                f"options.window is {options.window}; accepted are 1 to {self._max_window}, and 0 for the default"
            )
        if options.drop not in pb.DropPolicy.values():
            accepted = ", ".join(name for name, value in pb.DropPolicy.items() if value)
            raise RequestInvalidError(f"options.drop is {options.drop} (unknown); accepted are: {accepted}")
        self._free = options.window or min(_DEFAULT_WINDOW, self._max_window)
        self._latest_wins = options.drop == pb.DROP_POLICY_LATEST_WINS

    async def _take_all(self, first: Request | None) -> None:
        """Read the client's frames and begin them as there is room."""
        if first is not None and first.message.HasField("frame"):
            self._take(_Arrived(first, time.perf_counter()))
        request = first
        while request is not None:
            while self._next is not None and not self._latest_wins:
                self._changed.clear()
                await self._changed.wait()
            request = await self._read_unless_stopped()
            if request is None:
                break
            if request.message.HasField("options"):
                raise RequestInvalidError("options may come in the first message only")
            self._take(_Arrived(request, time.perf_counter()))
        self._ended = True
        if self._next is None:
            self._begun.put_nowait(None)

    def _take(self, arrived: _Arrived) -> None:
        if self._free:
            self._free -= 1
            self._begin(arrived)
            return
        if self._next is not None:
            self._dropped_since += 1
            self.summary.dropped += 1
            self._on_drop()
        self._next = arrived

    def _begin(self, arrived: _Arrived) -> None:
        clock = StageClock(arrived.arrival)
        clock.lap("receive")
        work = self._line.upscale(self._caller, lambda: self._wish, arrived.request, clock, self._call_s())
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._begun.put_nowait(_Begun(arrived.request.message, task, self._dropped_since))
        self._dropped_since = 0

    async def _answer_all(self, reader: asyncio.Task[None]) -> None:
        """Send the answers in the frames' order."""
        while True:
            begun = await self._next_begun(reader)
            if begun is None:
                return
            response = await self._response(begun)
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await self._write(response)
            except TimeoutError:
                raise ReaderTooSlowError(
                    f"an answer was not read within {self._write_timeout_s:g} s: the session is over"
                ) from None
            if self._next is None:
                self._free += 1
            else:
                arrived, self._next = self._next, None
                self._begin(arrived)
                self._changed.set()
                if self._ended:
                    self._begun.put_nowait(None)

    async def _next_begun(self, reader: asyncio.Task[None]) -> _Begun | None:
        """The next frame in order; or the reader's error, at once."""
        if not self._begun.empty():
            return self._begun.get_nowait()
        waiting = asyncio.create_task(self._begun.get())
        try:
            await asyncio.wait({waiting, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and reader.done():
                reader.result()  # raises what it failed with; if it did not, its last word is in the queue
            return await waiting
        finally:
            waiting.cancel()

    async def _response(self, begun: _Begun) -> bytes:
        message = pb.UpscaleStreamResponse(
            sequence=begun.message.sequence,
            presentation_time=begun.message.presentation_time,
            dropped=begun.dropped,
        )
        try:
            answer = await begun.task
        except UpscaleError as error:
            self._tasks.discard(begun.task)
            self.summary.failed += 1
            message.error.CopyFrom(
                pb.FrameError(
                    code=error.code.value[0], reason=error.reason, message=str(error), request_id=error.request_id
                )
            )
            if error.retry_after_s is not None:
                set_duration(message.error.retry_after, error.retry_after_s)
            return message.SerializeToString()
        self._tasks.discard(begun.task)
        self.summary.answered += 1
        with answer:
            describe(message, answer)
            return serialise(Framed(message, answer.data))

    async def _read_unless_stopped(self) -> Request | None:
        if self._stopping.is_set():
            return None
        reading = asyncio.ensure_future(self._read())
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {reading, stopped}, timeout=self._idle_s, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return reading.result() if reading.done() else None
                if not self._tasks:
                    raise SessionIdleError(f"nothing was sent for {self._idle_s:g} s: the session is over")
        finally:
            reading.cancel()
            stopped.cancel()


def _let_go(task: asyncio.Task[Answer]) -> None:
    """Release the slot of an answer that nobody will read."""
    if not task.cancelled() and task.exception() is None:
        with task.result():
            pass


def describe(message: pb.UpscaleResponse | pb.UpscaleStreamResponse, answer: Answer) -> None:
    """Fill in what both kinds of response say of an answer, except its bytes."""
    message.model = answer.variant.model
    message.variant = answer.variant.name
    message.batch_frames = answer.batch_frames
    message.frame.CopyFrom(answer.frame)
    for stage in STAGES:
        set_duration(getattr(message.times, stage), answer.clock.seconds[stage])
