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
from service.access.gate import Client, Gate, client_of
from service.delivery import Delivery
from service.errors import (
    InternalError,
    ReceiveTimeoutError,
    RequestInvalidError,
    UnauthenticatedError,
    UpscaleError,
)
from service.failures import FailureLog
from service.metrics import Metrics
from service.timing import set_duration

ERROR_DOMAIN = "upscale.v1"
_Context = grpc.aio.ServicerContext[Any, Any]
arrival: ContextVar[float] = ContextVar("arrival")
"""When the first header of the call being handled came, on `time.perf_counter`'s clock."""


calling: ContextVar[Client] = ContextVar("calling")
"""Who the call being handled is from."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Notes each call's arrival and who it is from, counts it, and turns what its handler raises into a status.

    Args:
        metrics: where calls are counted.
        failures: where calls are logged that failed as a whole; a frame's failure is logged before it comes here.
        gate: who may call.
        receive_timeout_s: how long a call's one message may take to come; a session has a time of its own.
        delivery: keeps calls open until their answers have come to the client, where connections may end.
    """

    def __init__(
        self, metrics: Metrics, failures: FailureLog, gate: Gate, receive_timeout_s: float, delivery: Delivery
    ) -> None:
        self._metrics = metrics
        self._failures = failures
        self._gate = gate
        self._receive_timeout_s = receive_timeout_s
        self._delivery = delivery

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
        try:
            token_owner = self._gate.token_owner(method, handler_call_details.invocation_metadata or ())
        except UnauthenticatedError as error:
            return grpc.stream_stream_rpc_method_handler(self._around(method, _refuse_with(error), None))
        for kind in ("unary_unary", "unary_stream", "stream_stream"):
            if handler is None or (behaviour := getattr(handler, kind)) is None:
                continue
            if inspect.isasyncgenfunction(behaviour):  # not ours: ours are all plain coroutines
                return handler
            if kind != "stream_stream":
                behaviour = self._receiving(behaviour, answers=kind == "unary_unary")
            # A stream's handler is called when the headers have come, any other's only when the message is there: and
            # who may not call shall not send it, nor may it take for ever.
            return grpc.stream_stream_rpc_method_handler(
                self._around(method, behaviour, token_owner),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler

    def _receiving(self, behaviour: Callable[..., Any], *, answers: bool) -> Callable[..., Any]:
        """A handler that reads its one message itself, and writes what is returned."""

        async def receive(_: object, context: _Context) -> None:
            try:
                async with asyncio.timeout(self._receive_timeout_s):
                    request = await context.read()
            except TimeoutError:
                raise ReceiveTimeoutError(f"the message did not come within {self._receive_timeout_s:g} s") from None
            if request is grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue] - its stubs forgot it
                raise RequestInvalidError("the call has no message; it needs one")
            response = await behaviour(request, context)
            if answers:
                await write(context, response)

        return receive

    def _around(self, method: str, behaviour: Callable[..., Any], token_owner: str | None) -> Callable[..., Any]:
        _, service, name = method.split("/")

        async def call(request: Any, context: _Context) -> None:
            began = arrival.get()
            self._metrics.rpc_started(service, name)
            code = "OK"
            try:
                calling.set(client_of(token_owner, context.peer(), context.auth_context()))
                await behaviour(request, context)
                await self._delivery.wait(context.peer())
            except UpscaleError as error:
                code = error.code.name
                if not error.request_id:
                    self._tell(name, context, error)
                await self._delivery.wait(context.peer())  # of a session, the answers before
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
        context: _Context,
        error: UpscaleError,
        bug: Exception | None = None,
    ) -> None:
        """Log a call that failed, and give it the id that its client may quote."""
        parent, client = trace_context.parent.get(), calling.get(None)
        error.request_id = parent.trace_id if parent else trace_context.new_request_id()

        def fields() -> dict[str, object]:
            return {
                "request_id": error.request_id,
                "trace_id": parent and parent.trace_id,
                "method": method,
                "client": client.share if client else context.peer(),
                "took_s": round(time.perf_counter() - arrival.get(), 6),
                "retry_after_s": error.retry_after_s,
            }

        self._failures.failed("call", error, fields, bug=bug)


async def write(context: _Context, response: object) -> None:
    """Send a response; to a client that has just gone, it is a call that was cancelled."""
    try:
        await context.write(response)
    except grpc.aio.InternalError:  # gRPC's word for it, when its own cancellation comes too late
        raise asyncio.CancelledError from None


def _refuse_with(error: UpscaleError) -> Callable[..., Any]:
    async def refuse(_request: object, _context: object) -> None:
        raise error

    return refuse


async def _abort(context: _Context, error: UpscaleError) -> None:
    message = str(error)
    status = status_pb2.Status(code=error.code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        set_duration(retry.retry_delay, error.retry_after_s)
        status.details.add().Pack(retry)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=error.request_id))
    await context.abort(error.code, message, rpc_status.to_status(status).trailing_metadata)
