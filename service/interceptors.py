"""Around every RPC: when it arrived, how it ended, and errors as gRPC statuses."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.errors import InternalError, UpscaleError
from service.metrics import Metrics
from service.timing import set_duration

log = logging.getLogger(__name__)

ERROR_DOMAIN = "upscale.v1"
arrival: ContextVar[float] = ContextVar("arrival")
"""When the first header of the call being handled came, on `time.perf_counter`'s clock."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Notes each call's arrival, counts it, and turns what its handler raises into a status with details."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called when a call's headers have come, in the task that will run its handler."""
        arrival.set(time.perf_counter())
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        for kind in ("unary_unary", "unary_stream", "stream_stream"):
            if handler is not None and (behaviour := getattr(handler, kind)) is not None:
                wrap = getattr(grpc, f"{kind}_rpc_method_handler")
                return wrap(
                    self._around(method, behaviour),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
        return handler

    def _around(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(behaviour):  # not ours: ours are all plain coroutines
            return behaviour
        _, service, name = method.split("/")

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began = arrival.get()
            self._metrics.rpc_started(service, name)
            code = "OK"
            try:
                return await behaviour(request, context)
            except UpscaleError as error:
                code = error.code.name
                await _abort(context, error)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception:
                code = "INTERNAL"
                log.exception("%s failed. This is a bug.", method)
                await _abort(context, InternalError("internal error; the server's log says more"))
            finally:
                seconds = time.perf_counter() - began
                # Counting can wait until the answer is on its way.
                asyncio.get_running_loop().call_soon(self._metrics.rpc_handled, service, name, code, seconds)

        return call


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: UpscaleError) -> None:
    message = str(error)
    status = status_pb2.Status(code=error.code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        set_duration(retry.retry_delay, error.retry_after_s)
        status.details.add().Pack(retry)
    await context.abort(error.code, message, rpc_status.to_status(status).trailing_metadata)
