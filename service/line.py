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
from service.timing import StageClock
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Buffer, Framed

T = TypeVar("T")
FrameMessage = pb.UpscaleRequest | pb.UpscaleStreamRequest
PROFILES = {pb.PROFILE_CLEAN: "clean", pb.PROFILE_COMPRESSED: "compressed"}


@dataclass(frozen=True)
class Wish:
    """What is wanted of a frame: a request's fields, or a session's."""

    model: str
    scale: int
    profile: str
    output: pb.OutputFormat
    budget_s: float | None

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
        profile = PROFILES.get(message.profile, "")
        return cls(message.model, message.scale, profile, message.output, budget_s)


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
        wish: Wish,
        framed: Framed[pb.UpscaleRequest] | Framed[pb.UpscaleStreamRequest],
        clock: StageClock,
        *,
        call_s: float | None = None,
        patient: bool = False,
    ) -> Answer:
        """Enlarge a frame.

        Args:
            method: the RPC, for the metrics.
            wish: what is wanted.
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
            info = codec.inspect(message.frame, framed.data, self._min_side)
            output = codec.output_format(wish.output, info.encoding)
            variant = self._catalog.resolve(wish.model, wish.scale, wish.profile, info.width, info.height, info.pixels)
            variant_name = variant.name
            if not self._catalog.is_ready(variant.name):
                raise BackendUnavailableError(f"{variant.name} is not ready: Triton is gone or does not hold it now")
            deadline = _deadline(clock, wish.budget_s, call_s)
            if patient:
                await self._reserve(deadline)
            try:
                slot = self._slot(variant, info, output, message, reserved=patient)
            finally:
                if patient:
                    self._frames.unreserve()
            answer = await self._through(slot, variant, info, output, framed, clock, deadline)
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
        asyncio.get_running_loop().call_soon(self._metrics.frame_done, method, variant.name, seconds, wish.budget_s)
        return answer

    async def _reserve(self, deadline: float | None) -> None:
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await self._frames.reserve()
        except TimeoutError:
            raise BudgetSpentError("the frame's time ran out before there was room for it") from None

    async def _through(
        self,
        slot: Slot,
        variant: Variant,
        info: FrameInfo,
        output: Output,
        framed: Framed[pb.UpscaleRequest] | Framed[pb.UpscaleStreamRequest],
        clock: StageClock,
        deadline: float | None,
    ) -> Answer:
        message = framed.message
        try:
            if framed.data is not None:
                await self._with_codec(slot, info.encoding, codec.decode, info, framed.data, slot)
            clock.lap("decode")
            batch_frames = await self._scheduler.infer(variant, slot, deadline, lambda: clock.lap("queue"))
            clock.lap("infer")
            data: Buffer | None = None
            frame = pb.Frame(
                width=info.width * variant.scale,
                height=info.height * variant.scale,
                encoding=output.encoding,
                colour=message.frame.colour if message.frame.HasField("colour") else None,
                region=message.answer if message.HasField("answer") else None,
            )
            if not self._is_in_place(info, output, message):
                data = await self._with_codec(slot, output.encoding, codec.encode, slot, output)
                if message.HasField("answer"):
                    self._answer_span(variant, info, output, message).view[:] = data
                    data = None
            clock.lap("encode")
            return Answer(variant, frame, data, batch_frames, clock, slot)
        except BaseException:
            slot.release()
            raise

    def _slot(
        self, variant: Variant, info: FrameInfo, output: Output, message: FrameMessage, *, reserved: bool
    ) -> Slot:
        """Where the frame is inferred; what lies in a client's region and cannot stay there is copied out of it."""
        layout = info.layout(variant.scale)
        source = answer = None
        if message.frame.HasField("region"):
            size = codec.raw_bytes(info.width, info.height, info.encoding)
            source = self._regions.span("frame.region", message.frame.region.handle, message.frame.region.offset, size)
        if message.HasField("answer"):
            answer = self._answer_span(variant, info, output, message)
        if source and answer and self._is_in_place(info, output, message):
            slot = self._regions.borrow(layout, source, answer, reserved=reserved)
        else:
            slot = self._frames.take(layout, reserved=reserved)
            if source:
                codec.decode(info, source.view, slot)
        slot.colours = info.colours
        return slot

    def _answer_span(self, variant: Variant, info: FrameInfo, output: Output, message: FrameMessage) -> Span:
        size = codec.raw_bytes(info.width * variant.scale, info.height * variant.scale, output.encoding)
        return self._regions.span("answer", message.answer.handle, message.answer.offset, size)

    @staticmethod
    def _is_in_place(info: FrameInfo, output: Output, message: FrameMessage) -> bool:
        """Whether Triton reads the client's memory and writes to it, and no pixel comes by here."""
        in_regions = message.frame.HasField("region") and message.HasField("answer")
        return in_regions and codec.lies_as_in_slot(info.encoding) and info.encoding == output.encoding

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
