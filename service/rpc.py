"""The RPCs: check the request, walk the frame down the line, answer. No policy in here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from service import codec
from service.catalog import Catalog
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    InternalError,
    OverloadedError,
    RequestInvalidError,
    UpscaleError,
)
from service.frames import FrameSize, FrameStore, Slot
from service.interceptors import arrival
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.timing import STAGES, StageClock
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1 import upscale_pb2_grpc as pb_grpc

T = TypeVar("T")
PROFILES = {pb.PROFILE_CLEAN: "clean", pb.PROFILE_COMPRESSED: "compressed"}
_PROFILE_VALUES = {name: value for value, name in PROFILES.items()}
_Context = grpc.aio.ServicerContext[Any, Any]


class UpscaleServicer(pb_grpc.UpscaleServiceServicer):
    """The service of proto/upscale/v1/upscale.proto."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        frames: FrameStore,
        scheduler: Scheduler,
        metrics: Metrics,
        codecs: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._frames = frames
        self._scheduler = scheduler
        self._metrics = metrics
        self._codecs = codecs

    async def Upscale(self, request: pb.UpscaleRequest, context: _Context) -> pb.UpscaleResponse:  # noqa: N802
        """One frame in, one enlarged frame out."""
        clock = StageClock(arrival.get())
        clock.lap("receive")
        variant_name = ""
        try:
            output = codec.output_format(request.output)
            budget_s = _budget(request)
            info = codec.inspect(request.frame, self._settings.min_side)
            profile = _profile(request.profile)
            variant = self._catalog.resolve(request.model, request.scale, profile, info.width, info.height)
            variant_name = variant.name
            if not self._catalog.is_ready(variant.name):
                raise BackendUnavailableError(f"{variant.name} is not ready: Triton is gone or does not hold it now")
            deadline = _deadline(clock, budget_s, context.time_remaining())

            with self._frames.take(FrameSize(info.height, info.width, variant.scale)) as slot:
                await self._with_codec(slot, info.encoding, codec.decode, info, slot)
                clock.lap("decode")
                batch_frames = await self._scheduler.infer(variant, slot, deadline, lambda: clock.lap("queue"))
                clock.lap("infer")
                data = await self._with_codec(slot, output.encoding, codec.encode, slot, output)
                clock.lap("encode")
        except UpscaleError as error:
            self._metrics.frame_failed(variant_name, error.code.name)
            if isinstance(error, OverloadedError):
                self._metrics.frame_shed(variant_name, "overloaded")
            raise
        except asyncio.CancelledError:
            self._metrics.frame_failed(variant_name, "CANCELLED")
            raise
        except Exception:
            self._metrics.frame_failed(variant_name, InternalError.code.name)
            raise
        self._metrics.frame_done(variant.name, clock, budget_s)
        return pb.UpscaleResponse(
            model=variant.model,
            variant=variant.name,
            times=pb.StageTimes(**{stage: _duration(clock.seconds[stage]) for stage in STAGES}),
            batch_frames=batch_frames,
            frame=pb.Frame(
                width=info.width * variant.scale,
                height=info.height * variant.scale,
                encoding=output.encoding,
                data=data,
            ),
        )

    async def ListModels(self, request: pb.ListModelsRequest, context: _Context) -> pb.ListModelsResponse:  # noqa: N802
        """What is served, and the limits in force."""
        settings = self._settings
        return pb.ListModelsResponse(
            variants=[
                pb.Variant(
                    name=variant.name,
                    model=variant.model,
                    scale=variant.scale,
                    profile=_PROFILE_VALUES.get(variant.profile, pb.PROFILE_UNSPECIFIED),
                    max_batch_frames=variant.max_batch_frames,
                    ready=self._catalog.is_ready(variant.name),
                    trained=variant.trained,
                )
                for variant in self._catalog.variants
            ],
            default_model=self._catalog.default_model,
            default_profile=_PROFILE_VALUES[self._catalog.default_profile],
            limits=pb.Limits(
                max_output_pixels=settings.max_output_pixels,
                min_side=settings.min_side,
                max_message_bytes=settings.max_message_bytes,
                max_inflight_frames=settings.max_inflight_frames,
            ),
        )

    async def _with_codec(self, slot: Slot, encoding: int, work: Callable[..., T], *arguments: object) -> T:
        """Run a codec, in a thread where it takes long; the thread holds the slot, for it may outlive the call."""
        if not codec.needs_thread(encoding):
            return work(*arguments)
        loop = asyncio.get_running_loop()
        slot.hold()
        job = self._codecs.submit(work, *arguments)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(slot.release))
        return await asyncio.wrap_future(job)


def _budget(request: pb.UpscaleRequest) -> float | None:
    if not request.HasField("budget"):
        return None
    seconds = request.budget.ToNanoseconds() / 1e9
    if seconds <= 0:
        raise RequestInvalidError(f"budget is {seconds:g} s; it must be more than 0, or absent")
    return seconds


def _profile(value: pb.Profile) -> str:
    if value == pb.PROFILE_UNSPECIFIED:
        return ""
    if value not in PROFILES:
        accepted = ", ".join(pb.Profile.Name(known) for known in PROFILES)
        raise RequestInvalidError(f"profile is {value} (unknown); accepted are: {accepted}")
    return PROFILES[value]


def _deadline(clock: StageClock, budget_s: float | None, call_s: float | None) -> float | None:
    """The moment after which the frame is not begun, on `time.monotonic`'s clock: the sooner of budget and call."""
    spent = time.perf_counter() - clock.arrival
    left = [seconds for seconds in (None if budget_s is None else budget_s - spent, call_s) if seconds is not None]
    if not left:
        return None
    if min(left) <= 0:
        raise BudgetSpentError("the frame's time ran out before it could be looked at")
    return time.monotonic() + min(left)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
