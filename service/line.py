"""One frame's way through the gateway, whichever call brought it: into a slot, through Triton, out of the slot."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar

from service import codec, trace_context
from service.catalog import Catalog, Variant
from service.codec import FrameInfo, Output
from service.coding_times import Codings, CodingTimes
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    BudgetTooSmallError,
    InternalError,
    OverloadedError,
    UpscaleError,
)
from service.failures import CANCELLED, FailureLog
from service.frame_job import FrameJob
from service.frames import FrameFormat, FrameStore, Slot, Span
from service.metrics import Metrics, Outcome
from service.regions import Regions
from service.scheduler import Scheduler
from service.scheduling.ladder import LadderPosition
from service.timing import Stage, StageClock
from service.wishes import Wish
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Buffer, Framed

if TYPE_CHECKING:
    from service.tracing import FrameSpan, Tracing

T = TypeVar("T")
FrameMessage = pb.UpscaleRequest | pb.UpscaleStreamRequest
_OUTCOMES: dict[str, Outcome] = {
    "OVERLOADED": "refused",
    "BUDGET_SPENT": "spent",
    "BUDGET_TOO_SMALL": "too_small",
    "BACKEND_UNAVAILABLE": "failed",
    "SHUTTING_DOWN": "failed",
    "INTERNAL": "failed",
}
"""Of a frame with a budget that failed for such a reason; any other is its client's doing."""


@dataclass(frozen=True)
class _Frame:
    """A frame that was understood."""

    message: FrameMessage
    data: Buffer | None
    """None if it lies in the client's region."""
    info: FrameInfo
    output: Output
    rungs: Sequence[Variant]
    """What may answer, best first; all of one scale and for the same frames."""

    @property
    def asked(self) -> Variant:
        """What was asked for."""
        return self.rungs[0]

    @cached_property
    def layout(self) -> FrameFormat:
        """Of its slot."""
        return self.info.layout(self.asked.scale)

    @cached_property
    def stays_in_place(self) -> bool:
        """Whether Triton reads the client's memory and writes to it, and no pixel comes by here."""
        in_regions = self.message.frame.HasField("region") and self.message.HasField("answer")
        return in_regions and codec.lies_as_in_slot(self.info.encoding) and self.info.encoding == self.output.encoding

    @cached_property
    def codings(self) -> Codings:
        """What is done with it between its acceptance and its answer, beside the inference."""
        if self.stays_in_place:
            return {}
        if codec.needs_thread(self.info.encoding):  # decoded before
            return {"encode": self.output.encoding}
        return {"decode": self.info.encoding, "encode": self.output.encoding}

    def head(self) -> pb.Frame:
        """What the response says of the answer, but for its bytes."""
        message = self.message
        return pb.Frame(
            width=self.info.width * self.asked.scale,
            height=self.info.height * self.asked.scale,
            encoding=self.output.encoding,
            colour=message.frame.colour if message.frame.HasField("colour") else None,
            region=message.answer if message.HasField("answer") else None,
        )


@dataclass(frozen=True)
class Caller:
    """Who wants frames enlarged."""

    method: str
    """The RPC, for the metrics."""
    client: Hashable
    """Among whom what there is is shared fairly."""
    position: LadderPosition | None = None
    """Of a session: its pictures do not flicker between networks, and its frames without a budget wait in turn for a
    free slot rather than fail."""
    take_frame: Callable[[], None] = lambda: None
    """Counts a frame; raises ClientLimitError where it is one too many for this client."""


@dataclass
class _Told:
    """What is known of a frame while it is on its way, for the log and the trace."""

    caller: Caller
    message: FrameMessage
    clock: StageClock
    span: FrameSpan | None
    wanted: Wish | None = None
    frame: _Frame | None = None

    def fields(self) -> dict[str, object]:
        """For a log line; what is not known is None."""
        wanted, frame, clock = self.wanted, self.frame, self.clock
        return {
            "method": self.caller.method,
            "client": None if self.caller.client is None else str(self.caller.client),
            "sequence": self.message.sequence if isinstance(self.message, pb.UpscaleStreamRequest) else None,
            "variant": frame and frame.asked.name,
            "model": None if frame else wanted and wanted.model,
            "width": frame and frame.info.width,
            "height": frame and frame.info.height,
            "budget_s": wanted and wanted.budget_s,
            "failed_in": clock.stage,
            "stages_s": {stage: round(seconds, 6) for stage, seconds in clock.seconds.items() if seconds},
        }

    def attributes(self) -> dict[str, str | bool | int | float]:
        """For a span."""
        found: dict[str, str | bool | int | float] = {}
        client = str(self.caller.client or "")
        kind, _, address = client.partition(":")
        host, _, port = address.rpartition(":")
        if kind in ("ipv4", "ipv6") and port.isdecimal():
            found |= {"network.peer.address": host.strip("[]"), "network.peer.port": int(port)}
        elif client:
            found["upscale.client"] = client  # known by name
        if isinstance(self.message, pb.UpscaleStreamRequest):
            found["upscale.sequence"] = str(self.message.sequence)  # 64 bits without a sign: more than a span's integer
        if self.wanted:
            found["upscale.priority"] = self.wanted.priority.name.lower()
            found["upscale.step_down"] = self.wanted.step_down
            if self.wanted.budget_s is not None:
                found["upscale.budget_s"] = self.wanted.budget_s
        if self.frame:
            info, asked = self.frame.info, self.frame.asked
            found |= {"upscale.variant": asked.name, "upscale.model": asked.model, "upscale.scale": asked.scale}
            found |= {"upscale.frame.width": info.width, "upscale.frame.height": info.height}
            found["upscale.frame.encoding"] = pb.Encoding.Name(self.message.frame.encoding).removeprefix("ENCODING_")
        return found


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
        failures: where frames are logged that failed.
        tracing: makes the frames' spans.
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
        failures: FailureLog,
        tracing: Tracing | None = None,
    ) -> None:
        self._catalog = catalog
        self._frames = frames
        self._regions = regions
        self._scheduler = scheduler
        self._metrics = metrics
        self._codecs = codecs
        self._min_side = min_side
        self._failures = failures
        self._tracing = tracing
        self._coding_times = CodingTimes()
        """They must be within the budget, too."""

    async def upscale(
        self,
        caller: Caller,
        wish: Callable[[], Wish],
        framed: Framed[pb.UpscaleRequest] | Framed[pb.UpscaleStreamRequest],
        clock: StageClock,
        call_s: float | None = None,
    ) -> Answer:
        """Enlarge a frame.

        Args:
            caller: who wants it.
            wish: gives what is wanted, or says why that makes no sense.
            framed: the message with the frame.
            clock: of this frame; the message has just come.
            call_s: seconds until the call's own deadline.

        Raises:
            UpscaleError: what kept it from being enlarged.
        """
        told = _Told(caller, framed.message, clock, self._tracing and self._tracing.frame(caller.method, clock))
        try:
            caller.take_frame()
            told.wanted = wanted = wish()
            told.frame = frame = self._understand(wanted, framed)
            job = self._job(caller, wanted, frame, clock, call_s, told.span)
            waits = caller.position is not None and wanted.budget_s is None
            if waits:
                await self._reserve(job)
            try:
                answer = await self._through(caller, frame, job, clock, reserved=waits)
            finally:
                job.done.cancel()
        except UpscaleError as error:
            self._failed(told, error)
            raise
        except asyncio.CancelledError as error:
            self._failed(told, error)
            raise
        except Exception as bug:
            error = InternalError("internal error; the server's log says more")
            self._failed(told, error, bug)
            raise error from bug
        # Counting can wait until the answer is on its way.
        asyncio.get_running_loop().call_soon(self._count, told, frame, answer, wanted)
        return answer

    def _failed(self, told: _Told, error: UpscaleError | asyncio.CancelledError, bug: Exception | None = None) -> None:
        """Count and log a frame that failed, end its span, and give its error the id that its client may quote."""
        seconds = time.perf_counter() - told.clock.arrival
        parent = trace_context.parent.get()
        trace_id = told.span.trace_id if told.span else parent.trace_id if parent else ""
        request_id = trace_id or trace_context.new_request_id()
        code = reason = CANCELLED
        retry_after_s = None
        if isinstance(error, UpscaleError):
            error.request_id = request_id
            code, reason, retry_after_s = error.code.name, error.reason, error.retry_after_s
        method, variant = told.caller.method, told.frame.asked.name if told.frame else ""
        self._metrics.frame_failed(method, variant, code)
        if told.wanted and told.wanted.budget_s is not None:
            outcome = _OUTCOMES.get(reason, "void")
            if reason == CANCELLED and seconds > told.wanted.budget_s:
                outcome = "spent"  # its client has waited as long as it wanted to
            self._metrics.budget_ended(variant, told.wanted.priority.name.lower(), outcome)
        if isinstance(error, OverloadedError | BudgetTooSmallError):
            self._metrics.frame_refused(variant, reason.lower(), seconds)
        recorded = told.span is not None and told.span.recorded
        if told.span:
            attributes = {"upscale.outcome": reason.lower(), **told.attributes()} if recorded else {}
            told.span.failed(told.clock, attributes, code=code, reason=reason, message=str(error))

        def fields() -> dict[str, object]:
            return {
                "request_id": request_id,
                "trace_id": trace_id if parent or recorded else "",
                **told.fields(),
                "took_s": round(seconds, 6),
                "retry_after_s": retry_after_s,
            }

        self._failures.failed("frame", error, fields, bug=bug)

    async def _reserve(self, job: FrameJob) -> None:
        left_s = None if job.deadline == math.inf else job.deadline - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                await self._frames.reserve()
        except TimeoutError:
            raise BudgetSpentError("the frame's time ran out before there was room for it") from None

    def _count(self, told: _Told, frame: _Frame, answer: Answer, wanted: Wish) -> None:
        variant, clock = answer.variant, told.clock
        self._metrics.frame_done(told.caller.method, variant.name, clock.seconds, wanted.budget_s)
        if wanted.budget_s is not None:
            in_time = clock.total <= wanted.budget_s
            self._metrics.budget_ended(frame.asked.name, wanted.priority.name.lower(), "met" if in_time else "late")
        if variant is not frame.asked:
            self._metrics.stepped_down(frame.asked.name, variant.name)
        if told.span and told.span.recorded:
            outcome = "answered" if variant is frame.asked else "stepped_down"
            more = {"upscale.answered_by": variant.name, "upscale.batch_frames": answer.batch_frames}
            told.span.answered(clock, {"upscale.outcome": outcome, **more, **told.attributes()})

    def _understand(self, wanted: Wish, framed: Framed[pb.UpscaleRequest] | Framed[pb.UpscaleStreamRequest]) -> _Frame:
        info = codec.inspect(framed.message.frame, framed.data, self._min_side)
        output = codec.output_format(wanted.output, info.encoding)
        asked = self._catalog.resolve(wanted.model, wanted.scale, wanted.profile, info.width, info.height, info.pixels)
        rungs = self._catalog.rungs(asked) if wanted.step_down else [asked]
        return _Frame(framed.message, framed.data, info, output, rungs)

    def _job(
        self,
        caller: Caller,
        wanted: Wish,
        frame: _Frame,
        clock: StageClock,
        call_s: float | None,
        span: FrameSpan | None,
    ) -> FrameJob:
        """The frame as the scheduler knows it.

        Raises:
            BackendUnavailableError: nothing that may answer is ready.
            BudgetSpentError: its time is up.
        """
        open_to = frame.rungs if caller.position is None else caller.position.open_to(frame.rungs, time.monotonic())
        ready = [variant for variant in open_to if self._catalog.is_ready(variant.name)]
        if not ready:
            raise BackendUnavailableError(f"{frame.asked.name} is not ready: Triton is gone or does not hold it now")
        deadline = _deadline(clock, wanted.budget_s, call_s)
        if deadline is not None:
            deadline -= self._coding_times.expected_s(frame.codings, frame.layout)
        return FrameJob(
            ready,
            frame.layout,
            deadline,
            self._frames,
            priority=wanted.priority,
            client=caller.client,
            colours=frame.info.colours,
            on_begin=lambda: clock.lap("queue"),
            span=span,
        )

    async def _through(
        self, caller: Caller, frame: _Frame, job: FrameJob, clock: StageClock, *, reserved: bool
    ) -> Answer:
        """Into a slot, through Triton, out of the slot, which is the answer's to release."""
        output = frame.output
        try:
            try:
                await self._enter(frame, job, clock, reserved=reserved)
            finally:
                if reserved:
                    self._frames.unreserve()
            if caller.position is not None:
                caller.position.answered_by(frame.rungs.index(job.variant), time.monotonic())
            batch_frames = await self._scheduler.infer(job)
            clock.lap("infer")
            slot = job.slot
            assert slot is not None
            data: Buffer | None = None
            if not frame.stays_in_place:
                data = await self._with_codec(slot, output.encoding, codec.encode, slot, output)
                # Looked up again: the client may have taken it back meanwhile.
                if answer := self._answer_span(frame):
                    answer.view[:] = data
                    data = None
            clock.lap("encode")
            now = time.monotonic()
            # With the wait for its turn: other frames are copied meanwhile.
            took_s: dict[Stage, float] = {"decode": clock.seconds["decode"], "encode": now - job.finished_at}
            self._coding_times.learn(frame.codings, frame.layout, took_s, now)
            job.slot = None
            return Answer(job.variant, frame.head(), data, batch_frames, clock, slot)
        finally:
            job.free()

    async def _enter(self, frame: _Frame, job: FrameJob, clock: StageClock, *, reserved: bool) -> None:
        """Be accepted, and lie in a slot.

        A raw frame is accepted first, for then it takes the slot beside those that it shares a batch with. How long a
        picture takes to be decoded nobody knows before, so it is decoded first; a frame in its client's region lies
        where it lies.
        """
        if not reserved:
            self._frames.refuse_overload()
        info = frame.info
        source, answer = self._source_span(frame), self._answer_span(frame)
        if source and answer and frame.stays_in_place:
            job.slot = self._regions.borrow(job.layout, source, answer, reserved=True)
        elif codec.needs_thread(info.encoding):
            job.settle()
            assert job.slot is not None
            assert frame.data is not None
            await self._with_codec(job.slot, info.encoding, codec.decode, info, frame.data, job.slot)
            clock.lap("decode")
        self._admit(job, frame)
        try:
            job.settle()
            if not frame.stays_in_place and not codec.needs_thread(info.encoding):
                data = frame.data if source is None else source.view
                assert data is not None
                assert job.slot is not None
                codec.decode(info, data, job.slot)
        except BaseException:
            self._scheduler.withdraw(job)
            raise
        clock.lap("decode")

    def _admit(self, job: FrameJob, frame: _Frame) -> None:
        try:
            self._scheduler.admit(job)
        except BudgetTooSmallError as too_small:
            coding_s, now = self._coding_times.expected_s(frame.codings, frame.layout), time.monotonic()
            if not coding_s or not self._coding_times.may_doubt(frame.codings, now):
                raise
            job.postpone(coding_s)
            try:
                self._scheduler.admit(job)
            except BudgetTooSmallError:
                raise  # the inference alone takes longer
            except OverloadedError:
                self._coding_times.doubted(frame.codings, now)
                raise too_small from None  # by what is known it is too slow at any time
            self._coding_times.doubted(frame.codings, now)

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
        place, info, scale = frame.message.answer, frame.info, frame.asked.scale
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
    """When the answer must be on its way, on `time.monotonic`'s clock: the sooner of budget and call."""
    spent = time.perf_counter() - clock.arrival
    left = [seconds for seconds in (None if budget_s is None else budget_s - spent, call_s) if seconds is not None]
    if not left:
        return None
    if min(left) <= 0:
        raise BudgetSpentError("the frame's time ran out before it could be looked at")
    return time.monotonic() + min(left)
