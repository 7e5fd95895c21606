"""The two clients: one for threads, one for asyncio. They differ in how they wait, and in nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from upscale_client import _messages, wire
from upscale_client._errors import from_rpc
from upscale_client._messages import (
    Colour,
    Drop,
    Encoding,
    PixelFormat,
    Profile,
    Served,
    StreamAnswer,
    StreamFrame,
    StreamSummary,
    Upscaled,
    Wish,
)
from upscale_client._shared import SharedRegion, SharedRequests
from upscale_client.v1 import upscale_pb2 as pb

DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0
# The service bounds what it takes; an answer is as large as we asked for.
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_SERVICE = pb.DESCRIPTOR.services_by_name["UpscaleService"].full_name
_SUMMARY_KEY = "upscale-summary-bin"
_HD = Colour()
Pixels = NDArray[np.uint8]


class _Stub:
    """The methods on a channel of either kind, with the wire form of those that carry frames."""

    def __init__(self, channel: Any) -> None:
        self.upscale: Callable[..., Any] = channel.unary_unary(
            f"/{_SERVICE}/Upscale",
            request_serializer=wire.serialise,
            response_deserializer=lambda data: wire.parse(pb.UpscaleResponse, data),
        )
        self.stream: Callable[..., Any] = channel.stream_stream(
            f"/{_SERVICE}/UpscaleStream",
            request_serializer=wire.serialise,
            response_deserializer=lambda data: wire.parse(pb.UpscaleStreamResponse, data),
        )
        self.share_region: Callable[..., Any] = channel.unary_stream(
            f"/{_SERVICE}/ShareRegion",
            request_serializer=pb.ShareRegionRequest.SerializeToString,
            response_deserializer=pb.ShareRegionResponse.FromString,
        )
        self.list_models: Callable[..., Any] = channel.unary_unary(
            f"/{_SERVICE}/ListModels",
            request_serializer=pb.ListModelsRequest.SerializeToString,
            response_deserializer=pb.ListModelsResponse.FromString,
        )


class UpscaleClient:
    """A connection to the service, for use from any number of threads; a context manager.

    Args:
        address: host and port of the service.
        timeout_s: the longest a call may take, unless it says otherwise. Streams have no limit.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = _Stub(self._channel)
        self._timeout_s = timeout_s

    def upscale(
        self,
        frame: Pixels | bytes,
        *,
        model: str = "",
        scale: int = 0,
        profile: Profile | None = None,
        pixel_format: PixelFormat = "rgb24",
        colour: Colour = _HD,
        output: Encoding | None = None,
        quality: int = 0,
        budget_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Upscaled:
        """Enlarge one frame.

        Args:
            frame: RGB as a uint8 array (height, width, 3); NV12 or I420 as one (height * 3 / 2, width); or the bytes
                of a PNG, JPEG or WebP.
            model: a model's name; "" for the service's default.
            scale: 2 or 3; 0 for the largest whose answer fits into 3840x2160.
            profile: "clean" for rendered frames, "compressed" for decoded streams; None for the service's default.
            pixel_format: of an array.
            colour: of an NV12 or I420 array; the answer's is the same.
            output: the encoding of the answer; None for the frame's own pixel format, RGB for pictures.
            quality: 1 to 100 for JPEG and WebP (100 is lossless WebP); 0 for the default, 90.
            budget_s: seconds the frame may take in the service; it is not inferred later.
            timeout_s: seconds the whole call may take.

        Raises:
            UpscaleError: the service refused or could not be reached; see the tree in `_errors`.
            ValueError: `frame` is none of these.
        """
        wish = Wish(model, scale, profile, output, quality, budget_s)
        return self._upscale(_messages.request(frame, wish, pixel_format, colour), timeout_s)

    def stream(
        self,
        frames: Iterable[Pixels | bytes | StreamFrame],
        *,
        model: str = "",
        scale: int = 0,
        profile: Profile | None = None,
        pixel_format: PixelFormat = "rgb24",
        colour: Colour = _HD,
        output: Encoding | None = None,
        quality: int = 0,
        budget_s: float | None = None,
        window: int = 2,
        drop: Drop = "keep_all",
        timeout_s: float | None = None,
    ) -> UpscaleStream:
        """Enlarge frame after frame in one session; iterate over what it returns for the answers, in order.

        Args:
            frames: read in a thread of its own, as fast as the service takes them. A `StreamFrame` chooses its
                sequence number; others are counted from 0.
            model: this and all to `budget_s` are as for `upscale`, and hold for all frames.
            scale: as for `upscale`.
            profile: as for `upscale`.
            pixel_format: as for `upscale`.
            colour: as for `upscale`.
            output: as for `upscale`.
            quality: as for `upscale`.
            budget_s: as for `upscale`.
            window: frames the service works on at once, unread answers included.
            drop: "latest_wins" lets a frame that waits give way to a newer one.
            timeout_s: seconds the whole session may take; None for no limit.
        """
        wish = Wish(model, scale, profile, output, quality, budget_s)

        def requests() -> Iterator[wire.Framed[pb.UpscaleStreamRequest]]:
            yield _messages.stream_options(wish, drop, window)
            for number, frame in enumerate(frames):
                yield _messages.stream_request(_numbered(frame, number), pixel_format, colour)

        return UpscaleStream(self._stub.stream(requests(), timeout=timeout_s))

    def shared_frames(
        self,
        width: int,
        height: int,
        *,
        scale: int,
        count: int = 1,
        model: str = "",
        profile: Profile | None = None,
        pixel_format: PixelFormat = "rgb24",
        colour: Colour = _HD,
        budget_s: float | None = None,
    ) -> SharedFrames:
        """Share memory with a service on this host: frames are enlarged where they lie, and no pixel is sent.

        Args:
            width: of the frames.
            height: of the frames.
            scale: 2 or 3.
            count: places for frames, each with one for its answer.
            model: this and all below are as for `upscale`, and hold for all frames.
            profile: as for `upscale`.
            pixel_format: as for `upscale`.
            colour: as for `upscale`.
            budget_s: as for `upscale`.

        Raises:
            UpscaleError: the service is on another host, of another user, or does not offer it.
            OSError: there is not so much shared memory.
        """
        region = SharedRegion(width, height, scale, pixel_format, count)
        call = self._stub.share_region(region.request())
        try:
            handle = next(call).handle
        except grpc.RpcError as error:
            region.close()
            raise from_rpc(error) from None
        wish = Wish(model, scale, profile, pixel_format, budget_s=budget_s)
        head = _messages.raw_head(width, height, pixel_format, colour)
        return SharedFrames(region, SharedRequests(region, handle, wish, head), self._upscale, call.cancel)

    def list_models(self) -> list[Served]:
        """What the service offers."""
        try:
            response: pb.ListModelsResponse = self._stub.list_models(pb.ListModelsRequest(), timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        return _messages.served(response)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _upscale(self, request: wire.Framed[pb.UpscaleRequest], timeout_s: float | None) -> Upscaled:
        try:
            return _messages.answer(self._stub.upscale(request, timeout=timeout_s or self._timeout_s))
        except grpc.RpcError as error:
            raise from_rpc(error) from None


class UpscaleStream:
    """The answers of a session, in the frames' order; an iterator and a context manager."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[StreamAnswer]:
        return self

    def __next__(self) -> StreamAnswer:
        """The next answer; one that failed says so itself (`StreamAnswer.result`).

        Raises:
            UpscaleError: the session has failed.
        """
        try:
            return _messages.stream_answer(next(self._call))
        except grpc.RpcError as error:
            raise from_rpc(error) from None

    def summary(self) -> StreamSummary:
        """How many frames were answered, failed and were dropped; waits for the session's end."""
        return _summary(self._call.trailing_metadata())

    def cancel(self) -> None:
        """End the session now; frames that are not answered are given up."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class SharedFrames:
    """Places for frames and answers in memory that the service shares; a context manager."""

    def __init__(
        self,
        region: SharedRegion,
        requests: SharedRequests,
        upscale: Callable[[wire.Framed[pb.UpscaleRequest], float | None], Upscaled],
        unshare: Callable[[], object],
    ) -> None:
        self._region = region
        self._requests = requests
        self._upscale = upscale
        self._unshare = unshare

    @property
    def inputs(self) -> list[Pixels]:
        """The frames: put yours into one of these arrays."""
        return self._region.inputs

    @property
    def outputs(self) -> list[Pixels]:
        """The answers; one is good until its frame is enlarged again."""
        return self._region.outputs

    def upscale(self, index: int = 0, *, timeout_s: float | None = None) -> Upscaled:
        """Enlarge `inputs[index]` into `outputs[index]`; errors are those of `UpscaleClient.upscale`."""
        return self._upscale(self._requests.of(index), timeout_s)

    def close(self) -> None:
        """Share the memory no longer."""
        self._unshare()
        self._region.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncUpscaleClient:
    """As `UpscaleClient`, for asyncio."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = _Stub(self._channel)
        self._timeout_s = timeout_s

    async def upscale(
        self,
        frame: Pixels | bytes,
        *,
        model: str = "",
        scale: int = 0,
        profile: Profile | None = None,
        pixel_format: PixelFormat = "rgb24",
        colour: Colour = _HD,
        output: Encoding | None = None,
        quality: int = 0,
        budget_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Upscaled:
        """Enlarge one frame; arguments, result and errors are those of `UpscaleClient.upscale`."""
        wish = Wish(model, scale, profile, output, quality, budget_s)
        return await self._upscale(_messages.request(frame, wish, pixel_format, colour), timeout_s)

    def stream(
        self,
        frames: AsyncIterable[Pixels | bytes | StreamFrame],
        *,
        model: str = "",
        scale: int = 0,
        profile: Profile | None = None,
        pixel_format: PixelFormat = "rgb24",
        colour: Colour = _HD,
        output: Encoding | None = None,
        quality: int = 0,
        budget_s: float | None = None,
        window: int = 2,
        drop: Drop = "keep_all",
        timeout_s: float | None = None,
    ) -> AsyncUpscaleStream:
        """Enlarge frame after frame in one session; arguments are those of `UpscaleClient.stream`."""
        wish = Wish(model, scale, profile, output, quality, budget_s)

        async def requests() -> AsyncIterator[wire.Framed[pb.UpscaleStreamRequest]]:
            yield _messages.stream_options(wish, drop, window)
            number = 0
            async for frame in frames:
                yield _messages.stream_request(_numbered(frame, number), pixel_format, colour)
                number += 1

        return AsyncUpscaleStream(self._stub.stream(requests(), timeout=timeout_s))

    async def shared_frames(
        self,
        width: int,
        height: int,
        *,
        scale: int,
        count: int = 1,
        model: str = "",
        profile: Profile | None = None,
        pixel_format: PixelFormat = "rgb24",
        colour: Colour = _HD,
        budget_s: float | None = None,
    ) -> AsyncSharedFrames:
        """Share memory with a service on this host; arguments and errors are those of `UpscaleClient.shared_frames`."""
        region = SharedRegion(width, height, scale, pixel_format, count)
        call = self._stub.share_region(region.request())
        try:
            handle = (await call.read()).handle
        except grpc.RpcError as error:
            region.close()
            raise from_rpc(error) from None
        wish = Wish(model, scale, profile, pixel_format, budget_s=budget_s)
        head = _messages.raw_head(width, height, pixel_format, colour)
        return AsyncSharedFrames(region, SharedRequests(region, handle, wish, head), self._upscale, call.cancel)

    async def list_models(self) -> list[Served]:
        """What the service offers."""
        try:
            response: pb.ListModelsResponse = await self._stub.list_models(
                pb.ListModelsRequest(), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        return _messages.served(response)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _upscale(self, request: wire.Framed[pb.UpscaleRequest], timeout_s: float | None) -> Upscaled:
        try:
            return _messages.answer(await self._stub.upscale(request, timeout=timeout_s or self._timeout_s))
        except grpc.RpcError as error:
            raise from_rpc(error) from None


class AsyncUpscaleStream:
    """As `UpscaleStream`, for asyncio."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[StreamAnswer]:
        return self

    async def __anext__(self) -> StreamAnswer:
        """The next answer; errors are those of `UpscaleStream`."""
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        if not isinstance(response, wire.Framed):  # grpc.aio.EOF
            raise StopAsyncIteration
        return _messages.stream_answer(response)

    async def summary(self) -> StreamSummary:
        """How many frames were answered, failed and were dropped; waits for the session's end."""
        return _summary(await self._call.trailing_metadata())

    def cancel(self) -> None:
        """End the session now; frames that are not answered are given up."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class AsyncSharedFrames:
    """As `SharedFrames`, for asyncio."""

    def __init__(
        self,
        region: SharedRegion,
        requests: SharedRequests,
        upscale: Callable[[wire.Framed[pb.UpscaleRequest], float | None], Any],
        unshare: Callable[[], object],
    ) -> None:
        self._region = region
        self._requests = requests
        self._upscale = upscale
        self._unshare = unshare

    @property
    def inputs(self) -> list[Pixels]:
        """The frames: put yours into one of these arrays."""
        return self._region.inputs

    @property
    def outputs(self) -> list[Pixels]:
        """The answers; one is good until its frame is enlarged again."""
        return self._region.outputs

    async def upscale(self, index: int = 0, *, timeout_s: float | None = None) -> Upscaled:
        """Enlarge `inputs[index]` into `outputs[index]`; errors are those of `UpscaleClient.upscale`."""
        return await self._upscale(self._requests.of(index), timeout_s)

    async def close(self) -> None:
        """Share the memory no longer."""
        self._unshare()
        self._region.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _numbered(frame: Pixels | bytes | StreamFrame, number: int) -> StreamFrame:
    return frame if isinstance(frame, StreamFrame) else StreamFrame(frame, number)


def _summary(trailing: Any) -> StreamSummary:
    data = next((value for key, value in trailing or () if key == _SUMMARY_KEY), b"")
    summary = pb.StreamSummary.FromString(data)
    return StreamSummary(summary.answered, summary.failed, summary.dropped)
