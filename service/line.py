"""One frame's way through the gateway, whichever call brought it: into a slot, through Triton, out of the slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

from service import codec
from service.catalog import Catalog, Variant
from service.codec import FrameInfo, Output
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    InternalError,
    OverloadedError,
    RequestInvalidError,
    UpscaleError,
)
from service.frames import FrameStore, Slot, Span
from service.metrics import Metrics
from service.regions import Regions
from service.scheduler import Scheduler
from service.scheduling.jobs import Priority
from service.timing import StageClock
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Buffer, Framed

T = TypeVar("T")
FrameMessage = pb.UpscaleRequest | pb.UpscaleStreamRequest
PROFILES = {pb.PROFILE_CLEAN: "clean", pb.PROFILE_COMPRESSED: "compressed"}
PRIORITIES = {pb.PRIORITY_LIVE: Priority.LIVE, pb.PRIORITY_OFFLINE: Priority.OFFLINE}


@dataclass(frozen=True)
class Wish:
    """What is wanted of a frame: a request's fields, or a session's."""

    model: str
    scale: int
    profile: str
    output: pb.OutputFormat
    budget_s: float | None
    priority: Priority
    step_down: bool
    """Whether a lesser model may answer, if this one cannot within the budget."""

    @classmethod
    def of(cls, message: pb.UpscaleRequest | pb.StreamOptions) -> Wish:
        """What the message says.

        Raises:
            RequestInvalidError: a field makes no sense.
        """
        budget_s = message.budget.ToNanoseconds() / 1e9 if message.HasField("budget") else None
        if budget_s is not None and budget_s <= 0:
            raise RequestInvalidError(f"budget is {budget_s:g} s; it must be more than 0, or absent")
        if message.profile not in (pb.PROFILE_UNSPECIFIED, *PROFILES):
            accepted = ", ".join(pb.Profile.Name(known) for known in PROFILES)
            raise RequestInvalidError(f"profile is {message.profile} (unknown); accepted are: {accepted}")
        if message.priority not in (pb.PRIORITY_UNSPECIFIED, *PRIORITIES):
            accepted = ", ".join(pb.Priority.Name(known) for known in PRIORITIES)
            raise RequestInvalidError(f"priority is {message.priority} (unknown); accepted are: {accepted}")
        return cls(
            model=message.model,
            scale=message.scale,
            profile=PROFILES.get(message.profile, ""),
            output=message.output,
            budget_s=budget_s,
            priority=PRIORITIES.get(message.priority, Priority.LIVE),
            step_down=message.step_down,
        )


@dataclass(frozen=True)
class _Frame:
    """A frame that was understood."""

    message: FrameMessage
    data: Buffer | None
    """None if it lies in the client's region."""
    info: FrameInfo
    output: Output
    variant: Variant

    @property
    def stays_in_place(self) -> bool:
        """Whether Triton reads the client's memory and writes to it, and no pixel comes by here."""
        in_regions = self.message.frame.HasField("region") and self.message.HasField("answer")
        return in_regions and codec.lies_as_in_slot(self.info.encoding) and self.info.encoding == self.output.encoding

    def head(self) -> pb.Frame:
        """What the response says of the answer, but for its bytes."""
        message = self.message
        return pb.Frame(
            width=self.info.width * self.variant.scale,
            height=self.info.height * self.variant.scale,
            encoding=self.output.encoding,
            colour=message.frame.colour if message.frame.HasField("colour") else None,
            region=message.answer if message.HasField("answer") else None,
        )


class Answer:
    """An enlarged frame; a context manager that holds its slot, and `data` is good as long as it is held."""

    def __init__(
        self, variant: Variant, frame: pb.Frame, data: Buffer | None, batch_frames: int, clock: StageClock, slot: Slot
    ) -> None:
        self.variant = variant
        self.frame = frame
        """Without its bytes."""
        self.data = data
        """None if they lie in the client's region."""
        self.batch_frames = batch_frames
        self.clock = clock
        self._slot = slot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._slot.release()


class FrameLine:
    """What every frame goes through.

    Args:
        min_side: the shortest side a frame may have.
        codecs: threads for what takes long.
    """

    def __init__(
        self,
        catalog: Catalog,
        frames: FrameStore,
        regions: Regions,
        scheduler: Scheduler,
        metrics: Metrics,
        codecs: ThreadPoolExecutor,
        min_side: int,
    ) -> None:
        self._catalog = catalog
        self._frames = frames
        self._regions = regions
        self._scheduler = scheduler
        self._metrics = metrics
        self._codecs = codecs
        self._min_side = min_side

    async def upscale(
        self,
        method: str,
        wish: Callable[[], Wish],
        framed: Framed[pb.UpscaleRequest] | Framed[pb.UpscaleStreamRequest],
        clock: StageClock,
        *,
        call_s: float | None = None,
        patient: bool = False,
    ) -> Answer:
        """Enlarge a frame.

        Args:
            method: the RPC, for the metrics.
            wish: gives what is wanted, or says why that makes no sense.
            framed: the message with the frame.
            clock: of this frame; the message has just come.
            call_s: seconds until the call's own deadline.
            patient: wait in turn for a free slot, instead of failing.

        Raises:
            UpscaleError: what kept it from being enlarged.
        """
        variant_name = ""
        try:
            message = framed.message
            wanted = wish()
            info = codec.inspect(message.frame, framed.data, self._min_side)
            output = codec.output_format(wanted.output, info.encoding)
            variant = self._catalog.resolve(
                wanted.model, wanted.scale, wanted.profile, info.width, info.height, info.pixels
            )
            variant_name = variant.name
            if not self._catalog.is_ready(variant.name):
                raise BackendUnavailableError(f"{variant.name} is not ready: Triton is gone or does not hold it now")
            deadline = _deadline(clock, wanted.budget_s, call_s)
            frame = _Frame(message, framed.data, info, output, variant)
            if patient:
                await self._reserve(deadline)
            try:
                slot = self._slot(frame, reserved=patient)
            finally:
                if patient:
                    self._frames.unreserve()
            answer = await self._through(slot, frame, clock, deadline)
        except UpscaleError as error:
            self._metrics.frame_failed(method, variant_name, error.code.name)
            if isinstance(error, OverloadedError):
                self._metrics.frame_shed(variant_name, "overloaded")
            raise
        except asyncio.CancelledError:
            self._metrics.frame_failed(method, variant_name, "CANCELLED")
            raise
        except Exception:
            self._metrics.frame_failed(method, variant_name, InternalError.code.name)
            raise
        # Counting can wait until the answer is on its way.
        seconds = dict(clock.seconds)
        asyncio.get_running_loop().call_soon(self._metrics.frame_done, method, variant.name, seconds, wanted.budget_s)
        return answer

    async def _reserve(self, deadline: float | None) -> None:
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await self._frames.reserve()
        except TimeoutError:
            raise BudgetSpentError("the frame's time ran out before there was room for it") from None

    def _slot(self, frame: _Frame, *, reserved: bool) -> Slot:
        """Where the frame is inferred: in the client's regions if it can stay there, else in a slot of ours."""
        layout = frame.info.layout(frame.variant.scale)
        source, answer = self._source_span(frame), self._answer_span(frame)
        if source and answer and frame.stays_in_place:
            slot = self._regions.borrow(layout, source, answer, reserved=reserved)
        else:
            slot = self._frames.take(layout, reserved=reserved)
        slot.colours = frame.info.colours
        return slot

    async def _through(self, slot: Slot, frame: _Frame, clock: StageClock, deadline: float | None) -> Answer:
        """Into the slot, through Triton, out of the slot; from here on the slot is ours to release."""
        info, output, variant = frame.info, frame.output, frame.variant
        try:
            if frame.data is not None:
                await self._with_codec(slot, info.encoding, codec.decode, info, frame.data, slot)
            elif not frame.stays_in_place and (source := self._source_span(frame)):
                codec.decode(info, source.view, slot)
            clock.lap("decode")
            batch_frames = await self._scheduler.infer(variant, slot, deadline, lambda: clock.lap("queue"))
            clock.lap("infer")
            data: Buffer | None = None
            if not frame.stays_in_place:
                data = await self._with_codec(slot, output.encoding, codec.encode, slot, output)
                # Looked up again: the client may have taken it back meanwhile.
                if answer := self._answer_span(frame):
                    answer.view[:] = data
                    data = None
            clock.lap("encode")
            return Answer(variant, frame.head(), data, batch_frames, clock, slot)
        except BaseException:
            slot.release()
            raise

    def _source_span(self, frame: _Frame) -> Span | None:
        """Where the frame lies in a client's region; None if it came with the message."""
        if not frame.message.frame.HasField("region"):
            return None
        place, info = frame.message.frame.region, frame.info
        size = codec.raw_bytes(info.width, info.height, info.encoding)
        return self._regions.span("frame.region", place.handle, place.offset, size)

    def _answer_span(self, frame: _Frame) -> Span | None:
        """Where the client wants the answer in a region of its own; None if it goes with the response."""
        if not frame.message.HasField("answer"):
            return None
        place, info, scale = frame.message.answer, frame.info, frame.variant.scale
        size = codec.raw_bytes(info.width * scale, info.height * scale, frame.output.encoding)
        return self._regions.span("answer", place.handle, place.offset, size)

    async def _with_codec(self, slot: Slot, encoding: int, work: Callable[..., T], *arguments: object) -> T:
        """Run a codec, in a thread where it takes long; the thread holds the slot, for it may outlive the call."""
        if not codec.needs_thread(encoding):
            return work(*arguments)
        loop = asyncio.get_running_loop()
        slot.hold()
        job = self._codecs.submit(work, *arguments)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(slot.release))
        return await asyncio.wrap_future(job)


def _deadline(clock: StageClock, budget_s: float | None, call_s: float | None) -> float | None:
    """The moment after which the frame is not begun, on `time.monotonic`'s clock: the sooner of budget and call."""
    spent = time.perf_counter() - clock.arrival
    left = [seconds for seconds in (None if budget_s is None else budget_s - spent, call_s) if seconds is not None]
    if not left:
        return None
    if min(left) <= 0:
        raise BudgetSpentError("the frame's time ran out before it could be looked at")
    return time.monotonic() + min(left)
