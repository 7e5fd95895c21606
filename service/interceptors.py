"""Around every RPC: when it arrived, how it ended, and errors as gRPC statuses."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service import trace_context
from service.errors import InternalError, UpscaleError
from service.failures import FailureLog
from service.metrics import Metrics
from service.timing import set_duration

ERROR_DOMAIN = "upscale.v1"
arrival: ContextVar[float] = ContextVar("arrival")
"""When the first header of the call being handled came, on `time.perf_counter`'s clock."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Notes each call's arrival, counts it, and turns what its handler raises into a status with details.

    Args:
        metrics: where calls are counted.
        failures: where calls are logged that failed as a whole; a frame's failure is logged before it comes here.
    """

    def __init__(self, metrics: Metrics, failures: FailureLog) -> None:
        self._metrics = metrics
        self._failures = failures

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called when a call's headers have come, in the task that will run its handler."""
        arrival.set(time.perf_counter())
        trace_context.parent.set(trace_context.parent_in(handler_call_details.invocation_metadata or ()))
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
                if not error.request_id:
                    self._tell(name, context, error)
                await _abort(context, error)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as bug:
                code = "INTERNAL"
                error = InternalError("internal error; the server's log says more")
                self._tell(name, context, error, bug)
                await _abort(context, error)
            finally:
                seconds = time.perf_counter() - began
                # Counting can wait until the answer is on its way.
                asyncio.get_running_loop().call_soon(self._metrics.rpc_handled, service, name, code, seconds)

        return call

    def _tell(
        self,
        method: str,
        context: grpc.aio.ServicerContext[Any, Any],
        error: UpscaleError,
        bug: Exception | None = None,
    ) -> None:
        """Log a call that failed, and give it the id that its client may quote."""
        parent = trace_context.parent.get()
        error.request_id = parent.trace_id if parent else trace_context.new_request_id()

        def fields() -> dict[str, object]:
            return {
                "request_id": error.request_id,
                "trace_id": parent and parent.trace_id,
                "method": method,
                "client": context.peer(),
                "took_s": round(time.perf_counter() - arrival.get(), 6),
                "retry_after_s": error.retry_after_s,
            }

        self._failures.failed("call", error, fields, bug=bug)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: UpscaleError) -> None:
    message = str(error)
    status = status_pb2.Status(code=error.code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        set_duration(retry.retry_delay, error.retry_after_s)
        status.details.add().Pack(retry)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=error.request_id))
    await context.abort(error.code, message, rpc_status.to_status(status).trailing_metadata)
