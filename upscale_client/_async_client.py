"""The client for asyncio: as that for threads, but for how it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from upscale_client import _messages, wire
from upscale_client._calls import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    MOST_FREE_BYTES,
    OPTIONS,
    Pixels,
    Stub,
    Tls,
    Token,
    credentials,
    numbered,
    summary,
)
from upscale_client._errors import from_rpc
from upscale_client._messages import (
    Colour,
    Drop,
    Encoding,
    PixelFormat,
    Priority,
    Profile,
    Served,
    StreamAnswer,
    StreamFrame,
    StreamSummary,
    Upscaled,
    Wish,
)
from upscale_client._shared import SharedPlaces, SharedRegion
from upscale_client.allocator import keep_large_buffers
from upscale_client.v1 import upscale_pb2 as pb

_HD = Colour()


class AsyncUpscaleClient:
    """As `UpscaleClient`, for asyncio."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tls: bool | Tls = False,
        token: Token = "",
        keep_buffers: bool = True,
    ) -> None:
        if keep_buffers:
            keep_large_buffers(MOST_FREE_BYTES)
        secure = credentials(address, tls, token)
        self._channel = (
            grpc.aio.insecure_channel(address, options=OPTIONS)
            if secure is None
            else grpc.aio.secure_channel(address, secure, options=OPTIONS)
        )
        self._stub = Stub(self._channel, token)
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
        priority: Priority = "live",
        step_down: bool = False,
        timeout_s: float | None = None,
    ) -> Upscaled:
        """Enlarge one frame; arguments, result and errors are those of `UpscaleClient.upscale`."""
        wish = Wish(model, scale, profile, output, quality, budget_s, priority, step_down)
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
        priority: Priority = "live",
        step_down: bool = False,
        window: int = 2,
        drop: Drop = "keep_all",
        timeout_s: float | None = None,
    ) -> AsyncUpscaleStream:
        """Enlarge frame after frame in one session; arguments are those of `UpscaleClient.stream`."""
        wish = Wish(model, scale, profile, output, quality, budget_s, priority, step_down)

        raised: list[Exception] = []

        async def requests() -> AsyncIterator[wire.Framed[pb.UpscaleStreamRequest]]:
            yield _messages.stream_options(wish, drop, window)
            number = 0
            try:
                async for frame in frames:
                    yield _messages.stream_request(numbered(frame, number), pixel_format, colour)
                    number += 1
            except Exception as error:  # the caller's own; gRPC cancels the call for it, and whoever reads the answers
                raised.append(error)
                raise

        return AsyncUpscaleStream(self._stub.stream(requests(), timeout=timeout_s), raised)

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
        priority: Priority = "live",
        step_down: bool = False,
    ) -> AsyncSharedFrames:
        """Share memory with a service on this host; arguments and errors are those of `UpscaleClient.shared_frames`."""
        region = SharedRegion(width, height, scale, pixel_format, count)
        call = self._stub.share_region(region.request())
        try:
            handle = (await call.read()).handle
        except grpc.RpcError as error:
            region.close()
            raise from_rpc(error) from None
        wish = Wish(model, scale, profile, pixel_format, budget_s=budget_s, priority=priority, step_down=step_down)
        return AsyncSharedFrames(region, handle, wish, colour, self._upscale, call.cancel)

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

    def __init__(self, call: Any, raised: Sequence[Exception]) -> None:
        self._call = call
        self._raised = raised

    def __aiter__(self) -> AsyncIterator[StreamAnswer]:
        return self

    async def __anext__(self) -> StreamAnswer:
        """The next answer; errors are those of `UpscaleStream`."""
        try:
            response = await self._call.read()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            if self._raised:
                raise self._raised[0] from None
            if isinstance(error, asyncio.CancelledError):
                raise
            raise from_rpc(error) from None
        if not isinstance(response, wire.Framed):  # grpc.aio.EOF
            raise StopAsyncIteration
        return _messages.stream_answer(response)

    async def summary(self) -> StreamSummary:
        """How many frames were answered, failed and were dropped; waits for the session's end."""
        return summary(await self._call.trailing_metadata())

    def cancel(self) -> None:
        """End the session now; frames that are not answered are given up."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class AsyncSharedFrames(SharedPlaces):
    """As `SharedFrames`, for asyncio."""

    def __init__(
        self,
        region: SharedRegion,
        handle: str,
        wish: Wish,
        colour: Colour,
        upscale: Callable[[wire.Framed[pb.UpscaleRequest], float | None], Awaitable[Upscaled]],
        unshare: Callable[[], object],
    ) -> None:
        super().__init__(region, handle, wish, colour)
        self._upscale = upscale
        self._unshare = unshare

    async def upscale(self, index: int = 0, *, timeout_s: float | None = None) -> Upscaled:
        """Enlarge `inputs[index]` into `outputs[index]`; errors are those of `UpscaleClient.upscale`."""
        return await self._upscale(self._request(index), timeout_s)

    async def close(self) -> None:
        """Share the memory no longer."""
        self._unshare()
        self._region.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
