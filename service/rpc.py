"""The RPCs: from messages to what they ask for, and back. No policy in here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from service.access.gate import Client
from service.access.limits import ClientLimits
from service.catalog import Catalog
from service.errors import NotOfferedError, OverloadedError
from service.interceptors import arrival, calling, write
from service.line import Caller, FrameLine
from service.metrics import Metrics
from service.regions import Regions
from service.scheduler import BatchTime, Scheduler
from service.scheduling.ladder import LadderPosition
from service.session import Session, describe
from service.settings import Settings
from service.timing import StageClock, set_duration
from service.wishes import PROFILES, Wish
from upscale_client import wire
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Framed

SERVICE = pb.DESCRIPTOR.services_by_name["UpscaleService"].full_name
_PROFILE_VALUES = {name: value for value, name in PROFILES.items()}
_PIXEL_FORMATS = {"rgb24": pb.ENCODING_RGB24, "nv12": pb.ENCODING_NV12}
_Context = grpc.aio.ServicerContext[Any, Any]


class UpscaleServicer:
    """The service of proto/upscale/v1/upscale.proto."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        line: FrameLine,
        scheduler: Scheduler,
        regions: Regions,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._limits = ClientLimits(
            frames_per_s=settings.client_frames_per_s,
            burst=settings.client_burst_frames,
            sessions=settings.client_sessions,
        )
        self._catalog = catalog
        self._line = line
        self._scheduler = scheduler
        self._regions = regions
        self._metrics = metrics
        self._sessions: set[Session] = set()
        self._stopping = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is given: the methods, with the wire form of those that carry frames."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Upscale": grpc.unary_unary_rpc_method_handler(
                    self.Upscale, lambda data: wire.parse(pb.UpscaleRequest, data), _as_is
                ),
                "UpscaleStream": grpc.stream_stream_rpc_method_handler(
                    self.UpscaleStream, lambda data: wire.parse(pb.UpscaleStreamRequest, data), _as_is
                ),
                "ShareRegion": grpc.unary_stream_rpc_method_handler(
                    self.ShareRegion, pb.ShareRegionRequest.FromString, pb.ShareRegionResponse.SerializeToString
                ),
                "ListModels": grpc.unary_unary_rpc_method_handler(
                    self.ListModels, pb.ListModelsRequest.FromString, pb.ListModelsResponse.SerializeToString
                ),
            },
        )

    def stop(self) -> None:
        """End the sessions when the frames they have are answered, and let go of clients' regions."""
        self._stopping.set()
        for session in self._sessions:
            session.stop()

    async def Upscale(self, request: Framed[pb.UpscaleRequest], context: _Context) -> bytes:  # noqa: N802
        """One frame in, one enlarged frame out."""
        clock = StageClock(arrival.get())
        clock.lap("receive")
        answering = self._line.upscale(
            self._caller("Upscale", calling.get()),
            lambda: Wish.of(request.message),
            request,
            clock,
            context.time_remaining(),
        )
        with await answering as answer:
            response = pb.UpscaleResponse()
            describe(response, answer)
            # Now, not when gRPC comes to it: the bytes are good as long as the slot is held.
            return wire.serialise(Framed(response, answer.data))

    async def UpscaleStream(self, requests: object, context: _Context) -> None:  # noqa: N802
        """Frames in, enlarged frames out, in order."""
        if len(self._sessions) >= self._settings.max_sessions:
            raise OverloadedError(
                f"{self._settings.max_sessions} sessions are open already, the most allowed; try again later"
            )

        client = calling.get()

        async def read() -> Framed[pb.UpscaleStreamRequest] | None:
            request = await context.read()
            return request if isinstance(request, Framed) else None  # else grpc.aio.EOF

        session = Session(
            self._line,
            read,
            lambda response: write(context, response),
            caller=self._caller("UpscaleStream", client, LadderPosition()),
            max_window=self._settings.max_stream_window,
            write_timeout_s=self._settings.stream_write_timeout_s,
            idle_s=self._settings.session_idle_s,
            call_s=context.time_remaining,
            on_drop=lambda: self._metrics.frame_shed("", "superseded"),
        )
        self._sessions.add(session)
        if self._stopping.is_set():
            session.stop()
        try:
            with self._limits.session(client.name, time.monotonic()), self._metrics.session():
                await session.run()
        finally:
            self._sessions.discard(session)
        context.set_trailing_metadata((("upscale-summary-bin", session.summary.SerializeToString()),))

    def _caller(self, method: str, client: Client, position: LadderPosition | None = None) -> Caller:
        return Caller(method, client.share, position, lambda: self._limits.take_frame(client.name, time.monotonic()))

    async def ShareRegion(self, request: pb.ShareRegionRequest, context: _Context) -> None:  # noqa: N802
        """A client's region is known as long as this call is open."""
        if not self._settings.client_shared_memory:
            raise NotOfferedError("this service shares no memory with clients: client_shared_memory is off")
        region = self._regions.share(request.name, request.byte_size, request.proof)
        try:
            await write(context, pb.ShareRegionResponse(handle=region.handle))
            await self._stopping.wait()
        finally:
            self._regions.unshare(region)

    async def ListModels(self, request: pb.ListModelsRequest, context: _Context) -> pb.ListModelsResponse:  # noqa: N802
        """What is served, and the limits in force."""
        settings = self._settings
        times: dict[str, list[pb.BatchTime]] = {}
        for each in self._scheduler.times():
            times.setdefault(each.variant, []).append(_batch_time(each))
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
                    pixel_format=_PIXEL_FORMATS[variant.pixels],
                    batch_times=times.get(variant.name),
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
                max_stream_window=settings.max_stream_window,
                shared_memory=settings.client_shared_memory,
            ),
        )


def _batch_time(time: BatchTime) -> pb.BatchTime:
    layout = time.layout
    message = pb.BatchTime(endpoint=time.endpoint, width=layout.width, height=layout.height, frames=time.frames)
    set_duration(message.predicted, time.seconds)
    return message


_as_is: Callable[[bytes], bytes] = bytes  # a handler's answer is serialised already; bytes of bytes is no copy
