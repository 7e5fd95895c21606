"""The two clients: one for threads, one for asyncio. They differ in how they wait, and in nothing else."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from upscale_client import _messages
from upscale_client._errors import from_rpc
from upscale_client._messages import Encoding, Profile, Served, Upscaled
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0
# The service bounds what it takes; an answer is as large as we asked for.
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class UpscaleClient:
    """A connection to the service, for use from any number of threads; a context manager.

    Args:
        address: host and port of the service.
        timeout_s: the longest a call may take, unless it says otherwise.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = UpscaleServiceStub(self._channel)
        self._timeout_s = timeout_s

    def upscale(
        self,
        frame: NDArray[np.uint8] | bytes,
        *,
        model: str = "",
        scale: int = 0,
        profile: Profile | None = None,
        output: Encoding = "rgb24",
        quality: int = 0,
        budget_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Upscaled:
        """Enlarge one frame.

        Args:
            frame: RGB as a uint8 array (height, width, 3), or the bytes of a PNG, JPEG or WebP.
            model: a model's name; "" for the service's default.
            scale: 2 or 3; 0 for the largest whose answer fits into 3840x2160.
            profile: "clean" for rendered frames, "compressed" for decoded streams; None for the service's default.
            output: the encoding of the answer.
            quality: 1 to 100 for JPEG and WebP (100 is lossless WebP); 0 for the default, 90.
            budget_s: seconds the frame may take in the service; it is not inferred later.
            timeout_s: seconds the whole call may take.

        Raises:
            UpscaleError: the service refused or could not be reached; see the tree in `_errors`.
            ValueError: `frame` is neither of the two.
        """
        request = _messages.request(
            frame, model=model, scale=scale, profile=profile, output=output, quality=quality, budget_s=budget_s
        )
        try:
            response: pb.UpscaleResponse = self._stub.Upscale(request, timeout=timeout_s or self._timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        return _messages.answer(response)

    def list_models(self) -> list[Served]:
        """What the service offers."""
        try:
            response: pb.ListModelsResponse = self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout_s)
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


class AsyncUpscaleClient:
    """As `UpscaleClient`, for asyncio."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = UpscaleServiceStub(self._channel)
        self._timeout_s = timeout_s

    async def upscale(
        self,
        frame: NDArray[np.uint8] | bytes,
        *,
        model: str = "",
        scale: int = 0,
        profile: Profile | None = None,
        output: Encoding = "rgb24",
        quality: int = 0,
        budget_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Upscaled:
        """Enlarge one frame; arguments, result and errors are those of `UpscaleClient.upscale`."""
        request = _messages.request(
            frame, model=model, scale=scale, profile=profile, output=output, quality=quality, budget_s=budget_s
        )
        try:
            response: pb.UpscaleResponse = await self._stub.Upscale(request, timeout=timeout_s or self._timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        return _messages.answer(response)

    async def list_models(self) -> list[Served]:
        """What the service offers."""
        try:
            response: pb.ListModelsResponse = await self._stub.ListModels(
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
