"""The client for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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


class UpscaleClient:
    """A connection to the service, for use from any number of threads; a context manager.

    Args:
        address: host and port of the service.
        timeout_s: the longest a call may take, unless it says otherwise. Streams have no limit.
        tls: True if the service's certificate comes from a public authority; `Tls` for others, and to show one's own.
        token: a key of the service's or a JSON Web Token; or a function that gives it, called for every call.
        keep_buffers: let this process keep memory of large buffers, up to 256 MB that nobody uses, rather than map it
            anew for every frame; with glibc, and for all of the process.

    Raises:
        OSError: a file of `tls` cannot be read.
        ValueError: a certificate without its key; or a token that would go to another host in clear text.
    """

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
            grpc.insecure_channel(address, options=OPTIONS)
            if secure is None
            else grpc.secure_channel(address, secure, options=OPTIONS)
        )
        self._stub = Stub(self._channel, token)
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
        priority: Priority = "live",
        step_down: bool = False,
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
            priority: "offline" for frames that nobody waits for: they fill the gaps and never delay "live" ones.
            step_down: let a lesser model answer, down to bicubic, if this one cannot within the budget;
                `Upscaled.model` says which did.
            timeout_s: seconds the whole call may take.

        Raises:
            UpscaleError: the service refused or could not be reached; see the tree in `_errors`.
            ValueError: `frame` is none of these.
        """
        wish = Wish(model, scale, profile, output, quality, budget_s, priority, step_down)
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
        priority: Priority = "live",
        step_down: bool = False,
        window: int = 2,
        drop: Drop = "keep_all",
        timeout_s: float | None = None,
    ) -> UpscaleStream:
        """Enlarge frame after frame in one session; iterate over what it returns for the answers, in order.

        Args:
            frames: read in a thread of its own, as fast as the service takes them. A `StreamFrame` chooses its
                sequence number; others are counted from 0.
            model: this and all to `step_down` are as for `upscale`, and hold for all frames.
            scale: as for `upscale`.
            profile: as for `upscale`.
            pixel_format: as for `upscale`.
            colour: as for `upscale`.
            output: as for `upscale`.
            quality: as for `upscale`.
            budget_s: as for `upscale`.
            priority: as for `upscale`.
            step_down: as for `upscale`, decided for every frame anew.
            window: frames the service works on at once, unread answers included.
            drop: "latest_wins" lets a frame that waits give way to a newer one.
            timeout_s: seconds the whole session may take; None for no limit.
        """
        wish = Wish(model, scale, profile, output, quality, budget_s, priority, step_down)

        raised: list[Exception] = []

        def requests() -> Iterator[wire.Framed[pb.UpscaleStreamRequest]]:
            yield _messages.stream_options(wish, drop, window)
            try:
                for number, frame in enumerate(frames):
                    yield _messages.stream_request(numbered(frame, number), pixel_format, colour)
            except Exception as error:  # the caller's own, which gRPC would keep to itself
                raised.append(error)
                raise

        return UpscaleStream(self._stub.stream(requests(), timeout=timeout_s), raised)

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
        priority: Priority = "live",
        step_down: bool = False,
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
            priority: as for `upscale`.
            step_down: as for `upscale`, decided for every frame anew.

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
        wish = Wish(model, scale, profile, pixel_format, budget_s=budget_s, priority=priority, step_down=step_down)
        return SharedFrames(region, handle, wish, colour, self._upscale, call.cancel)

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

    def __init__(self, call: Any, raised: Sequence[Exception]) -> None:
        self._call = call
        self._raised = raised

    def __iter__(self) -> Iterator[StreamAnswer]:
        return self

    def __next__(self) -> StreamAnswer:
        """The next answer; one that failed says so itself (`StreamAnswer.result`).

        Raises:
            UpscaleError: the session has failed.
            Exception: what the frames' iterator raised, or was wrong with one of them; the session is over.
        """
        try:
            return _messages.stream_answer(next(self._call))
        except grpc.RpcError as error:
            raise (self._raised[0] if self._raised else from_rpc(error)) from None

    def summary(self) -> StreamSummary:
        """How many frames were answered, failed and were dropped; waits for the session's end."""
        return summary(self._call.trailing_metadata())

    def cancel(self) -> None:
        """End the session now; frames that are not answered are given up."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class SharedFrames(SharedPlaces):
    """Places for frames and answers in memory that the service shares; a context manager."""

    def __init__(
        self,
        region: SharedRegion,
        handle: str,
        wish: Wish,
        colour: Colour,
        upscale: Callable[[wire.Framed[pb.UpscaleRequest], float | None], Upscaled],
        unshare: Callable[[], object],
    ) -> None:
        super().__init__(region, handle, wish, colour)
        self._upscale = upscale
        self._unshare = unshare

    def upscale(self, index: int = 0, *, timeout_s: float | None = None) -> Upscaled:
        """Enlarge `inputs[index]` into `outputs[index]`; errors are those of `UpscaleClient.upscale`."""
        return self._upscale(self._request(index), timeout_s)

    def close(self) -> None:
        """Share the memory no longer."""
        self._unshare()
        self._region.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
