"""A refusal's way from the service to its client, over a real socket: as a call's status, and as a frame's error."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

import upscale_client as sdk
from service.access.gate import Gate
from service.delivery import Delivery
from service.errors import BudgetSpentError, BudgetTooSmallError, OverloadedError, UpscaleError
from service.failures import FailureLog
from service.interceptors import CallInterceptor
from service.metrics import Metrics
from service.rpc import UpscaleServicer
from service.settings import Settings
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

FRAME = np.zeros((16, 16, 3), np.uint8)


class Line:
    """Refuses every frame."""

    def __init__(self, error: UpscaleError) -> None:
        self._error = error

    async def upscale(self, *_: object, **__: object) -> None:
        raise self._error


@contextlib.asynccontextmanager
async def refusing(error: UpscaleError) -> AsyncGenerator[str]:
    """The address of a service that has nothing behind its RPCs but this error."""
    metrics = Metrics()
    line: Any = Line(error)
    nothing: Any = None
    servicer = UpscaleServicer(Settings(), nothing, line, nothing, nothing, metrics)
    interceptor = CallInterceptor(metrics, FailureLog(10), Gate(Settings()), receive_timeout_s=5, delivery=Delivery())
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers((servicer.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def details(address: str) -> list[Any]:
    """What an Upscale call's status says beside its code and message."""
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await UpscaleServiceStub(channel).Upscale(pb.UpscaleRequest())
    trailing = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])  # pyright: ignore[reportArgumentType]
    assert status.code == caught.value.code().value[0]
    assert status.message == caught.value.details()
    return list(status.details)


@pytest.mark.parametrize("retry_after_s", [0.0, 0.0125, 90.5])
async def test_an_overloaded_service_says_when_to_try_again(retry_after_s: float) -> None:
    async with refusing(OverloadedError("full", retry_after_s)) as address:
        info, retry, _ = await details(address)
        wait = error_details_pb2.RetryInfo()
        assert info.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
        assert retry.Unpack(wait)
        assert wait.HasField("retry_delay")
        assert wait.retry_delay.ToNanoseconds() / 1e9 == retry_after_s


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (OverloadedError("full", 0.0), sdk.OverloadedError, True),
        (OverloadedError("full", 0.0125), sdk.OverloadedError, True),
        (OverloadedError("full"), sdk.OverloadedError, True),
        (BudgetTooSmallError("5 ms; runet_x2_clean takes 12 ms"), sdk.BudgetTooSmallError, False),
        (BudgetSpentError("late"), sdk.BudgetSpentError, False),
    ],
)
async def test_clients_are_told_what_the_service_said(
    error: UpscaleError, kind: type[sdk.UpscaleError], retryable: bool
) -> None:
    async def frames() -> AsyncIterator[Any]:
        yield FRAME

    async with refusing(error) as address, sdk.AsyncUpscaleClient(address) as client:
        with pytest.raises(sdk.UpscaleError) as caught:
            await client.upscale(FRAME)
        (answer,) = [answer async for answer in client.stream(frames())]
        assert (len(await details(address)) == 3) == (error.retry_after_s is not None)
    for told in (caught.value, answer.error):
        assert told is not None
        assert type(told) is kind
        assert (str(told), told.code, told.reason) == (str(error), error.code, error.reason)
        assert (told.retry_after_s, told.retryable) == (error.retry_after_s, retryable)
