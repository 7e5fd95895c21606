"""What can go wrong with a frame, and what the client is told.

    UpscaleError
    ├── RequestInvalidError      INVALID_ARGUMENT    REQUEST_INVALID
    ├── FrameInvalidError        INVALID_ARGUMENT    FRAME_INVALID
    ├── RegionInvalidError       INVALID_ARGUMENT    REGION_INVALID
    ├── ModelUnknownError        NOT_FOUND           MODEL_UNKNOWN
    ├── BudgetSpentError         DEADLINE_EXCEEDED   BUDGET_SPENT
    ├── UnauthenticatedError     UNAUTHENTICATED     UNAUTHENTICATED
    ├── OverloadedError          RESOURCE_EXHAUSTED  OVERLOADED
    │   └── ClientLimitError     RESOURCE_EXHAUSTED  CLIENT_LIMIT
    ├── BudgetTooSmallError      RESOURCE_EXHAUSTED  BUDGET_TOO_SMALL
    ├── ReaderTooSlowError       RESOURCE_EXHAUSTED  READER_TOO_SLOW
    ├── ReceiveTimeoutError      DEADLINE_EXCEEDED   RECEIVE_TIMEOUT
    ├── SessionIdleError         DEADLINE_EXCEEDED   SESSION_IDLE
    ├── BackendUnavailableError  UNAVAILABLE         BACKEND_UNAVAILABLE
    │   └── NotHeldError         UNAVAILABLE         BACKEND_UNAVAILABLE
    ├── ShuttingDownError        UNAVAILABLE         SHUTTING_DOWN
    ├── NotOfferedError          UNIMPLEMENTED       NOT_OFFERED
    └── InternalError            INTERNAL            INTERNAL

The message is for the person who meets it: it names the field, its value and what is accepted. The reason is for
programs; proto/upscale/v1/upscale.proto lists them, and `interceptors` puts them into the status.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class UpscaleError(Exception):
    """Base of the tree."""

    code: ClassVar[grpc.StatusCode]
    reason: ClassVar[str]
    retry_after_s: float | None = None
    """Seconds after which trying again may help; None where that is not known, or never."""
    request_id: str = ""
    """What the client may quote, and the log's line has as well; "" until the failure is logged."""


class RequestInvalidError(UpscaleError):
    """A field of the request, other than its frame, makes no sense."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "REQUEST_INVALID"


class FrameInvalidError(UpscaleError):
    """The frame's size, byte count or picture is wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "FRAME_INVALID"


class RegionInvalidError(UpscaleError):
    """Shared memory is not the client's, or not there, or not large enough."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "REGION_INVALID"


class ModelUnknownError(UpscaleError):
    """No such model, scale, profile or pixel format is served."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "MODEL_UNKNOWN"


class BudgetSpentError(UpscaleError):
    """The frame's budget, or its call's deadline, ran out before it was inferred."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "BUDGET_SPENT"


class UnauthenticatedError(UpscaleError):
    """The call brings no valid token."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class OverloadedError(UpscaleError):
    """There is no room for another frame now; in `retry_after_s` seconds, at least 0, there may be."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = None if retry_after_s is None else max(0.0, retry_after_s)


class ClientLimitError(OverloadedError):
    """The client asks for more than one client may have; there may be room for others."""

    reason = "CLIENT_LIMIT"


class BudgetTooSmallError(UpscaleError):
    """The budget is shorter than the network takes on an idle service: trying again will not help."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "BUDGET_TOO_SMALL"


class ReaderTooSlowError(UpscaleError):
    """A session's client does not read its answers."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "READER_TOO_SLOW"


class ReceiveTimeoutError(UpscaleError):
    """A call's message takes too long to come."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "RECEIVE_TIMEOUT"


class SessionIdleError(UpscaleError):
    """A session's client sends nothing."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "SESSION_IDLE"


class BackendUnavailableError(UpscaleError):
    """Triton cannot be reached, does not hold the model now, or gave no answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "BACKEND_UNAVAILABLE"


class NotHeldError(BackendUnavailableError):
    """Triton is there, but does not hold the model now."""


class ShuttingDownError(UpscaleError):
    """The gateway is stopping."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SHUTTING_DOWN"


class NotOfferedError(UpscaleError):
    """The operator has turned this off."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_OFFERED"


class InternalError(UpscaleError):
    """Triton failed on a valid frame, or the gateway has a bug."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"
